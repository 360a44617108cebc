"""The sums of the programs' sums, and the loss that they make: small, but a launch each instead of several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rmiseg.kernels.regions import joined_sums
from rmiseg.kernels.terms import Shares
from rmiseg.kernels.triton.launching import launch
from rmiseg.kernels.triton.regions import FUSED
from rmiseg.kernels.triton.total_kernels import join_kernel, loss_kernel, row_sums_kernel

LANES = 128
"""Values of samples or classes that a program adds up at a time."""

ROW_LANES = 1024
"""Sums of programs, of which there are up to some thousands a sample."""


def row_sums(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums (N,) of contiguous rows (N, columns) float64."""
    out = rows.new_empty(len(rows), dtype=dtype)
    launch(row_sums_kernel, len(rows), rows, out, rows.shape[1], LANES=ROW_LANES, **FUSED, num_warps=4)
    return out


def join(pixel: Tensor, rmi: Tensor, perfect: Tensor, map_weights: Tensor, floor: float | None) -> Tensor:
    """`rmiseg.kernels.regions.joined_sums`, in one launch; of float64, in ordinary operations."""
    if pixel.dtype != torch.float32:  # numbers that are arguments of a kernel are float32
        return joined_sums(pixel, rmi, perfect, map_weights, floor)
    out = pixel.new_empty((len(pixel), 2))
    less = (perfect, 0.0) if floor is None else (None, float(floor))
    sources = pixel, rmi, less[0], map_weights, out, less[1], rmi.shape[1], *map_weights.stride()
    launch(join_kernel, len(pixel), *sources, LANES=LANES, **FUSED, num_warps=1)
    return out


def loss_and_gradient(sums: Tensor, counts: Tensor, unknown: Tensor | None, shares: Shares) -> tuple[Tensor, Tensor]:
    """See `rmiseg.kernels.means.mean_loss`; beside the loss its gradient in the sums, (K, N)."""
    samples, kinds = sums.shape
    loss, gradient = sums.new_empty(()), sums.new_empty((kinds, samples))
    strides: tuple[int, ...] = (*sums.stride(), *counts.stride(), 0 if unknown is None else unknown.stride(0))
    settings: dict[str, Any] = {"LANES": LANES, **FUSED, "num_warps": 1}
    maps = 0 if unknown is None else len(unknown)
    with torch.cuda.device_of(sums):  # type: ignore[no-untyped-call]  # torch does not annotate it
        tensors = sums, counts, unknown, loss, gradient
        launch(loss_kernel, 1, *tensors, strides, samples, maps, *shares, **settings)
    return loss, gradient
