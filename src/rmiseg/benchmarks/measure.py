"""Time and memory of the forward and backward pass of one loss."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from rmiseg.benchmarks.candidates import CANDIDATES, Loss, Setting, random_labels
from rmiseg.runtime.device import peak_memory
from rmiseg.runtime.signals import interrupts_ignored

Shape: TypeAlias = tuple[int, int, int, int]

_CLEAR_REFS = Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3  # of malloc.h
_WARM_UP_SIZE = 64


class Passes(NamedTuple):
    """One quantity of the two passes and of both together."""

    forward: float
    backward: float
    both: float


@dataclass(frozen=True)
class Job:
    """One loss on one batch.

    Attributes:
        name: One of `CANDIDATES`.
        shape: N, C, H, W of full-size logits.
        stride: Ratio of the size of the labels to the size of the logits.
        pool_size: Pool size of RMI.
        region_size: Region size of RMI.
        dtype: Name of the dtype of the logits.
        device: Name of the device.
        threads: Threads of a CPU.
    """

    name: str
    shape: Shape
    stride: int
    pool_size: int
    region_size: int
    dtype: str
    device: str
    threads: int

    def build(self) -> Loss:
        """The loss; 16-bit logits meet it under autocast, as in a trainer."""
        loss = CANDIDATES[self.name].build(Setting(self.shape[1], self.pool_size, self.region_size))
        dtype = getattr(torch, self.dtype)
        if dtype == torch.float32:
            return loss

        def with_autocast(logits: Tensor, target: Tensor) -> Tensor:
            with torch.autocast(logits.device.type, dtype=dtype):
                return loss(logits, target)

        return with_autocast

    def make_batch(self, shape: Shape | None = None) -> tuple[Tensor, Tensor]:
        """Random logits, and labels in blocks of 8 x 8 with 2 % ignored."""
        n, c, h, w = self.shape if shape is None else shape
        generator = torch.Generator().manual_seed(0)
        target = random_labels((n, c, h, w), generator)
        logits = torch.randn(n, c, -(-h // self.stride), -(-w // self.stride), generator=generator)
        return logits.to(self.device, getattr(torch, self.dtype)).requires_grad_(), target.to(self.device)

    def warm_up(self, loss: Loss, batch: tuple[Tensor, Tensor]) -> float:
        """Have everything loaded that is loaded on first use, and return how many seconds it took.

        What compiles itself, and a device with an allocator that keeps memory, must see the batch itself. Otherwise a
        small one does.
        """
        if torch.device(self.device).type == "cpu" and not CANDIDATES[self.name].compiled:
            side = max(_WARM_UP_SIZE, self.pool_size * (self.region_size + 1))
            batch = self.make_batch((1, self.shape[1], side, side))
        started = time.perf_counter()
        run_once(loss, batch)
        return time.perf_counter() - started


def run_once(loss: Loss, batch: tuple[Tensor, Tensor]) -> Passes:
    """Seconds of one run."""
    logits, target = batch
    logits.grad = None
    start = _mark(logits.device)
    value = loss(logits, target)
    middle = _mark(logits.device)
    value.backward()  # type: ignore[no-untyped-call]
    end = _mark(logits.device)
    return Passes(_seconds(start, middle), _seconds(middle, end), _seconds(start, end))


def _mark(device: torch.device) -> float | torch.cuda.Event:
    """This moment: of the work queued so far, if the device is a GPU."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def _seconds(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    assert isinstance(start, float)
    assert isinstance(end, float)
    return end - start


def can_measure_memory(device: torch.device) -> bool:
    """Tell whether the system knows peak memory on the device, and lets us reset it."""
    return device.type == "cuda" or (device.type == "cpu" and os.access(_CLEAR_REFS, os.W_OK))


def memory(loss: Loss, batch: tuple[Tensor, Tensor]) -> Passes:
    """Most bytes held during each pass, beyond what was held before the forward pass.

    On the CPU these are bytes of the whole process, which should be one of its own: see `measure_apart`.
    """
    logits, target = batch
    logits.grad = None
    before = _reset_peak_memory(logits.device)
    value = loss(logits, target)
    forward = peak_memory(logits.device) - before
    _reset_peak_memory(logits.device)
    value.backward()  # type: ignore[no-untyped-call]
    backward = peak_memory(logits.device) - before
    return Passes(forward, backward, max(forward, backward))


def _reset_peak_memory(device: torch.device) -> int:
    """Forget the peak so far; returns the bytes held now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _CLEAR_REFS.write_text("5")
    return peak_memory(device)


class Apart(NamedTuple):
    """Findings of a process of its own about a loss: what it needs, or why it does not run."""

    memory: Passes | None
    warm_up_seconds: float
    problem: str | None


def measure_apart(job: Job, preload: list[str]) -> Apart:
    """`memory` of a job, in a new process.

    The process is forked from one that has imported torch and the modules of `preload`, but has not computed anything.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    with interrupts_ignored():  # and so by the new process, which is ended from here
        forkserver.ensure_running()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, job, os.environ.get("TORCHINDUCTOR_CACHE_DIR")))
    process.start()
    sender.close()
    try:
        found: Apart = receiver.recv()
        process.join(timeout=30)  # it has things to clean up
        return found
    except EOFError:
        process.join()
        reason = "killed, probably for want of memory" if process.exitcode == -9 else f"ended with {process.exitcode}"
        return Apart(None, 0.0, f"its process was {reason}")
    finally:
        process.kill()
        process.join()
        receiver.close()


def _child(sender: Connection, job: Job, compile_cache: str | None) -> None:
    """Work of the process of `measure_apart`."""
    with open(os.devnull, "w") as nowhere:  # what goes wrong is sent, and warnings would tear the progress bar
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    if compile_cache is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = compile_cache
    try:
        torch.set_num_threads(job.threads)
        loss, batch = job.build(), job.make_batch()
        warm_up_seconds = job.warm_up(loss, batch)
        batch[0].grad = None
        _return_freed_memory()
        sender.send(Apart(memory(loss, batch), warm_up_seconds, None))
    except Exception as error:
        sender.send(Apart(None, 0.0, describe(error)))


def _return_freed_memory() -> None:
    """Have the C library give back what is freed at once, from now on and what it has kept so far.

    By default it keeps some for later, and how much depends on what happened before. This way the peak is that of what
    is allocated, which is also what `torch.cuda.max_memory_allocated` counts.
    """
    with suppress(AttributeError, OSError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)  # larger blocks are mapped on their own
        library.malloc_trim(0)


def describe(error: Exception) -> str:
    """One line about an error, for a table."""
    lines = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return line if len(line) <= 200 else f"{line[:197]}..."


@contextmanager
def number_of_threads(threads: int | None) -> Iterator[int]:
    """Compute on so many CPU threads (torch's choice if None); yields their number."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
