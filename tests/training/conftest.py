"""Data and a network for trainings of a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniatures import write_shapes
from rmiseg.training import assembly
from support.faults import small_model as build


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images, of which 13 are trained on."""
    return write_shapes(tmp_path_factory.mktemp("data"), count=16)


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are of `support.faults.SmallModel`."""
    monkeypatch.setattr(assembly, "build_model", build)
