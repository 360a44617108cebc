"""Miniatures of the data set layouts, made of real files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniatures import COCO_SIZE, write_camvid, write_coco, write_image, write_mask, write_voc


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
            write_image(root / "images" / split / f"{split}{index}.png")
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


@pytest.fixture
def voc_home(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data" / "VOCdevkit" / "VOC2012")


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


@pytest.fixture
def panoptic_root(coco_root: Path) -> Path:
    """Each image has two persons, segments 1 and 70000, a rug, segment 300, and the rest is void."""
    for split in ("train", "val"):
        images = sorted((coco_root / f"{split}2017").iterdir())
        folder = coco_root / "annotations" / f"panoptic_{split}2017"
        folder.mkdir()
        numbers = np.resize([0, 1, 300, 70000], COCO_SIZE[::-1])
        colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1).astype(np.uint8)
        for image in images:
            Image.fromarray(colors).save(folder / f"{image.stem}.png")
        content = {
            "images": [{"id": int(image.stem), "file_name": image.name} for image in images],
            "annotations": [
                {
                    "image_id": int(image.stem),
                    "file_name": f"{image.stem}.png",
                    "segments_info": [
                        {"id": number, "category_id": category} for number, category in ((1, 1), (300, 200), (70000, 1))
                    ],
                }
                for image in images
            ],
        }
        (coco_root / "annotations" / f"panoptic_{split}2017.json").write_text(json.dumps(content))
    return coco_root
