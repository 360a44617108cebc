"""Reading class ids: which pixels count, how many, and whether any label is neither a class nor ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rmiseg.kernels import backends
from rmiseg.kernels.modes import is_plain_call, is_transformed


class Labels(NamedTuple):
    """Class ids (N, *size), read.

    Attributes:
        valid: (N, *size) bool, what counts.
        counts: (N,) int64, the pixels that do.
        unknown: (N,) bool, samples with labels that are neither a class nor ignored.
    """

    valid: Tensor
    counts: Tensor
    unknown: Tensor


def read_labels(target: Tensor, num_classes: int, ignored: Sequence[int]) -> Labels | None:
    """Read class ids (N, *size) int64, of which `ignored` do not count, in one pass; None where that cannot be."""
    if is_transformed() or not is_plain_call(target):
        return None
    backend = backends.fastest(target.device)
    if backend == "native":
        from rmiseg.kernels.native import read_labels as read
    elif backend == "triton":
        from rmiseg.kernels.triton.labels import read_labels as read
    else:
        return None
    return Labels(*read(target.contiguous(), num_classes, ignored))
