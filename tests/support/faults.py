"""A small training, and the faults that happen to it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from rmiseg.config import DataConfig, LoopConfig, OptimConfig, TrainConfig
from rmiseg.models.base import SegmentationModel
from rmiseg.training import assembly
from rmiseg.training.step import TrainStep
from rmiseg.training.trainer import Trainer
from support.launch import run


class SmallModel(SegmentationModel):
    """Two convolutions, batch norm and dropout: all that has a state or is random."""

    def __init__(self, num_classes: int, **_: Any) -> None:
        super().__init__(num_classes, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(64, num_classes, 1))

    def forward(self, images):
        return self.head(self.backbone(images))


def small_model(name: str, *, num_classes: int, **_: Any) -> SmallModel:
    """In place of `rmiseg.models.build_model`."""
    return SmallModel(num_classes)


def configuration(root: Path, out: Path, data: dict | None = None, **loop: Any) -> TrainConfig:
    """Four steps: two epochs of two steps, the first of two batches and the second of one."""
    options = {"crop_size": (32, 32), "batch_size": 4, "workers": 0, **(data or {})}
    loop = {"epochs": 2, "log_every": 1, "accumulate": 2, "checkpoint_every": 1, **loop}
    return TrainConfig(
        out=str(out),
        resume="auto",
        device="cpu",
        data=DataConfig(root=str(root), **options),
        optim=OptimConfig(lr=0.01),
        train=LoopConfig(**loop),
    )


def train(config: TrainConfig, fault: str = "", log: Path | None = None, processes: int = 1) -> list[int | None]:
    """Train in processes of their own, and let a fault happen; their exit statuses.

    Args:
        config: What to train.
        fault: "step 3", "write 2", "rename 2": kill -9 before the third step, within the second file of tensors, before
            the second renaming of a file. "terminate 3": SIGTERM before the third step. "full 1000": no file may
            be larger than so many bytes.
        log: Where to write what is printed.
        processes: How many.
    """
    return run(_train, config, fault, str(log or os.devnull), processes=processes)


def _train(config: TrainConfig, fault: str, log: str) -> None:
    file = open(log, "w")  # noqa: SIM115  # for as long as the process lives
    os.dup2(file.fileno(), 2)
    assembly.build_model = small_model
    _prepare(*fault.split())
    try:
        Trainer(config, console=Console(file=file)).fit()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _prepare(kind: str = "", number: str = "0") -> None:
    def at(action, function):
        calls = iter(range(1, 1_000_000))

        def wrapped(*args, **kwargs):
            if next(calls) == int(number):
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
        TrainStep.launch = at(die, TrainStep.launch)
    elif kind == "write":
        torch.save = at(write_half, torch.save)
    elif kind == "rename":
        os.replace = at(die, os.replace)
    elif kind == "terminate":
        TrainStep.launch = at(lambda *_: os.kill(os.getpid(), signal.SIGTERM), TrainStep.launch)
    elif kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))
