"""A finished training run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmiseg.cli import main
from support.commands import small_recipe


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", small_recipe(folder, shapes), "--optim.lr", "0.03", "--out", str(folder / "run")]) == 0
    return folder / "run"
