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

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from rmiseg.kernels import regions
from rmiseg.kernels.triton.region_kernels import (
    COLUMNS,
    MapsCut,
    SumsCut,
    assemble_kernel,
    lag_sums_kernel,
    maps_gradient_kernel,
    region_weights_kernel,
    taps_kernel,
)

MAX_REGION_SIZE = 4
"""R = 4 takes 114 sums of float64, two registers each, of the 255 registers a thread may have."""

ROWS = 64
"""Rows of an inner band: enough that the sums over lanes at its end cost little, few enough to fill a GPU."""

GRADIENT_ROWS = 8
"""Rows of an inner band of the gradient: each weight is loaded once for all of them, and all sums stay in registers."""

FUSED = {"enable_fp_fusion": True}
"""For every kernel: multiply and add in one instruction, which newer versions of Triton do only if told to."""

PASS_BYTES = 1 << 25
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


class RegionKernels:
    """The kernels for pooled maps (N, C, h, w) and one region size."""

    def __init__(self, maps: Tensor, region_size: int) -> None:
        height, width = maps.shape[2:]
        self.size, self.d = region_size, region_size**2
        self.maps = maps.shape[0] * maps.shape[1]
        self.rows = _Cut(height, region_size, ROWS)
        columns = _Cut(width, region_size, COLUMNS.value)
        bands, chunks = self.rows.edges + self.rows.blocks, -(-width // COLUMNS.value)
        self.cut = MapsCut(height, width, self.rows.inner, columns.inner, bands, chunks)
        self.sums_cut = SumsCut(
            positions=(height - region_size + 1) * (width - region_size + 1),
            bands=bands,
            row_edges=self.rows.edges,
            row_single=self.rows.single,
            row_blocks=self.rows.blocks,
            column_edges=columns.edges,
            column_single=columns.single,
            chunks=chunks,
        )
        self.classes_of_columns = columns.edges + chunks
        self.tile = max(2, triton.next_power_of_2(2 * self.d))

    def lag_sums(self, probabilities: Tensor, labels: Tensor, maps: slice, with_products: bool) -> Tensor:
        """(maps, bands, lags, columns) float64; of the lags, only the last two, which are sums, without products."""
        count = maps.stop - maps.start
        lags = (4 * self.size * (2 * self.size - 1) if with_products else 0) + 2
        shape = (count, self.cut.bands, lags, self.classes_of_columns)
        sums = probabilities.new_empty(shape, dtype=torch.float64)
        lag_sums_kernel[(count * self.cut.bands * self.cut.chunks,)](
            probabilities.flatten(0, 1)[maps],
            labels.flatten(0, 1)[maps],
            sums,
            self.cut,
            ROWS=ROWS,
            R=self.size,
            WITH_PRODUCTS=with_products,
            **FUSED,
            num_warps=1,
        )
        return sums

    def passes(self) -> list[slice]:
        """Slices of the maps whose sums fit into PASS_BYTES."""
        lags = 4 * self.size * (2 * self.size - 1) + 2
        group = max(1, PASS_BYTES // (8 * self.cut.bands * lags * self.classes_of_columns))
        return [slice(start, min(start + group, self.maps)) for start in range(0, self.maps, group)]

    def weights(self, covariance: Tensor, sums: Tensor, grad_rmi: Tensor, alpha: float) -> Tensor:
        """Weights of the values of a region in the gradient: (maps, d, 2d + 1) float64."""
        weights = covariance.new_empty((self.maps, self.d, 2 * self.d + 1))
        region_weights_kernel[(self.maps,)](
            covariance,
            sums,
            grad_rmi.double().contiguous(),
            weights,
            self.sums_cut,
            R=self.size,
            TILE=self.tile,
            ALPHA=alpha,
            **FUSED,
            num_warps=4,
        )
        return weights

    def taps(self, weights: Tensor) -> Tensor:
        """Weights of the values around a pixel: (maps, 2R - 1, 2R - 1, 2 (2R - 1)^2 + 1) float64."""
        span = 2 * self.size - 1
        taps = weights.new_empty((self.maps, span, span, 2 * span**2 + 1))
        taps_kernel[(self.maps * span,)](
            weights,
            taps,
            self.cut,
            R=self.size,
            TAPS=triton.next_power_of_2(taps.shape[-1]),
            CLASSES=triton.next_power_of_2(span),
            **FUSED,
            num_warps=4,
        )
        return taps


def region_information(
    probabilities: Tensor, labels: Tensor, region_size: int, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """RMI (N, C) float64, present classes (N, C) bool, and covariance (N, C, 2d, 2d) of pooled maps (N, C, h, w)."""
    if region_size > MAX_REGION_SIZE:
        covariance = regions.region_covariance(probabilities, labels, region_size)
        return regions.rmi_of_covariance(covariance, alpha), labels.amax(dim=(2, 3)) > 0, covariance
    kernels = RegionKernels(probabilities, region_size)
    n, c, d = *probabilities.shape[:2], kernels.d
    covariance = probabilities.new_empty((n, c, 2 * d, 2 * d), dtype=torch.float64)
    rmi = probabilities.new_empty((n, c), dtype=torch.float64)
    present = probabilities.new_empty((n, c), dtype=torch.uint8)
    for maps in kernels.passes():
        sums = kernels.lag_sums(probabilities, labels, maps, with_products=True)
        assemble_kernel[(maps.stop - maps.start,)](
            sums,
            covariance.flatten(0, 1)[maps],
            rmi.flatten()[maps],
            present.flatten()[maps],
            kernels.sums_cut,
            R=region_size,
            TILE=kernels.tile,
            ALPHA=alpha,
            **FUSED,
            num_warps=4,
        )
    return rmi, present.view(torch.bool), covariance


def region_gradient(
    probabilities: Tensor, labels: Tensor, covariance: Tensor, grad_rmi: Tensor, region_size: int, alpha: float
) -> Tensor:
    """Gradient in the probabilities (N, C, h, w), in their dtype, given that in RMI (N, C)."""
    if region_size > MAX_REGION_SIZE:
        factor = regions.region_factor(covariance, alpha)
        gradient = regions.region_gradient(probabilities, labels, factor, region_size)
        return gradient * grad_rmi.to(gradient.dtype)[..., None, None]
    kernels = RegionKernels(probabilities, region_size)
    sums = kernels.lag_sums(probabilities, labels, slice(0, kernels.maps), with_products=False)
    taps = kernels.taps(kernels.weights(covariance, sums, grad_rmi, alpha))
    gradient = torch.empty_like(probabilities)
    bands = kernels.rows.edges + -(-kernels.rows.inner // GRADIENT_ROWS)
    maps_gradient_kernel[(kernels.maps * bands * kernels.cut.chunks,)](
        probabilities,
        labels,
        taps,
        gradient,
        kernels.cut._replace(bands=bands),
        ROWS=GRADIENT_ROWS,
        R=region_size,
        **FUSED,
        num_warps=1,
    )
    return gradient
