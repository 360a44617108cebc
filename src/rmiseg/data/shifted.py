"""Masks that lie beside the wrong image, such as those numbered from 0 where the images are numbered from 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.bands import Bands
from rmiseg.data.classes import IGNORE_INDEX, ClassTable
from rmiseg.data.images import Sample
from rmiseg.data.opening import image_header
from rmiseg.data.reading import read_image, read_mask
from rmiseg.data.volumes import is_slice

BLOCKS, BLOCK = 4, 12
"""Blocks of neighbors that are looked at, and images of each."""
LONG_SIDE, MOST_PIXELS = 256, 1 << 24
"""Pixels of the longer side at which edges are compared, and of images beyond which reading them takes too long."""
LEAST_EDGE, LEAST_PAIRS = 8, 12
"""Pixels of a mask's edges, and comparable masks, without which nothing is told."""
SHARE, RATIO = 0.9, 1.15
"""Least share of the masks whose edges fit the neighbor better, and least factor by which they do. On right pairs of
four real data sets the share is below 0.02, and above 0.98, at a factor above 1.5, on the same shifted by one."""


def shift_warnings(samples: Sequence[Sample], classes: ClassTable, bands: Bands) -> list[str]:
    """Warn, if the edges in masks fit the image before or after their own far better.

    Args:
        samples: Pairs of all splits: those of one folder are neighbors by their names, whatever their splits.
        classes: The classes.
        bands: See `read_image`.
    """
    blocks = _blocks([each for each in samples if each.mask is not None and not is_slice(each.image)])
    read = [[pair for each in block if (pair := _edges(each, classes, bands)) is not None] for block in blocks]
    for step, where in ((1, "after"), (-1, "before")):
        fits = np.array([fit for block in read for fit in _fits(block, step)]).reshape(-1, 2)
        if len(fits) < LEAST_PAIRS:
            continue
        better = int((fits[:, 1] > fits[:, 0]).sum())
        if better >= SHARE * len(fits) and fits[:, 1].mean() >= RATIO * fits[:, 0].mean():
            block = next(block for block in read if len(block) > 1)
            own, other = (block[0], block[1]) if step == 1 else (block[1], block[0])
            return [
                f"masks seem to lie beside the wrong image: of {len(fits)} that were looked at, the edges of {better} "
                f"fit the image {where} their own better, such as those of {own[0].mask} the image {other[0].image}, "
                f"and not {own[0].image}. Are images numbered from 1, and masks from 0, or the other way round? Rename "
                f"them"
            ]
    return []


def _blocks(samples: Sequence[Sample]) -> list[list[Sample]]:
    """A few runs of neighbors, evenly spaced in each folder."""
    folders: dict[Path, list[Sample]] = {}
    for each in {each.image: each for each in samples}.values():
        folders.setdefault(each.image.parent, []).append(each)
    found: list[list[Sample]] = []
    for folder in sorted(folders.values(), key=len, reverse=True)[:BLOCKS]:
        folder.sort(key=lambda each: _natural(each.image.name))
        number = max(1, BLOCKS // len(folders))
        size = min(BLOCK, -(-len(folder) // number))
        starts = np.linspace(0, len(folder) - size, number).astype(int)
        found += [folder[start : start + size] for start in dict.fromkeys(starts.tolist())]
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which 9 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def _edges(
    sample: Sample, classes: ClassTable, bands: Bands
) -> tuple[Sample, NDArray[np.float64], NDArray[np.bool_]] | None:
    """Strength of the edges in an image, of mean 1, and where edges are in its mask; None of what cannot be read."""
    assert sample.mask is not None
    try:
        height, width = image_header(sample.image).size
        if height * width > MOST_PIXELS:
            return None
        step = max(1, -(-max(height, width) // LONG_SIDE))
        gray = read_image(sample.image, bands=bands).mean(axis=-1)
        ids = read_mask(sample.mask, classes)
    except (ValueError, OSError, ModuleNotFoundError):
        return None
    if gray.shape != ids.shape or min(gray.shape) < 2 * step:
        return None
    rows, columns = (size // step for size in gray.shape)
    gray = gray[: rows * step, : columns * step].reshape(rows, step, columns, step).mean(axis=(1, 3))
    ids = ids[step // 2 :: step, step // 2 :: step][:rows, :columns]
    down, right = np.abs(np.diff(gray, axis=0))[:, :-1], np.abs(np.diff(gray, axis=1))[:-1]
    strength = np.maximum(down, right)
    if not strength.any():
        return None
    known = ids != IGNORE_INDEX
    edges = ((ids[1:] != ids[:-1]) & known[1:] & known[:-1])[:, :-1]
    edges |= ((ids[:, 1:] != ids[:, :-1]) & known[:, 1:] & known[:, :-1])[:-1]
    return sample, strength / strength.mean(), edges


def _fits(
    block: Sequence[tuple[Sample, NDArray[np.float64], NDArray[np.bool_]]], step: int
) -> list[tuple[float, float]]:
    """Strength of the own image at the edges of each mask, and of the neighbor's, where all have one size."""
    fits = []
    for index, (_, own, edges) in enumerate(block):
        if not 0 <= index + step < len(block):
            continue
        other = block[index + step][1]
        if own.shape == other.shape == edges.shape and edges.sum() >= LEAST_EDGE:
            fits.append((float(own[edges].mean()), float(other[edges].mean())))
    return fits
