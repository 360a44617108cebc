"""Commands as the tests call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rmiseg.cli import main

RECIPE: dict[str, dict[str, Any]] = {
    "data": {"crop_size": [48, 48], "scale_range": [0.75, 1.25], "batch_size": 4, "workers": 0},
    "model": {"backbone": "test_efficientnet", "weights": "none"},
    "optim": {"lr": 0.02},
    "train": {"epochs": 3, "norm_momentum": 0.3},
}


def small_recipe(folder: Path, root: Path, **sections: dict[str, Any]) -> str:
    """Write a recipe that trains in seconds, with further options in some sections."""
    content = {name: dict(options) for name, options in RECIPE.items()}
    content["data"]["root"] = str(root)
    for name, options in sections.items():
        content.setdefault(name, {}).update(options)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that fails, and return what it says."""
    assert main(arguments) == 1
    return capsys.readouterr().err
