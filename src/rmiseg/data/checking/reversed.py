"""Masks that fit their images better if they are turned, or with their two classes exchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.checking.edges import Edges

LEAST_PAIRS = 12
"""Masks from which on something is said."""
SURE, GAIN = 6.0, 8.0
"""Least mean gain of turned masks over the masks as they are, in standard errors, and in 255 ranks of edges."""
LEAST_LIKE, WIDER, MARGINS = 6, 0.5, (0.1, 0.1, 0.5)
"""Masks of the larger group, at least, and by which part of its ranges, and how much, others may lie beyond."""

Turn = Callable[[NDArray[np.bool_]], NDArray[np.bool_]]
TURNS: dict[str, Turn] = {
    "mirrored from left to right": lambda mask: mask[:, ::-1],
    "upside down": lambda mask: mask[::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
}
SQUARE_TURNS: dict[str, Turn] = {
    "with rows and columns exchanged": lambda mask: mask.T,
    "turned by 90 degrees": np.rot90,
    "turned by -90 degrees": lambda mask: np.rot90(mask, -1),
    "with rows and columns exchanged, and turned by 180 degrees": lambda mask: mask[::-1, ::-1].T,
}


def reversal_warnings(read: Sequence[Edges]) -> list[str]:
    """Warn, if masks fit their images better when they are turned, or when their two classes are exchanged.

    Args:
        read: Edges of images and their masks.
    """
    return _turned(read) or _inverted(read)


def _turned(read: Sequence[Edges]) -> list[str]:
    gains: dict[str, list[float]] = {}
    for each in read:
        edges = np.zeros(each.strength.shape, bool)
        np.put(edges, np.concatenate(each.halves), True)
        if not edges.any():
            continue
        own = float(each.strength[edges].mean())
        height, width = each.strength.shape
        for name, turn in {**TURNS, **(SQUARE_TURNS if height == width else {})}.items():
            gains.setdefault(name, []).append(float(each.strength[turn(edges)].mean()) - own)
    found = []
    for name, values in gains.items():
        error = float(np.std(values)) / len(values) ** 0.5
        if len(values) >= LEAST_PAIRS and np.mean(values) > max(GAIN, SURE * error):
            found.append((float(np.mean(values)), name, len(values)))
    if not found:
        return []
    _, name, count = max(found)
    return [
        f"masks seem to be turned: of {count} that were looked at, the edges fit their images far better {name}, such "
        f"as those of {read[0].sample.mask}. Save the masks as the images are"
    ]


def _inverted(read: Sequence[Edges]) -> list[str]:
    """Look for masks of two classes that are unlike most others, and like them with the classes exchanged."""
    known = [each for each in read if each.contrast]
    facts = np.array([each.contrast for each in known])
    if len(known) < LEAST_PAIRS:
        return []
    large = facts[:, 0] > 0.5
    most = large if 2 * large.sum() > len(large) else ~large
    if most.sum() < LEAST_LIKE:
        return []
    low, high = facts[most].min(axis=0), facts[most].max(axis=0)
    margin = np.maximum(WIDER * (high - low), MARGINS)
    low, high = low - margin, high + margin

    def like(values: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray((low <= values) & (values <= high), bool)

    exchanged = np.stack([1 - facts[:, 0], 1 - facts[:, 1], -facts[:, 2]], axis=1)
    inverted = np.flatnonzero(~most & like(exchanged).all(axis=1) & ~like(facts).any(axis=1))
    if not len(inverted):
        return []
    return [
        f"the two classes seem to be exchanged in some masks: of {len(known)} that were looked at, {len(inverted)} are "
        f"like the others in their shares, at the border of the image and in their brightness if they are inverted, "
        f"and not as they are, such as {known[inverted[0]].sample.mask}. Look at them"
    ]
