"""Miniatures of the data set layouts, made of real files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from miniatures import write_camvid, write_image, write_mask


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    """Ten pairs without splits, three classes."""
    root = tmp_path / "mine"
    for index in range(10):
        write_image(root / "images" / f"photo_{index}.jpg", seed=index)
        write_mask(root / "masks" / f"photo_{index}.png", value=1 + index % 2)
    (root / "dataset.yaml").write_text("classes: [ground, tree, house]\n")
    return root


@pytest.fixture
def split_root(tmp_path: Path) -> Path:
    """Subfolders train (5 pairs) and val (2 pairs), three classes."""
    root = tmp_path / "divided"
    for split, count in (("train", 5), ("val", 2)):
        for index in range(count):
            write_image(root / "images" / split / f"{split}{index}.png", seed=index)
            write_mask(root / "masks" / split / f"{split}{index}.png", value=1 + index % 2)
    (root / "dataset.yaml").write_text("classes: [ground, tree, house]\n")
    return root


@pytest.fixture
def camvid_root(tmp_path: Path) -> Callable[..., Path]:
    """Writes the miniature of CamVid, with lists or without."""
    return functools.partial(write_camvid, tmp_path / "CamVid")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("RMISEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
