"""Classes that are seams between two others, as masks have them that were resized with interpolation.

Between 0 and 2 it makes 1, which is a class of its own. Then pixels of lower and of higher values than 1 hardly ever
touch, and many pixels of 1 lie between both. Where classes are drawn as they are, 0 and 2 touch wherever they meet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.classes import IGNORE_INDEX, ClassTable

MOST = 1024
"""Rows and columns of a mask that are looked at."""
REACH = 2
"""Pixels to either side in which others are looked for: a seam is as wide as the mask was enlarged."""
SHARE, TOUCH = 0.15, 5.0
"""Least share of the pixels of a class that lie in seams, and most places where others touch for each of these. Drawn
masks have 11 and more such places, and street scenes 25; those that were interpolated 4 at most."""


def seams(ids: NDArray[np.uint8], classes: ClassTable) -> NDArray[np.int64]:
    """Count what tells seams, in the middle of a mask.

    Args:
        ids: Class ids (H, W), with `IGNORE_INDEX` where ignored.
        classes: The classes, each of one value.

    Returns:
        For each class, (3, C): its pixels; those that have lower values as well as higher ones nearby; and pairs of
        neighbors of which one is lower and the other higher.
    """
    top, left = (max(0, size - MOST) // 2 for size in ids.shape)
    ids = ids[top : top + MOST, left : left + MOST]
    count = len(classes)
    order = np.argsort(np.argsort([value for value in classes.values if isinstance(value, int)]))
    ranks = np.full(256, IGNORE_INDEX, np.uint8)
    ranks[:count] = order
    values = ids if (order == np.arange(count)).all() else ranks[ids]
    touching, edges = np.zeros(count + 1, np.int64), np.zeros(values.shape, bool)
    for one, other, at in (
        (values[1:], values[:-1], (slice(1, None), slice(None))),
        (values[:, 1:], values[:, :-1], (slice(None), slice(1, None))),
    ):
        differ = np.nonzero(one != other)
        pair = np.stack([one[differ], other[differ]]).astype(np.int64)
        edges[at][differ] = True
        edges[: one.shape[0], : one.shape[1]][differ] = True
        low, high = pair.min(axis=0), pair.max(axis=0)
        far = (high != IGNORE_INDEX) & (high - low > 1)
        touching[: count + 1] += np.bincount(low[far] + 1, minlength=count + 1)[: count + 1]
        touching[: count + 1] -= np.bincount(high[far], minlength=count + 1)[: count + 1]
    rows, columns = np.nonzero(edges & (values > 0) & (values < count - 1))
    own = values[rows, columns]
    lower, higher = np.zeros(len(own), bool), np.zeros(len(own), bool)
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            near = values[(rows + down).clip(0, len(values) - 1), (columns + right).clip(0, values.shape[1] - 1)]
            lower |= near < own
            higher |= (near > own) & (near != IGNORE_INDEX)
    between = np.bincount(own[lower & higher], minlength=count)
    pixels = np.bincount(values.ravel(), minlength=256)[:count]
    return np.stack([pixels, between, np.cumsum(touching)[:count]])[:, order]


def is_seam(pixels: int, between: int, touching: int) -> bool:
    """Tell whether a class is a seam between others, by what `seams` counts of it."""
    return between > SHARE * pixels and touching < TOUCH * between
