"""Checkpoints of small networks that nobody has trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data import ClassTable
from rmiseg.data.classes import class_ids
from rmiseg.inference.checkpoint import Checkpoint, save_checkpoint


def save_untrained(
    path: Path,
    classes: ClassTable | Sequence[str] = ("a", "b"),
    model: ModelConfig | None = None,
    data: DataConfig | None = None,
    seed: int = 0,
    **fields: Any,
) -> Path:
    """Write a checkpoint with random weights; by default of DeepLabv3+ over a small backbone.

    Args:
        path: The file; its folder is made.
        classes: The classes, or their names.
        model: The network.
        data: How its images were prepared.
        seed: Seed of the weights.
        fields: Others of `Checkpoint`.
    """
    torch.manual_seed(seed)
    model = model or ModelConfig(backbone="test_efficientnet", weights="none")
    table = classes if isinstance(classes, ClassTable) else class_ids(classes)
    made = Checkpoint({}, model, data or DataConfig(), table, **{"step": 1, "scores": {}, **fields})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, replace(made, weights=made.untrained_model().state_dict()))
    return path
