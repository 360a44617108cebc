"""Exports of labelling tools as the tests write them, and what an import makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rmiseg.config import DataImportConfig
from rmiseg.data.description import read_description
from rmiseg.data.labels import ImportReport, import_labels
from rmiseg.data.sets.finding import scan_splits

SIZE = (24, 32)
"""Height and width of the images."""


def write_photo(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(path.name.encode())).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def imported(source: Path, **options: Any) -> tuple[ImportReport, dict[str, np.ndarray], list[str]]:
    """Import into a folder beside the source: the report, masks as class ids by name, and the classes."""
    out = source.parent / "imported"
    report = import_labels(DataImportConfig(source=str(source), out=str(out), overwrite=True, **options))
    return report, masks_of(out), list(read_description(out).classes.names)


def masks_of(root: Path) -> dict[str, np.ndarray]:
    """The masks of a data set, as training reads them, by split and name."""
    found = {}
    for split in scan_splits("folder", root):
        assert not split.problems
        assert not split.images_without_mask
        for index, sample in enumerate(split.samples):
            assert split.read_image(index).shape[:2] == split.read_mask(index).shape
            found[f"{sample.image.parent.name}/{Path(sample.name).name}"] = split.read_mask(index)
    return found


def random_polygon(rng: np.random.Generator, corners: int = 7, size: tuple[int, int] = SIZE) -> list[list[float]]:
    """Any corners, some of them outside of the image, some on whole numbers."""
    found = rng.uniform(-3, 3 + np.array(size[::-1]), (corners, 2))
    return np.where(rng.random((corners, 1)) < 0.3, found.round(), found.round(2)).tolist()
