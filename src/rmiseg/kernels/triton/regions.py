"""Region covariance, RMI and their gradient as Triton kernels: as `rmiseg.kernels.regions`, in few launches.

Let M_0, M_1 be the pooled probabilities and labels of one map, h x w, in float64, and let u = (k, i, j) name the values
of M_k at offset (i, j) of all R x R windows. The uncentered covariance of u and v = (k', i', j') is the sum of
M_k[r - a, s] * M_k'[r, s + b] over r in [i', i' + h - R] and s in [j, j + w - R], with the lags a = i' - i, b = j' - j.
Pairs with equal kinds and lags differ only in how far the sum reaches into the outermost R - 1 rows and columns. So
the products are summed once a lag, 53 sums for R = 3 instead of the 171 of the direct way, with each of the outer rows
and columns apart; `assemble_kernel` puts the sums together and eliminates, all in registers.

A program of `lag_sums_kernel` and `maps_gradient_kernel` is one warp on 32 columns of a map, and walks down its rows:
every row is loaded once and kept for the next R - 1. Rows come in bands: each of the R - 1 first and last is a band of
its own, the inner ones are cut into bands of ROWS.

Larger regions than MAX_REGION_SIZE would need more registers than there are; `regions` serves them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions
from rmiseg.kernels import regions
from rmiseg.kernels.triton.arguments import power_of_2
from rmiseg.kernels.triton.launching import MOST, launch
from rmiseg.kernels.triton.region_kernels import (
    COLUMNS,
    MapsCut,
    SumsCut,
    assemble_kernel,
    lag_sums_kernel,
    maps_gradient_kernel,
    taps_kernel,
)

MAX_REGION_SIZE = 7
"""The covariances of larger regions do not fit into the registers of a program."""

AT_ONCE = 4
"""R = 4 takes 114 sums of float64, two registers each, of the 255 registers a thread may have. Larger regions are gone
through once for each pair of kinds: 91 sums for R = 7."""

TILE_VALUES = 8
"""Values of a tile of the covariance for each thread that eliminates in it."""

ROWS = 64
"""Rows of an inner band: enough that the sums over lanes at its end cost little, few enough to fill a GPU."""

GRADIENT_ROWS = 4
"""Rows of an inner band of the gradient: each weight is loaded once for all of them, and all sums stay in registers."""

FUSED = {"enable_fp_fusion": True}
"""For every kernel: multiply and add in one instruction, which newer versions of Triton do only if told to."""

PASS_BYTES = 1 << 27
"""Memory for the sums of the maps that are worked on at a time."""


@dataclass(frozen=True)
class _Cut:
    """The cut of one side of the maps: `edges` lines of their own, and `inner` lines in `blocks`.

    Lines 0 to R - 2 and the last R - 1 are edges, numbered in order; all lines are edges where there are fewer.
    `single` of the edges count at any one offset, beginning with edge number `offset`.
    """

    side: int
    region_size: int
    block: int

    @property
    def inner(self) -> int:
        return max(0, self.side - 2 * (self.region_size - 1))

    @property
    def edges(self) -> int:
        return self.side - self.inner

    @property
    def blocks(self) -> int:
        return -(-self.inner // self.block)

    @property
    def single(self) -> int:
        return self.side - self.region_size + 1 - self.inner


@dataclass(frozen=True)
class Regions:
    """RMI of pooled maps, and what its gradient is made of.

    Attributes:
        probabilities, labels: Pooled, (N, C, h, w) float32 or float64.
        region_size, alpha: See `functional.rmi_sums`.
        rmi: (N, C) float64.
        present: (N, C) bool, the classes that are.
        covariance: (N, C, 2d, 2d) float64.
        weights: (N, C, d, 2d + 1) float64, which the gradient is made of; None without it, and for large regions.
    """

    probabilities: Tensor
    labels: Tensor
    region_size: int
    alpha: float
    rmi: Tensor
    present: Tensor
    covariance: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, probabilities: Tensor, labels: Tensor, options: RMIOptions, with_gradient: bool) -> Regions:
        size, alpha = options.region_size, options.alpha
        if size > MAX_REGION_SIZE:
            covariance = regions.region_covariance(probabilities, labels, size)
            rmi, present = regions.rmi_of_covariance(covariance, alpha), labels.amax(dim=(2, 3)) > 0
            return cls(probabilities, labels, size, alpha, rmi, present, covariance, None)
        n, c, d = *probabilities.shape[:2], size**2
        covariance = probabilities.new_empty((n, c, 2 * d, 2 * d), dtype=torch.float64)
        weights = covariance.new_empty((n, c, d, 2 * d + 1)) if with_gradient else None
        rmi, present = covariance.new_empty((n, c)), probabilities.new_empty((n, c), dtype=torch.uint8)
        cuts = _Cuts.of(probabilities.shape, size, ROWS)
        every = probabilities, labels, covariance, rmi, present, weights
        for maps in cuts.passes():
            count = maps.stop - maps.start
            sums = covariance.new_empty((count, cuts.bands, cuts.lags, cuts.columns))
            part = every if count == cuts.maps else tuple(_part(each, maps) for each in every)
            settings: dict[str, Any] = {"ROWS": ROWS, "R": size, **FUSED, "num_warps": 1}
            for pairs in (0b1111,) if size <= AT_ONCE else (0b0001, 0b0010, 0b0100, 0b1000):
                settings["PAIRS"] = pairs
                launch(lag_sums_kernel, count * cuts.bands * cuts.chunks, *part[:2], sums, cuts.of_maps, **settings)
            settings = {"R": size, "TILE": cuts.tile, "ALPHA": alpha, **FUSED, "num_warps": cuts.warps}
            launch(assemble_kernel, count, sums, *part[2:], cuts.of_sums, **settings)
        return cls(probabilities, labels, size, alpha, rmi, present.view(torch.bool), covariance, weights)

    def write_gradient(self, out: Tensor) -> None:
        """Write the gradient of every map's RMI in its probabilities: (N, C, h, w) contiguous, in their dtype."""
        size = self.region_size
        if self.weights is None:
            factor = regions.region_factor(self.covariance, self.alpha)
            out.copy_(regions.region_gradient(self.probabilities, self.labels, factor, size))
            return
        cuts, span = _Cuts.of(self.probabilities.shape, size, ROWS), 2 * size - 1
        taps = self.weights.new_empty((cuts.maps, span, span, 2 * span**2 + 1))
        settings: dict[str, Any] = {"R": size, "TAPS": power_of_2(taps.shape[-1]), **FUSED, "num_warps": 4}
        settings["CLASSES"] = power_of_2(span)
        launch(taps_kernel, cuts.maps * span, self.weights, taps, cuts.of_maps, **settings)
        bands = cuts.rows.edges + -(-cuts.rows.inner // GRADIENT_ROWS)
        sources = self.probabilities, self.labels, taps, out, cuts.of_maps._replace(bands=bands)
        settings = {"ROWS": GRADIENT_ROWS, "R": size, **FUSED, "num_warps": 1}
        launch(maps_gradient_kernel, cuts.maps * bands * cuts.chunks, *sources, **settings)


def _part(tensor: Tensor | None, maps: slice) -> Tensor | None:
    """Some maps of a tensor (N, C, ...): (maps, ...)."""
    return None if tensor is None else tensor.flatten(0, 1)[maps]


class _Cuts:
    """The cuts of pooled maps (N, C, h, w) for one region size, in bands of `rows` inner rows."""

    def __init__(self, shape: tuple[int, ...], region_size: int, rows: int) -> None:
        height, width = shape[2:]
        self.maps = shape[0] * shape[1]
        self.rows, columns = _Cut(height, region_size, rows), _Cut(width, region_size, COLUMNS.value)
        self.bands, self.chunks = self.rows.edges + self.rows.blocks, -(-width // COLUMNS.value)
        self.columns = columns.edges + self.chunks
        self.lags = 4 * region_size * (2 * region_size - 1) + 2
        self.tile = max(2, power_of_2(2 * region_size**2))
        self.warps = max(1, min(16, self.tile**2 // (32 * TILE_VALUES)))
        self.of_maps = MapsCut(height, width, self.rows.inner, columns.inner, self.bands, self.chunks)
        self.of_sums = SumsCut(
            positions=(height - region_size + 1) * (width - region_size + 1),
            bands=self.bands,
            row_edges=self.rows.edges,
            row_single=self.rows.single,
            row_blocks=self.rows.blocks,
            column_edges=columns.edges,
            column_single=columns.single,
            chunks=self.chunks,
        )

    @staticmethod
    @functools.lru_cache(maxsize=MOST)
    def of(shape: tuple[int, ...], region_size: int, rows: int) -> _Cuts:
        """The same for the same arguments: they are from step to step."""
        return _Cuts(shape, region_size, rows)

    def passes(self) -> list[slice]:
        """Slices of the maps whose sums fit into PASS_BYTES."""
        group = max(1, PASS_BYTES // (8 * self.bands * self.lags * self.columns))
        return [slice(start, min(start + group, self.maps)) for start in range(0, self.maps, group)]
