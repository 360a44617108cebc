"""Class ids of an image from its labels, and which of those that overlap won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.data.labels.annotations import Region
from rmiseg.data.labels.values import Size

OverlapPair = tuple[int, int]
"""Class ids of the label that won and of the one that lost, in pixels that have both."""


class _Patch(NamedTuple):
    """The pixels of a label within their bounding box."""

    rows: slice
    columns: slice
    pixels: NDArray[np.bool_]
    class_id: int
    crowd: bool


@dataclass
class DrawnLabels:
    """An image's labels as pixels.

    Attributes:
        ids: Class ids (H, W) uint8, with `IGNORE_INDEX` where ignored.
        overlaps: Pixels that two classes claimed.
        empty: Names of the labels that cover no pixel.
        used: Number of the other labels.
    """

    ids: NDArray[np.uint8]
    overlaps: dict[OverlapPair, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    used: int = 0


def draw_labels(
    regions: Sequence[Region], class_ids: Mapping[str, int], size: Size, *, unlabeled: int, smaller_in_front: bool
) -> DrawnLabels:
    """Draw the labels of an image: crowds behind all others, later labels in front of earlier ones, or smaller ones.

    Args:
        regions: The labels.
        class_ids: Class id of every name among them.
        size: Height and width of the image.
        unlabeled: Class id of pixels without a label.
        smaller_in_front: True if smaller labels lie in front.

    Raises:
        ValueError: A label is not finite, or does not fit into the image; the message names it.
    """
    drawn = DrawnLabels(np.full(size, unlabeled, np.uint8))
    patches = []
    for number, region in enumerate(regions):
        try:
            pixels = region.draw(size)
        except ValueError as error:
            raise ValueError(f"label {number + 1}, {region.label!r}: {error}") from error
        rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            drawn.empty.append(region.label)
            continue
        place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        patches.append(_Patch(*place, pixels[place].copy(), class_ids[region.label], region.crowd))
    if smaller_in_front:
        patches.sort(key=lambda patch: -np.count_nonzero(patch.pixels))
    patches.sort(key=lambda patch: not patch.crowd)
    labeled = np.zeros(size, bool)
    for patch in patches:
        ids = drawn.ids[patch.rows, patch.columns]
        covered = labeled[patch.rows, patch.columns] & patch.pixels & (ids != patch.class_id)
        for loser, count in enumerate(np.bincount(ids[covered], minlength=IGNORE_INDEX + 1).tolist()):
            if count:
                pair = (patch.class_id, loser)
                drawn.overlaps[pair] = drawn.overlaps.get(pair, 0) + count
        ids[patch.pixels] = patch.class_id
        labeled[patch.rows, patch.columns] |= patch.pixels
    drawn.used = len(patches)
    return drawn
