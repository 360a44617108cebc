"""clDice, by which thin structures are judged: do the center lines of truth and prediction lie in each other?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.registry import register
from rmiseg.evaluation.metrics import nan_mean

AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The eight neighbors of a pixel, from the one above it clockwise: P2 to P9 of Guo and Hall."""


def _removable() -> NDArray[np.bool_]:
    """Tell by the eight neighbors, a bit each, if a pixel may go: (2, 256), for the two halves of an iteration."""
    p2, p3, p4, p5, p6, p7, p8, p9 = ((np.arange(256) >> np.arange(8)[:, None]) & 1).astype(bool)
    components = np.stack([~p2 & (p3 | p4), ~p4 & (p5 | p6), ~p6 & (p7 | p8), ~p8 & (p9 | p2)]).sum(0)
    pairs = np.stack([p9 | p2, p3 | p4, p5 | p6, p7 | p8]).sum(0), np.stack([p2 | p3, p4 | p5, p6 | p7, p8 | p9]).sum(0)
    size = np.minimum(*pairs)
    either = (components == 1) & (size >= 2) & (size <= 3)
    return np.stack([either & ~((p2 | p3 | ~p5) & p4), either & ~((p6 | p7 | ~p9) & p8)])


REMOVABLE = _removable()


def skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask to lines of a pixel that are connected as it is.

    Guo and Hall, Communications of the ACM 1989, algorithm A1. That of Zhang and Suen (1984), which is better known,
    lets squares and some diagonals two pixels wide vanish, and cracks are no wider.

    Args:
        mask: (H, W) bool. Outside of it there is nothing.

    Returns:
        (H, W) bool.
    """
    room = np.pad(mask, 1)
    flat, width = room.ravel(), room.shape[1]
    steps = np.array([dy * width + dx for dy, dx in AROUND])
    inside, changed = np.flatnonzero(flat), True
    while changed:
        changed = False
        for removable in REMOVABLE:
            code = sum((flat[inside + step].astype(np.uint8) << bit for bit, step in enumerate(steps)), np.uint8(0))
            gone = removable[code]
            if gone.any():
                flat[inside[gone]] = False
                inside, changed = inside[~gone], True
    return room[1:-1, 1:-1]


@register("metric", "cldice")
class CenterlineDice:
    """clDice (Shit et al., CVPR 2021, arXiv:2003.07311) of every class but class 0, the background.

    Topology precision is the share of the predicted center line that lies in the truth, topology sensitivity the share
    of the true center line that lies in the prediction; clDice is their harmonic mean. Lengths are added up over
    images.
    """

    def count(self, prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
        """Pixels (4, C - 1) int64: predicted lines in the truth, predicted, true lines in the prediction, true.

        Ignored pixels count in no line; the prediction is thinned with them.
        """
        counts = np.zeros((4, max(num_classes - 1, 0)), np.int64)
        valid = target < num_classes
        for index in range(1, num_classes):
            true, predicted = target == index, prediction == index
            line, found = skeleton(true), skeleton(predicted) & valid
            counts[:, index - 1] = [(found & true).sum(), found.sum(), (line & predicted).sum(), line.sum()]
        return counts

    def scores(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Means over the classes of clDice, and of the precision and the sensitivity that it is made of."""
        hit, predicted, covered, true = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
        with np.errstate(invalid="ignore"):
            precision, sensitivity = hit / predicted, covered / true
            both = precision + sensitivity
            dice = np.where(both > 0, 2 * precision * sensitivity / both, 0.0)  # none found, or none right
        dice = np.where((predicted == 0) & (true == 0), np.nan, dice)
        return {
            "cldice": nan_mean(dice),
            "topology_precision": nan_mean(precision),
            "topology_sensitivity": nan_mean(sensitivity),
        }
