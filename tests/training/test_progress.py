"""The progress display of a training run."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from rmiseg.runtime.terminal import Console
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


@pytest.mark.parametrize("columns", [80, 119, 120, None])
def test_nothing_is_cut_off(columns: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of so many columns, or in a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal: dict[str, Any] = {} if columns is None else {"force_terminal": True, "width": columns}
    console = Console(file=io.StringIO(), **terminal)
    with module.training_progress(console, total_steps=20_000, done=12_345, images_per_step=16) as progress:
        for _ in progress.waiting(range(3)):
            progress.advance(epoch=122, loss=1.0, train_mean_iou=0.5, scope=" over 17 of 19 classes")
    shown = console.file.getvalue()
    assert "…" not in shown
    assert "12348/20000" in shown
    assert "data wait " in shown
    assert ("over 17 of 19 classes" in shown) is ("val -" in shown) is (columns in (120, None))
