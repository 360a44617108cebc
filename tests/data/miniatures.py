"""Small images and masks, written to real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, value: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Left half 0, right half ``value``, and the first row 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[:, size[0] // 2 :] = value
    values[0] = 255
    Image.fromarray(values).save(path)
    return path
