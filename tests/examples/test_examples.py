"""The examples, each with the real library, on a few steps."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

DRAWING = Path(__file__).parents[2] / "examples" / "draw_shapes.py"
"""Which trains nothing; the quickstart's test runs it."""

EXAMPLES = sorted({*(Path(__file__).parents[2] / "examples").glob("*.py")} - {DRAWING})


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(path, monkeypatch, tmp_path):
    assert len(path.read_text().splitlines()) < 60
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    history = torch.tensor(example.main(steps=12))
    assert len(history) == 12
    assert history.isfinite().all()
    assert history[-3:].mean() < history[:3].mean()  # it learns
