"""A small training, and the faults that happen to it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from launch import run

RECIPE = {
    "data.crop_size": "32,32",
    "data.batch_size": "4",
    "data.workers": "0",
    "model.backbone": "mobilenetv3_small_050",
    "model.weights": "none",
    "optim.lr": "0.02",
    "train.epochs": "2",
    "train.norm_momentum": "0.3",
    "train.log_every": "1",
    "train.accumulate": "2",
    "train.checkpoint_every": "2",
    "device": "cpu",
}
"""Four steps: two epochs of two steps, the first of two batches and the second of one."""


def arguments(root: Path, out: Path, **changes: str) -> list[str]:
    """A command line; `__` in the names of changes stands for a dot."""
    options = {**RECIPE, "data.root": str(root), "out": str(out), "resume": "auto"}
    options |= {name.replace("__", "."): value for name, value in changes.items()}
    return ["train", *(word for name, value in options.items() for word in (f"--{name}", value))]


def train(command: list[str], fault: str = "", log: str = os.devnull, processes: int = 1) -> list[int | None]:
    """Run the command, and let a fault happen: "step 3", "write 2", "rename 2" (kill -9 before the third step, within
    the second file of tensors, before its renaming), "terminate 3" (SIGTERM before the third step), "full" (no file may
    be larger than a megabyte)."""
    return run(_train, command, fault, log, processes=processes)


def _train(command: list[str], fault: str, log: str) -> None:
    from rmiseg.cli import main

    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _prepare(*fault.split())
    sys.exit(main(command))


def _prepare(kind: str = "", number: str = "0") -> None:
    import torch

    from rmiseg.engine import train as module

    def at(count: int, action, function):
        calls = iter(range(1, 1_000_000))

        def wrapped(*args, **kwargs):
            if next(calls) == count:
                action(*args)
            return function(*args, **kwargs)

        return wrapped

    def die(*args) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def write_half(content, file) -> None:
        file.write(b"half of a file")
        file.flush()
        die()

    if kind == "step":
        module.train_step = at(int(number), die, module.train_step)
    elif kind == "write":
        torch.save = at(int(number), write_half, torch.save)
    elif kind == "rename":
        os.replace = at(int(number), die, os.replace)
    elif kind == "terminate":
        module.train_step = at(int(number), lambda *a: os.kill(os.getpid(), signal.SIGTERM), module.train_step)
    elif kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
