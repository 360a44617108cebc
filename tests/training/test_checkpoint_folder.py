"""The newest checkpoints are kept, and the best."""

from __future__ import annotations

import os

import pytest
import torch

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data.classes import class_ids
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint
from rmiseg.training.checkpoint_folder import CheckpointFolder


def make(step: int = 0, **scores: float) -> Checkpoint:
    return Checkpoint({"w": torch.ones(2)}, ModelConfig(), DataConfig(), class_ids(["a", "b"]), step, scores)


def test_folder_keeps_last_best_and_newest(tmp_path):
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints", keep=2)
    assert [folder.save(make(step=i, mean_iou=s)) for i, s in enumerate([0.3, 0.6, 0.4, 0.6], start=1)] == [
        True,
        True,
        False,
        False,
    ]
    assert sorted(os.listdir(folder.path)) == ["best.pt", "last.pt", "step-000003.pt", "step-000004.pt"]
    assert load_checkpoint(folder.path / "best.pt").step == 2
    assert load_checkpoint(folder.path / "last.pt").step == 4
    assert load_checkpoint(tmp_path / "run").step == 2


def test_newest_are_kept_beyond_six_digits(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    for step in (999_999, 1_000_001):
        folder.save(make(step=step))
    assert [path.name for path in tmp_path.glob("step-*.pt")] == ["step-1000001.pt"]


@pytest.mark.parametrize("damage", [lambda data: None, lambda data: data[:-99], lambda data: b"\0" + data[1:]])
def test_a_lost_best_checkpoint_is_told_and_another_takes_its_place(tmp_path, damage):
    """A run that goes on would end with a best checkpoint that nobody can read."""
    first = CheckpointFolder(tmp_path, keep=0)
    first.save(make(mean_iou=0.5))
    assert CheckpointFolder(tmp_path, 0, first.best).forget_lost() == ""
    data = damage((tmp_path / "best.pt").read_bytes())
    (tmp_path / "best.pt").unlink()
    if data is not None:
        (tmp_path / "best.pt").write_bytes(data)
    again = CheckpointFolder(tmp_path, 0, first.best)
    assert "It had a mIoU of 50.00%; the best one of what follows takes its place" in again.forget_lost()
    assert again.save(make(mean_iou=0.4))
    assert load_checkpoint(tmp_path / "best.pt").scores == {"mean_iou": 0.4}
