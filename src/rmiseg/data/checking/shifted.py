"""Masks that do not fit their images: shifted by some places in the order of names, shuffled, turned, inverted.

Edges of a mask lie where its image changes. The blocks of a checkerboard halve them: the image that one half fits best,
of all of its size, is the right one if the other half fits it best, too, and both far better than the mask's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.bands import Bands
from rmiseg.data.checking.edges import Edges, edges_of
from rmiseg.data.checking.reversed import reversal_warnings
from rmiseg.data.classes import ClassTable
from rmiseg.data.image_files.opening import UNREADABLE, image_header
from rmiseg.data.image_files.volumes import is_slice
from rmiseg.data.images import Sample
from rmiseg.runtime.cores import made_by

FEW, MANY, BLOCK = 48, 512, 12
"""Images that are looked at; where their own masks fit them no better than others; and neighbors in a row."""
MOST_PIXELS = 800_000_000
"""Pixels of all images together beyond which no more are read."""
LEAST_EDGE, LEAST_PAIRS = 8, 12
"""Pixels of each half of a mask's edges, and comparable masks."""
FIT, GAIN, HALF = 5.0, 3.0, 2.0
"""Least fit of another image, least difference to that of the own, and least fit for each half, in standard deviations
of the fits of all images. Of 728 right pairs of five real data sets none has such an image; of the same shuffled, 95 to
100 %."""
LEAST_FOUND, SHARE, CHANCE = 4, 0.05, 2.0
"""Masks with such an image, and their least share, from which on it is told; median fit of own images below which more
images are looked at."""

Looked: TypeAlias = tuple[Sample, tuple[Path, int]]
"""A sample, its folder, and its place in it."""


def fit_warnings(
    samples: Sequence[Sample], classes: ClassTable, bands: Bands, *, most: int = FEW, workers: int = 0
) -> list[str]:
    """Warn, if the edges in masks fit other images than their own far better, or their own if they are turned.

    Args:
        samples: Pairs of all splits: those of one folder are in the order of their names, whatever their splits.
        classes: The classes.
        bands: See `read_image`.
        most: Images to look at, in rows of neighbors that are evenly spaced. `MANY` if masks do not fit these.
        workers: Processes that read images; 0 reads in this one.
    """
    samples = [each for each in {each.image: each for each in samples}.values() if not is_slice(each.image)]
    known: dict[Sample, Edges | None] = {}
    for number in dict.fromkeys((most, max(most, MANY))):
        chosen = _chosen([each for each in samples if each.mask is not None], number)
        looked = _readable([each for each in chosen if each[0] not in known], bands)
        look = partial(edges_of, classes=classes, bands=bands)
        known |= zip([sample for sample, _ in looked], made_by(look, looked, workers if looked else 0))
        read = [edges for edges in known.values() if edges is not None]
        if reversed_masks := reversal_warnings(read):
            return reversed_masks
        looked_at, own, found = _compared(read)
        if len(found) >= max(LEAST_FOUND, SHARE * looked_at):
            return [_warning(looked_at, found)]
        if looked_at < LEAST_PAIRS or own >= CHANCE:
            break
    return []


def _warning(looked_at: int, found: list[tuple[Edges, Edges]]) -> str:
    own, other = found[0]
    example = f"such as those of {own.sample.mask} the image {other.sample.image}, and not {own.sample.image}"
    beginning = f"of {looked_at} that were looked at, the edges of {len(found)} fit"
    steps = Counter(b.place[1] - a.place[1] for a, b in found if a.place[0] == b.place[0])
    step, count = steps.most_common(1)[0] if steps else (0, 0)
    if count < 0.7 * len(found):  # at the end of the names it is another number of places
        return (
            f"masks seem to lie beside the wrong images: {beginning} another image far better than their own, {example}"
            f". Were masks renamed in another order than images, such as 1, 10, 2 and 1, 2, 10? Give each mask the "
            f"name of its image"
        )
    where = f"{abs(step)} places " * (abs(step) > 1) + ("after" if step > 0 else "before")
    return (
        f"masks seem to lie beside the wrong image: {beginning} the image {where} their own better, {example}. Are "
        f"images numbered from 1, and masks from 0, or the other way round, or was one left out? Rename them"
    )


def _chosen(samples: Sequence[Sample], most: int) -> list[Looked]:
    """So many samples, in a few rows of neighbors, evenly spaced in each folder, with the place of each."""
    folders: dict[Path, list[Sample]] = {}
    for each in samples:
        folders.setdefault(each.image.parent, []).append(each)
    found: list[Looked] = []
    rows = most // BLOCK
    for name, folder in sorted(folders.items(), key=lambda item: -len(item[1]))[:rows]:
        folder.sort(key=lambda each: _natural(each.image.name))
        number = max(1, rows * len(folder) // len(samples))
        size = min(BLOCK, len(folder)) if number * BLOCK < len(folder) else -(-len(folder) // number)
        starts = np.linspace(0, len(folder) - size, number).astype(int).tolist()
        places = dict.fromkeys(place for start in starts for place in range(start, start + size))
        found += [(folder[place], (name, place)) for place in places]
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which 9 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def _readable(chosen: list[Looked], bands: Bands) -> list[Looked]:
    """Those whose image has a header that can be read, as long as all together are not too large."""
    found, pixels = [], 0
    for sample, place in chosen:
        try:
            height, width = image_header(sample.image, bands.pages).size
        except UNREADABLE:
            continue
        pixels += height * width
        if pixels > MOST_PIXELS:
            break
        found.append((sample, place))
    return found


def _compared(read: Sequence[Edges]) -> tuple[int, float, list[tuple[Edges, Edges]]]:
    """Number of masks that could be compared, the median fit of their own images, and those with others that fit."""
    sizes: dict[tuple[int, ...], list[Edges]] = {}
    for each in read:
        sizes.setdefault(each.strength.shape, []).append(each)
    owns: list[float] = []
    found: list[tuple[Edges, Edges]] = []
    for group in sizes.values():
        masks = [index for index, each in enumerate(group) if min(map(len, each.halves)) >= LEAST_EDGE]
        if len(masks) < LEAST_PAIRS:
            continue
        strengths = np.stack([each.strength.ravel() for each in group])
        fits = np.stack([_fits(strengths, [group[index].halves[half] for index in masks]) for half in (0, 1)])
        fit = (fits[0] + fits[1]) / 2**0.5
        rows = np.arange(len(masks))
        own = fit[rows, masks]
        owns += own.tolist()
        fits[:, rows, masks] = -np.inf
        first, second = fits.argmax(axis=2)
        gain = fit[rows, first] - own
        sure = (first == second) & (fits.max(axis=2).min(axis=0) > HALF) & (fit[rows, first] > FIT) & (gain > GAIN)
        found += [(group[masks[index]], group[first[index]]) for index in np.flatnonzero(sure)]
    return len(owns), float(np.median(owns)) if owns else np.inf, found


def _fits(strengths: NDArray[np.uint8], edges: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Fits (masks, images) of all images to the edges of each mask, in standard deviations about their median.

    Strong edges where all masks have theirs say nothing: of each image, its median fit is taken off before.
    """
    means = np.empty((len(edges), len(strengths)), np.float32)
    pixels = np.ascontiguousarray(strengths.T)
    for row, each in enumerate(edges):
        means[row] = pixels[each].sum(axis=0, dtype=np.uint32) / len(each)
    means -= np.median(means, axis=0)
    means -= np.median(means, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(means), axis=1, keepdims=True)
    return np.asarray(means / np.maximum(spread, 1e-9), np.float64)
