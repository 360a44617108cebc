"""Batches, clocks and memory, shared by the parts."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from torch import Tensor

CONSTANTS = "RMISEG_GPU_CONSTANTS"
"""The variable of the environment with constants for every part, as JSON."""

Step = Callable[[], Any]
T = TypeVar("T")
R = TypeVar("R")

IGNORED = 255


@dataclass(frozen=True)
class Case:
    """A batch: N, C, H, W of full-size logits, the stride of those that are given, and their dtype."""

    shape: tuple[int, int, int, int]
    stride: int
    dtype: str

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} stride {self.stride} {self.dtype}"

    def batch(self, device: str) -> tuple[Tensor, Tensor]:
        """Random logits, and labels in blocks of 8 x 8 with 2 % ignored."""
        n, c, h, w = self.shape
        generator = torch.Generator(device).manual_seed(0)
        blocks = torch.randint(0, c, (n, h // 8 + 1, w // 8 + 1), generator=generator, device=device)
        target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w].contiguous()
        target[torch.rand(target.shape, generator=generator, device=device) < 0.02] = IGNORED
        low = (n, c, -(-h // self.stride), -(-w // self.stride))
        logits = torch.randn(low, generator=generator, device=device).to(getattr(torch, self.dtype))
        return logits.requires_grad_(), target


@dataclass(frozen=True)
class Place:
    """Where the parts run: the device, how many processes, whether all is tiny, to try the script, and the time."""

    device: str
    workers: int
    tiny: bool
    seconds: float = 60

    def __post_init__(self) -> None:
        set_constants(json.loads(os.environ.get(CONSTANTS, "{}")))

    @property
    def implementation(self) -> str:
        """The implementation of the losses: that of CUDA, interpreted where there is no GPU."""
        if self.device == "cpu":
            from rmiseg.kernels import backends

            backends.DEVICES["triton"] = "cpu"
        return "triton"

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def set_constants(values: dict[str, Any]) -> dict[str, Any]:
    """Set constants of the kernels, by "module.NAME"; returns what they were."""
    from rmiseg.kernels.triton import launch, regions

    modules = {"launch": launch, "regions": regions}
    before = {}
    for name, value in values.items():
        module, constant = modules[name.split(".")[0]], name.split(".")[1]
        before[name] = getattr(module, constant)
        setattr(module, constant, launch.Tiling(*value) if isinstance(value, (tuple, list)) else value)
    return before


def in_processes(function: Callable[[T], R], inputs: Iterable[T], workers: int) -> Iterable[tuple[T, R]]:
    """Results as they come, each with its input; kernels are compiled side by side."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, each): each for each in inputs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def time_in_turn(place: Place, steps: dict[str, Step], runs: int = 7, calls: int = 5) -> dict[str, dict[str, Any]]:
    """Median seconds of each: of the device, and of the host until it is free again, with calls in a row."""
    if place.tiny:
        runs, calls = 1, 1
    device: dict[str, list[float]] = {name: [] for name in steps}
    host: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            step()
            place.wait()
            started = time.perf_counter()
            for _ in range(calls):
                step()
            free = time.perf_counter() - started
            place.wait()
            if run > 0:
                device[name].append((time.perf_counter() - started) / calls)
                host[name].append(free / calls)
    found: dict[str, dict[str, Any]] = {}
    for name, step in steps.items():
        found[name] = {"seconds": statistics.median(device[name]), "host": statistics.median(host[name])}
        if place.device == "cuda":
            found[name]["graph"] = time_of_graph(step)
    return found


def time_of_graph(step: Step) -> float | str:
    """Seconds of the device alone: of a CUDA graph of the step; or why there is none."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        return str(error)[-300:]
    times = []
    for _ in range(8):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            graph.replay()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / 5)
    return statistics.median(times[2:])


def peak_memory(place: Place, step: Step) -> int:
    """Bytes beyond those allocated before; 0 on a CPU."""
    if place.device == "cpu":
        return 0
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
