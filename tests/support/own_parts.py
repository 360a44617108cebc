"""A training of somebody's own data set, network, loss, augmentation and callback, in a process of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from rmiseg import Callback, Trainer
from rmiseg.training.run_folder import RunResult
from support.launch import run

CLASSES = ["ground", "square"]


class Squares(Dataset[Any]):
    """Bright squares on noise, made from nothing; images (H, W, 3), masks (H, W)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        mask = np.zeros((40, 56), np.int64)
        top, left, side = rng.integers(0, 20), rng.integers(0, 36), rng.integers(8, 20)
        mask[top : top + side, left : left + side] = 1
        image = rng.integers(0, 90, (40, 56, 3)) + 120 * mask[..., None]
        mask[:, 0] = 255
        return image.astype(np.uint8), mask


class Net(nn.Module):
    """Logits at stride 2, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.last(self.first(images))}


def soft_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss that is no `SegmentationLoss`."""
    assert logits.shape[2:] == target.shape[1:]
    valid = target != 255
    p, y = logits.softmax(1)[:, 1][valid], (target == 1)[valid].float()
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


class Watch(Callback):
    """Remembers what it hears, and kills its process before a step if told to."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.heard: list[str] = []
        self.kill_at = kill_at

    def on_fit_start(self, run: Any) -> None:
        self.heard.append("fit")

    def on_step_end(self, run: Any, outcome: Any) -> None:
        self.heard.append(f"step {run.state.step} {outcome.parts['loss']:.9g}")
        if run.state.step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation_end(self, run: Any, evaluation: Any) -> None:
        self.heard.append(f"validation {evaluation.summary()['mean_iou']:.9g}")

    def on_fit_end(self, run: Any, result: RunResult) -> None:
        (result.out / "heard.txt").write_text("\n".join(self.heard))

    def state_dict(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heard = state["heard"]


def trainer(out: Path, *, kill_at: int | None = None, workers: int = 0, **parts: Any) -> Trainer:
    """The training: four epochs of three steps."""
    torch.manual_seed(3)  # of the network's weights, which are the caller's business
    config = {
        "out": str(out),
        "resume": "auto",
        "device": "cpu",
        "data": {"batch_size": 4, "workers": workers},
        "optim": {"lr": 0.05},
        "train": {"epochs": 4, "log_every": 1, "checkpoint_every": 1, "norm_momentum": 0.3, "panels": 1},
    }
    own = {
        "model": Net(),
        "train": Squares(12, seed=0),
        "val": Squares(4, seed=1),
        "classes": CLASSES,
        "loss": soft_dice,
        "transform": v2.Compose([v2.RandomCrop(32), v2.RandomHorizontalFlip(0.5)]),
        "callbacks": [Watch(kill_at)],
        "console": Console(quiet=True),
    }
    return Trainer(config, **(own | parts))


def fit(out: Path, kill_at: int | None = None, workers: int = 0, processes: int = 1) -> list[int | None]:
    """Train in processes of their own; their exit statuses."""
    return run(_fit, out, kill_at, workers, processes=processes)


def _fit(out: Path, kill_at: int | None, workers: int) -> None:
    trainer(out, kill_at=kill_at, workers=workers).fit()
