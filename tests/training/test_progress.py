"""The progress display of a training run."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from rmiseg.training import progress as module


def test_speed_and_remaining_time_outlive_a_long_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    console = Console(file=io.StringIO(), force_terminal=True, width=160, get_time=lambda: now)
    with module.training_progress(console, total_steps=10, done=0, images_per_step=8) as progress:
        for _ in progress.waiting(range(5)):
            now += 7.0
            progress.advance(epoch=0, loss=1.0, train_mean_iou=0.5)
        for _ in progress.validating(["batch"] * 60):
            now += 1.0
        progress.end_epoch(epoch=0, evaluation=None)
        console.file.truncate(0)
        progress.progress.refresh()
        shown = console.file.getvalue()
    assert "1.1 img/s" in shown
    assert "0:00:35" in shown  # five steps of seven seconds
