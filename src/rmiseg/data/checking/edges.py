"""Edges of an image and of its mask, at a low resolution, by which it is seen whether both belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.bands import Bands
from rmiseg.data.classes import IGNORE_INDEX, ClassTable
from rmiseg.data.image_files.masks import read_mask
from rmiseg.data.image_files.opening import UNREADABLE, image_header
from rmiseg.data.image_files.reading import read_image
from rmiseg.data.images import Sample

LONG_SIDE, SQUARE = 256, 8
"""Pixels of the longer side at which edges are compared, and of a side of the blocks that halve them."""


@dataclass(frozen=True)
class Edges:
    """Edges of an image and its mask.

    Attributes:
        sample: Both.
        place: Their folder, and their place in it.
        strength: Ranks (h, w) uint8 of how strong the image's edges are, from 0 to 255.
        halves: Indices of the pixels of the mask's edges, for each half.
        contrast: Of the second class: its share of the pixels, and of those at the border of the image, and by how
            many standard deviations it is brighter than the first; None if both classes are not there.
    """

    sample: Sample
    place: tuple[Path, int]
    strength: NDArray[np.uint8]
    halves: tuple[NDArray[np.intp], NDArray[np.intp]]
    contrast: tuple[float, float, float] | None


def edges_of(looked: tuple[Sample, tuple[Path, int]], classes: ClassTable, bands: Bands) -> Edges | None:
    """The edges of an image and its mask, and their place; None if they cannot be read, or differ in size."""
    sample, place = looked
    assert sample.mask is not None
    try:
        step = max(1, -(-max(image_header(sample.image, bands.pages).size) // LONG_SIDE))
        reduction = next(each for each in (8, 4, 2, 1) if each <= step)
        times = -(-step // reduction)
        gray = read_image(sample.image, reduction, bands).mean(axis=-1, dtype=np.float32)
        ids = read_mask(sample.mask, classes)
    except UNREADABLE:
        return None
    step = reduction * times
    if gray.shape != tuple(-(-size // reduction) for size in ids.shape) or min(ids.shape) < 2 * step:
        return None
    rows, columns = (size // step for size in ids.shape)
    gray = gray[: rows * times, : columns * times].reshape(rows, times, columns, times).mean(axis=(1, 3))
    ids = ids[step // 2 :: step, step // 2 :: step][:rows, :columns]
    down, right = np.abs(np.diff(gray, axis=0))[:, :-1], np.abs(np.diff(gray, axis=1))[:-1]
    strength = np.maximum(down, right)
    if not strength.any():
        return None
    levels = (16 * strength).astype(np.intp)
    counts = np.bincount(levels.ravel())
    ranks = (np.cumsum(counts) - counts / 2)[levels] / levels.size
    known = ids != IGNORE_INDEX
    edges = ((ids[1:] != ids[:-1]) & known[1:] & known[:-1])[:, :-1]
    edges |= ((ids[:, 1:] != ids[:, :-1]) & known[:, 1:] & known[:, :-1])[:-1]
    first = np.add.outer(np.arange(rows - 1) // SQUARE, np.arange(columns - 1) // SQUARE) % 2 == 0
    halves = np.flatnonzero(edges & first), np.flatnonzero(edges & ~first)
    return Edges(sample, place, (255 * ranks).astype(np.uint8), halves, _contrast(gray, ids))


def _contrast(gray: NDArray[np.float32], ids: NDArray[np.uint8]) -> tuple[float, float, float] | None:
    """See `Edges.contrast`."""
    first, second = ids == 0, ids == 1
    if not first.any() or not second.any():
        return None
    border = np.concatenate([second[0], second[-1], second[:, 0], second[:, -1]])
    brighter = (gray[second].mean() - gray[first].mean()) / max(float(gray.std()), 1e-9)
    return float(second.mean()), float(border.mean()), float(brighter)
