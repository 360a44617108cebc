"""Class ids, read in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmiseg.kernels.triton.launching import launch
from rmiseg.kernels.triton.reading import labels_kernel

LANES = 4096
"""Pixels of a program."""


def tally_labels(target: Tensor, num_classes: int, ignored: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Read contiguous class ids (N, *size) int64 on the current device.

    Returns:
        What counts, (N, *size) uint8; and by blocks of pixels, (N, blocks, 2) int32, how many count, and how many are
        neither of a class nor ignored.
    """
    samples = len(target)
    pixels = target[0].numel() if samples else 0
    blocks = -(-pixels // LANES)
    valid = torch.empty(target.shape, dtype=torch.uint8, device=target.device)
    tallies = torch.empty((samples, blocks, 2), dtype=torch.int32, device=target.device)
    settings: dict[str, Any] = {"IGNORED": tuple(ignored), "COUNT": len(ignored), "LANES": LANES, "num_warps": 8}
    launch(labels_kernel, samples * blocks, target, valid, tallies, pixels, blocks, num_classes, **settings)
    return valid, tallies


def read_labels(target: Tensor, num_classes: int, ignored: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Read contiguous class ids (N, *size) int64; returns what `rmiseg.kernels.labels.Labels` holds."""
    with torch.cuda.device_of(target):  # type: ignore[no-untyped-call]  # torch does not annotate it
        valid, tallies = tally_labels(target, num_classes, ignored)
    counts, unknown = tallies.sum(dim=1).unbind(-1)
    return valid.view(torch.bool), torch.stack([counts, counts.clamp(max=1)], dim=1), unknown
