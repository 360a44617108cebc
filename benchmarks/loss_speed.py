"""Time and memory of the RMI loss beside cross entropy, forward and backward, in float32.

Times are medians of runs in turn, in one process. Memory is what a process of its own needs at its peak, beyond what it
held before the loss was computed. Run: python benchmarks/loss_speed.py [--runs 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rmiseg.engine.device import peak_memory as peak_memory_of_process
from rmiseg.losses import RMILoss

SHAPES = ((4, 21, 513, 513), (16, 12, 360, 480), (2, 19, 769, 769), (1, 150, 512, 512))
CASES = ((4, 1), (2, 1), (4, 4), (4, 8))  # pool size, stride of the logits


def make_batch(shape: tuple[int, int, int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Random logits at the stride, and labels in blocks of 8 x 8 with 2 % ignored."""
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, c, (n, h // 8 + 1, w // 8 + 1), generator=generator)
    target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w].contiguous()
    target[torch.rand(target.shape, generator=generator) < 0.02] = 255
    logits = torch.randn(n, c, -(-h // stride), -(-w // stride), generator=generator)
    return logits.requires_grad_(), target


def losses(num_classes: int, pool_size: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The losses compared, all from logits at any stride; cross entropy upsamples first, as trainers do."""

    def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[-2:] != target.shape[-2:]:
            logits = F.interpolate(logits, target.shape[-2:], mode="bilinear")
        return F.cross_entropy(logits, target, ignore_index=255)

    return {
        "cross entropy": cross_entropy,
        "RMI chunked": RMILoss(num_classes, pool_size=pool_size, implementation="chunked"),
        "RMI plain": RMILoss(num_classes, pool_size=pool_size, implementation="plain"),
    }


def step(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    logits.grad = None
    started = time.perf_counter()
    loss(logits, target).backward()
    return time.perf_counter() - started


def peak_memory(shape: tuple[int, ...], pool_size: int, stride: int, name: str) -> int:
    """Bytes, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory", json.dumps([shape, pool_size, stride, name])]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_own_memory(shape: tuple[int, int, int, int], pool_size: int, stride: int, name: str) -> None:
    """The child process of `peak_memory`."""
    loss = losses(shape[1], pool_size)[name]
    step(loss, *make_batch((1, shape[1], 64, 64), stride))  # load what is loaded on first use
    batch = make_batch(shape, stride)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far (Linux)
    before = peak_memory_of_process(torch.device("cpu"))
    step(loss, *batch)
    print(peak_memory_of_process(torch.device("cpu")) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        shape, pool_size, stride, name = json.loads(arguments.memory)
        print_own_memory(tuple(shape), pool_size, stride, name)
        return
    table = Table(title=f"forward + backward, float32, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for column in ("shape", "pool", "stride", "loss", "ms", "x CE", "peak MB", "x CE"):
        table.add_column(column, justify="left" if column in ("shape", "loss") else "right")
    for shape in SHAPES:
        for pool_size, stride in CASES:
            batch = make_batch(shape, stride)
            candidates = losses(shape[1], pool_size)
            times: dict[str, list[float]] = {name: [] for name in candidates}
            for _ in range(arguments.runs):
                for name, loss in candidates.items():
                    times[name].append(step(loss, *batch))
            seconds = {name: statistics.median(values) for name, values in times.items()}
            memory = {name: peak_memory(shape, pool_size, stride, name) for name in candidates}
            for name in candidates:
                table.add_row(
                    "x".join(map(str, shape)),
                    str(pool_size),
                    str(stride),
                    name,
                    f"{1e3 * seconds[name]:.0f}",
                    f"{seconds[name] / seconds['cross entropy']:.2f}",
                    f"{memory[name] / 1e6:.0f}",
                    f"{memory[name] / memory['cross entropy']:.2f}",
                )
            table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
