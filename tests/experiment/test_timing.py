"""Times of the methods of an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from rmiseg.config import DataConfig, ModelConfig, TrainConfig
from rmiseg.data import load_split
from rmiseg.experiment import timing


def test_images_held_out_are_the_ones_timed(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_split("folder", str(shapes), "train").names[0]
    data = DataConfig(root=str(shapes), val_split="none such", held_out=[first], crop_size=(32, 32), batch_size=2)
    monkeypatch.setattr(timing, "WARM_UP", 0)
    monkeypatch.setattr(timing, "ROUNDS", 1)
    recipe = TrainConfig(data=data, model=ModelConfig(name="unet", weights="none"), device="cpu")
    seconds = timing.time_methods({"RMI": recipe}, Console(quiet=True))
    assert seconds["RMI"].step > 0
    assert seconds["RMI"].image > 0
