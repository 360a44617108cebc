"""Reading targets: which pixels count, how many, and whether anything is neither of a class nor ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rmiseg.kernels import backends
from rmiseg.kernels.modes import is_plain_call, is_transformed


class Labels(NamedTuple):
    """A target, read.

    Attributes:
        values: Class ids (N, *size) int64, or soft targets (N, C, *size); see `rmiseg.functional`.
        valid: (N, *size) bool, what counts.
        counts: (N, 2) int64, the pixels that do, and 1 where there is one, else 0.
        unknown: (N,) bool, samples with something that is neither of a class nor ignored; or int64, how many pixels.
    """

    values: Tensor
    valid: Tensor
    counts: Tensor
    unknown: Tensor


def read_labels(target: Tensor, kind: str, num_classes: int, ignored: Sequence[int]) -> Labels | None:
    """Read a target in one pass; None where that cannot be.

    Args:
        target: (N, *size) whole numbers, or soft (N, C, *size).
        kind: "classes": class ids; "masks": 1 where the only class is, else 0, which become soft targets; "soft":
            probabilities.
        num_classes: The number of class ids.
        ignored: Labels that do not count.
    """
    if is_transformed() or not is_plain_call(target):
        return None
    backend = backends.fastest(target.device)
    if backend == "native":
        from rmiseg.kernels import native

        return Labels(*native.read_labels(target, kind, num_classes, ignored))
    if backend == "triton" and kind == "classes":
        from rmiseg.kernels.triton import labels

        values = target.long()
        return Labels(values, *labels.read_labels(values.contiguous(), num_classes, ignored))
    return None
