"""The whole demo, with two steps instead of 120."""

import json

import numpy as np
import pytest
from PIL import Image

from rmiseg.cli import main
from rmiseg.experiment import demo
from support.launch import Forked

pytestmark = pytest.mark.slow


def forked(command: list[str]) -> Forked:
    """In place of `subprocess.run`, for a command of rmiseg."""
    process = Forked(command[command.index("rmiseg") + 1 :])
    process.wait()
    return process


def test_demo_compares_two_runs_and_draws_them(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(demo.subprocess, "run", forked)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "2"]) == 0
    printed = capfd.readouterr().out
    for loss in ("ce", "rmi"):
        result = json.loads((out / loss / "result.json").read_text())
        assert result["steps"] == 2
        assert f"{100 * result['last']['mean_iou']:.2f}" in printed
        assert f"--loss.name {loss}" in printed  # the commands are shown, to be repeated
        assert result["peak_memory"] > 3e8  # torch alone takes more
    assert "points of mIoU" in printed
    with Image.open(out / "demo.png") as picture:
        pixels = np.array(picture)
    assert pixels.shape[1] > 4 * 160  # four columns
    assert pixels.shape[0] > 4 * 192  # four slices
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
