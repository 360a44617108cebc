"""The device to compute on, and the memory that was used there."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Instructions of CPUs, as Linux names them, which compute in bfloat16."""


def select_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one, else the CPU.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator if accelerator is not None else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # not so on the device "meta", which computes nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}") from error
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether arithmetic in bfloat16 is faster than in float32: on GPUs since Ampere, and CPUs that have it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return any(flag in flags for flag in BF16_FLAGS)


def tune(device: torch.device) -> None:
    """Choose what makes training faster without making it worse: on NVIDIA GPUs, TensorFloat-32 and cuDNN's search.

    cuDNN may find other algorithms in another run, of which the last bits differ.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


@contextmanager
def sizes_vary() -> Iterator[None]:
    """Do without cuDNN's search, which takes longer than it saves where nearly every image has a size of its own."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def peak_memory(device: torch.device) -> int:
    """Most memory held at once since the start, in bytes: of the GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        # Not getrusage, whose peak a process inherits from the one that started it.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def made_on_cpu(items: Iterable[T]) -> Iterator[T]:
    """Items, such as those of a DataLoader, which are made on the CPU whatever `torch.set_default_device` says."""
    with torch.device("cpu"):
        iterator = iter(items)
    while True:
        with torch.device("cpu"):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
