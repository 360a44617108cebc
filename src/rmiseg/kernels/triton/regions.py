"""Region covariance, RMI and their gradient as Triton kernels: what `rmiseg.kernels.regions` computes, in few launches.

Let M_0, M_1 be the pooled probabilities and labels of one map, h x w, in float64, and let u = (k, i, j) name the values
of M_k at offset (i, j) of all R x R windows. The uncentered covariance of u and v = (k', i', j') is the sum of
M_k[r - a, s] * M_k'[r, s + b] over r in [i', i' + h - R] and s in [j, j + w - R], with the lags a = i' - i, b = j' - j.
Pairs with equal kinds and lags differ only in how far the sum reaches into the outermost R - 1 rows and columns. So
the products are summed once a lag, 53 sums for R = 3 instead of the 171 of the direct way, with each of the outer rows
and columns apart; `_assemble` puts the sums together and eliminates, all in registers.

A program of `_lag_sums` and `_maps_gradient` is one warp on 32 columns of a map, and walks down its rows: every row is
loaded once and kept for the next R - 1. Rows come in bands: each of the R - 1 first and last is a band of its own, the
inner ones are cut into bands of ROWS.

Larger regions than MAX_REGION_SIZE would need more registers than there are; `regions` serves them.
"""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from rmiseg.kernels import regions

MAX_REGION_SIZE = 4
"""R = 4 takes 114 sums of float64, two registers each, of the 255 registers a thread may have."""

COLUMNS = tl.constexpr(32)
"""One warp: sums over columns need no shared memory and no barrier. 129 columns (513 pooled by 4) waste a fifth."""

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
    """How one side of the maps is cut: `edges` lines of their own, and `inner` lines in `blocks`.

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
        self.shape, self.size, self.d = maps.shape, region_size, region_size**2
        self.maps = maps.shape[0] * maps.shape[1]
        self.rows = _Cut(maps.shape[2], region_size, ROWS)
        self.columns = _Cut(maps.shape[3], region_size, COLUMNS.value)
        self.bands = self.rows.edges + self.rows.blocks
        self.chunks = -(-maps.shape[3] // COLUMNS.value)
        self.classes_of_columns = self.columns.edges + self.chunks
        self.tile = max(2, triton.next_power_of_2(2 * self.d))
        self.common = {
            "height": self.shape[2],
            "width": self.shape[3],
            "inner_rows": self.rows.inner,
            "inner_columns": self.columns.inner,
            "bands": self.bands,
            "chunks": self.chunks,
            "ROWS": ROWS,
            "R": region_size,
        }

    def lag_sums(self, probabilities: Tensor, labels: Tensor, maps: slice, with_products: bool) -> Tensor:
        """(maps, bands, lags, columns) float64; of the lags, only the last two, which are sums, without products."""
        count = maps.stop - maps.start
        lags = (4 * self.size * (2 * self.size - 1) if with_products else 0) + 2
        sums = probabilities.new_empty((count, self.bands, lags, self.classes_of_columns), dtype=torch.float64)
        _lag_sums[(count * self.bands * self.chunks,)](
            probabilities.flatten(0, 1)[maps],
            labels.flatten(0, 1)[maps],
            sums,
            WITH_PRODUCTS=with_products,
            **self.common,
            **FUSED,
            num_warps=1,
        )
        return sums

    def passes(self) -> list[slice]:
        """Slices of the maps whose sums fit into PASS_BYTES."""
        lags = 4 * self.size * (2 * self.size - 1) + 2
        group = max(1, PASS_BYTES // (8 * self.bands * lags * self.classes_of_columns))
        return [slice(start, min(start + group, self.maps)) for start in range(0, self.maps, group)]

    def counts(self) -> dict[str, int]:
        return {
            "positions": (self.shape[2] - self.size + 1) * (self.shape[3] - self.size + 1),
            "bands": self.bands,
            "row_edges": self.rows.edges,
            "row_single": self.rows.single,
            "row_blocks": self.rows.blocks,
            "column_edges": self.columns.edges,
            "column_single": self.columns.single,
            "chunks": self.chunks,
            "R": self.size,
            "TILE": self.tile,
        }


def region_information(
    probabilities: Tensor, labels: Tensor, region_size: int, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of pooled maps (N, C, h, w): RMI (N, C) float64, present classes (N, C) bool, and covariance (N, C, 2d, 2d)."""
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
        _assemble[(maps.stop - maps.start,)](
            sums,
            covariance.flatten(0, 1)[maps],
            rmi.flatten()[maps],
            present.flatten()[maps],
            **kernels.counts(),
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
        gradient = regions.region_gradient(probabilities, labels, covariance, region_size, alpha)
        return gradient * grad_rmi.to(gradient.dtype)[..., None, None]
    kernels = RegionKernels(probabilities, region_size)
    sums = kernels.lag_sums(probabilities, labels, slice(0, kernels.maps), with_products=False)
    weights = probabilities.new_empty((kernels.maps, kernels.d, 2 * kernels.d + 1), dtype=torch.float64)
    _region_weights[(kernels.maps,)](
        covariance,
        sums,
        grad_rmi.double().contiguous(),
        weights,
        **kernels.counts(),
        ALPHA=alpha,
        **FUSED,
        num_warps=4,
    )
    span = 2 * region_size - 1
    taps = probabilities.new_empty((kernels.maps, span, span, 2 * span**2 + 1), dtype=torch.float64)
    _taps[(kernels.maps * span,)](
        weights,
        taps,
        *kernels.shape[2:],
        kernels.rows.inner,
        kernels.columns.inner,
        R=region_size,
        TAPS=triton.next_power_of_2(taps.shape[-1]),
        CLASSES=triton.next_power_of_2(span),
        **FUSED,
        num_warps=4,
    )
    gradient = torch.empty_like(probabilities)
    bands = kernels.rows.edges + -(-kernels.rows.inner // GRADIENT_ROWS)
    _maps_gradient[(kernels.maps * bands * kernels.chunks,)](
        probabilities,
        labels,
        taps,
        gradient,
        **{**kernels.common, "bands": bands, "ROWS": GRADIENT_ROWS},
        **FUSED,
        num_warps=1,
    )
    return gradient


@triton.jit
def _band(band, height, inner_rows, ROWS: tl.constexpr, R: tl.constexpr):
    """First row of a band, and the row after its last."""
    edges = height - inner_rows
    start = tl.where(band < edges, tl.where(band < R - 1, band, band + inner_rows), R - 1 + (band - edges) * ROWS)
    stop = tl.where(band < edges, start + 1, tl.minimum(start + ROWS, R - 1 + inner_rows))
    return start, stop


@triton.jit
def _lag_sums(
    probabilities,  # (maps, h, w) float32 or float64
    labels,  # (maps, h, w), the same
    sums,  # (maps, bands, lags, column edges + chunks) float64
    height,
    width,
    inner_rows,
    inner_columns,
    bands,
    chunks,
    ROWS: tl.constexpr,
    R: tl.constexpr,
    WITH_PRODUCTS: tl.constexpr,
):
    """Sums over a band of rows and a chunk of columns, of products at every lag and of the maps themselves."""
    SPAN: tl.constexpr = 2 * R - 1  # column lags -(R - 1) to R - 1
    PRODUCTS: tl.constexpr = 4 * R * SPAN if WITH_PRODUCTS else 0
    chunk = tl.program_id(0) % chunks
    band = (tl.program_id(0) // chunks) % bands
    index = (tl.program_id(0) // chunks // bands).to(tl.int64)
    start, stop = _band(band, height, inner_rows, ROWS, R)
    column = chunk * COLUMNS + tl.arange(0, COLUMNS)
    base = index * height * width
    zero = tl.zeros([COLUMNS], tl.float64)

    # Values in this chunk's columns of the R - 1 rows before, the latest first, of both kinds.
    before = ()
    for a in tl.static_range(1, R):
        row = start - a + column * 0
        for k in tl.static_range(2):
            maps = probabilities if k == 0 else labels
            mask = (column < width) & (row >= 0)
            before = before + (tl.load(maps + base + row * width + column, mask=mask, other=0.0).to(tl.float64),)
    products = ()
    for _ in tl.static_range(PRODUCTS):
        products = products + (zero,)
    totals = (zero, zero)
    for row in range(start, stop):
        # At column lag b: latest[k * SPAN + b + R - 1].
        latest = ()
        for k in tl.static_range(2):
            maps = probabilities if k == 0 else labels
            for b in tl.static_range(SPAN):
                shifted = column + (b - (R - 1))
                mask = (shifted >= 0) & (shifted < width)
                latest = latest + (tl.load(maps + base + row * width + shifted, mask=mask, other=0.0).to(tl.float64),)
        rows = (latest[R - 1], latest[SPAN + R - 1]) + before
        totals = (totals[0] + rows[0], totals[1] + rows[1])
        if WITH_PRODUCTS:
            added = ()
            for a in tl.static_range(R):
                for k in tl.static_range(2):
                    for other in tl.static_range(2):
                        for b in tl.static_range(SPAN):
                            total = products[((a * 2 + k) * 2 + other) * SPAN + b]
                            # Else the same as another, with both sides exchanged.
                            if a > 0 or k < other or (k == other and b >= R - 1):
                                total += rows[2 * a + k] * latest[other * SPAN + b]
                            added = added + (total,)
            products = added
        before = rows[: 2 * (R - 1)]

    inner = (column >= R - 1) & (column < R - 1 + inner_columns)
    edge = tl.where(column < R - 1, column, column - inner_columns)
    edges = width - inner_columns
    out = sums + (index * bands + band) * (PRODUCTS + 2) * (edges + chunks)
    every = products + totals
    for lag in tl.static_range(PRODUCTS + 2):
        tl.store(out + lag * (edges + chunks) + edge, every[lag], mask=(column < width) & (inner == 0))
        tl.store(out + lag * (edges + chunks) + edges + chunk, tl.sum(tl.where(inner, every[lag], 0.0), axis=0))


@triton.jit
def _gather(
    sums,  # (bands, lags, column edges + chunks) float64, of one map
    lag,  # tile of lags
    row_offset,  # tile of row offsets in the window, of the second factor
    column_offset,  # tile of column offsets in the window, of the first factor
    mask,
    lags,
    row_edges,
    row_single,
    row_blocks,
    column_edges,
    column_single,
    chunks,
):
    """Sums over all windows: the edges that count at the offsets, and everything inside."""
    total = tl.zeros(mask.shape, tl.float64)
    for i in range(row_single + row_blocks):
        band = tl.where(i < row_single, row_offset + i, row_edges + i - row_single)
        for j in range(column_single + chunks):
            at = tl.where(j < column_single, column_offset + j, column_edges + j - column_single)
            total += tl.load(sums + (band * lags + lag) * (column_edges + chunks) + at, mask=mask, other=0.0)
    return total


@triton.jit
def _sweep(matrix, k, rows, columns):
    """Sweep pivot k of a symmetric tile. All n swept, a matrix is minus its inverse; before, the rest is a Schur
    complement. Returns the pivot too."""
    row = tl.sum(tl.where(rows[:, None] == k, matrix, 0.0), axis=0)
    column = tl.sum(tl.where(columns[None, :] == k, matrix, 0.0), axis=1)
    pivot = tl.sum(tl.where(columns == k, row, 0.0), axis=0)
    here = rows[:, None] == k
    there = columns[None, :] == k
    swept = matrix - (column / pivot)[:, None] * row[None, :]
    swept = tl.where(here | there, matrix / pivot, swept)
    return tl.where(here & there, -1.0 / pivot, swept), pivot


@triton.jit
def _diagonal(u, D: tl.constexpr, ALPHA: tl.constexpr):
    """Alpha on the diagonal of the covariance, and ones on that of the rest of its tile."""
    # tl.full, since the constants of tl.where are float32.
    alpha = tl.full([u.shape[0]], ALPHA, tl.float64)
    values = tl.where(u < 2 * D, alpha, 1.0)
    return tl.where(u[:, None] == u[None, :], values[:, None], 0.0)


@triton.jit
def _assemble(
    sums,  # (maps, bands, lags, column edges + chunks) float64
    covariance,  # (maps, 2d, 2d) float64
    rmi,  # (maps,) float64
    present,  # (maps,) uint8
    positions,
    bands,
    row_edges,
    row_single,
    row_blocks,
    column_edges,
    column_single,
    chunks,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """Covariance and RMI of one map."""
    D: tl.constexpr = R * R
    SPAN: tl.constexpr = 2 * R - 1
    LAGS: tl.constexpr = 4 * R * SPAN + 2
    index = tl.program_id(0).to(tl.int64)
    sums += index * bands * LAGS * (column_edges + chunks)
    u = tl.arange(0, TILE)
    # The order of a pair that `_lag_sums` has: the second is not above the first, and so on.
    ku, iu, ju = (u // D)[:, None], (u % D // R)[:, None], (u % R)[:, None]
    kv, iv, jv = (u // D)[None, :], (u % D // R)[None, :], (u % R)[None, :]
    exchange = (iu > iv) | ((iu == iv) & ((ku > kv) | ((ku == kv) & (ju > jv))))
    k, i, j = tl.where(exchange, kv, ku), tl.where(exchange, iv, iu), tl.where(exchange, jv, ju)
    k2, i2, j2 = tl.where(exchange, ku, kv), tl.where(exchange, iu, iv), tl.where(exchange, ju, jv)
    lag = (((i2 - i) * 2 + k) * 2 + k2) * SPAN + j2 - j + R - 1
    mask = (u < 2 * D)[:, None] & (u < 2 * D)[None, :]
    total = _gather(
        sums, lag, i2, j, mask, LAGS, row_edges, row_single, row_blocks, column_edges, column_single, chunks
    )
    mean = _gather(
        sums,
        LAGS - 2 + u // D,
        u % D // R,
        u % R,
        u < 2 * D,
        LAGS,
        row_edges,
        row_single,
        row_blocks,
        column_edges,
        column_single,
        chunks,
    )
    tl.store(present + index, tl.max(tl.where((u >= D) & (mean > 0), 1, 0), axis=0).to(tl.uint8))
    # Centering is a rank-one correction: what cancels leaves float64 with far more digits than alpha needs.
    total -= mean[:, None] * (mean / positions)[None, :]
    tl.store(covariance + index * 4 * D * D + u[:, None] * 2 * D + u[None, :], total, mask=mask)

    matrix = total + _diagonal(u, D, ALPHA)
    value = 0.0
    value = tl.cast(value, tl.float64)
    for step in range(2 * D):
        matrix, pivot = _sweep(matrix, step, u, u)
        # A pivot that is not positive comes from maps that are not finite.
        value += tl.where(step >= D, tl.log(tl.where(pivot > 0, pivot, float("nan"))), 0.0)
    tl.store(rmi + index, value / (2 * D))


@triton.jit
def _region_weights(
    covariance,  # (maps, 2d, 2d) float64
    sums,  # (maps, bands, 2, column edges + chunks) float64
    grad_rmi,  # (maps,) float64
    weights,  # (maps, d, 2d + 1) float64
    positions,
    bands,
    row_edges,
    row_single,
    row_blocks,
    column_edges,
    column_single,
    chunks,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """The rows of 2 K (see `regions`) of the probabilities, times the gradient; last, their value at the mean."""
    D: tl.constexpr = R * R
    index = tl.program_id(0).to(tl.int64)
    u = tl.arange(0, TILE)
    mask = (u < 2 * D)[:, None] & (u < 2 * D)[None, :]
    matrix = tl.load(
        covariance + index * 4 * D * D + u[:, None] * 2 * D + u[None, :], mask=mask, other=0.0
    ) + _diagonal(u, D, ALPHA)
    for step in range(D):
        matrix, _ = _sweep(matrix, step, u, u)
    # Minus the inverse of the probabilities' own block.
    own = tl.where((u < D)[:, None] & (u < D)[None, :], matrix, 0.0)
    for step in range(D, 2 * D):
        matrix, _ = _sweep(matrix, step, u, u)
    scaled = (own - matrix) * (tl.load(grad_rmi + index) / D)
    mean = _gather(
        sums + index * bands * 2 * (column_edges + chunks),
        u // D,
        u % D // R,
        u % R,
        u < 2 * D,
        2,
        row_edges,
        row_single,
        row_blocks,
        column_edges,
        column_single,
        chunks,
    )
    center = tl.sum(tl.where(mask, scaled * (mean / positions)[None, :], 0.0), axis=1)
    weights += index * D * (2 * D + 1)
    tl.store(weights + u[:, None] * (2 * D + 1) + u[None, :], scaled, mask=(u < D)[:, None] & (u < 2 * D)[None, :])
    tl.store(weights + u * (2 * D + 1) + 2 * D, center, mask=u < D)


@triton.jit
def _taps(
    weights,  # (maps, d, 2d + 1) float64
    taps,  # (maps, 2R - 1 classes of rows, 2R - 1 classes of columns, 2 (2R - 1)^2 + 1) float64
    height,
    width,
    inner_rows,
    inner_columns,
    R: tl.constexpr,
    TAPS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """What the gradient takes from the values around one, by kind, column lag and row lag; last, the constant.

    A class of rows is an edge, or (number R - 1) everything inside; so with columns. Windows that would reach beyond
    the edge do not exist, and their weights are not in the sum.
    """
    D: tl.constexpr = R * R
    SPAN: tl.constexpr = 2 * R - 1
    LAST: tl.constexpr = 2 * SPAN * SPAN
    row_class = tl.program_id(0) % SPAN
    index = (tl.program_id(0) // SPAN).to(tl.int64)
    tap = tl.arange(0, TAPS)[:, None]
    column_class = tl.arange(0, CLASSES)[None, :]
    # A line of each class. Where there is nothing inside, nobody asks for that class.
    row = tl.where(row_class < R, row_class, row_class - 1 + inner_rows) + tap * 0
    column = tl.where(column_class < R, column_class, column_class - 1 + inner_columns)
    k = tap // (SPAN * SPAN)
    b = tap // SPAN % SPAN - (R - 1)
    a = tap % SPAN - (R - 1)
    total = tl.zeros([TAPS, CLASSES], tl.float64)
    for i in tl.static_range(R):
        for j in tl.static_range(R):
            exists = (row >= i) & (row - i <= height - R) & (column >= j) & (column - j <= width - R)
            lag = (tap < LAST) & (i + a >= 0) & (i + a < R) & (j + b >= 0) & (j + b < R)
            at = tl.where(tap == LAST, 2 * D, k * D + (i + a) * R + j + b)
            source = weights + index * D * (2 * D + 1) + (i * R + j) * (2 * D + 1) + at
            total += tl.load(source, mask=exists & (lag | (tap == LAST)), other=0.0)
    out = taps + ((index * SPAN + row_class) * SPAN + column_class) * (LAST + 1) + tap
    tl.store(out, total, mask=(tap <= LAST) & (column_class < SPAN))


@triton.jit
def _maps_gradient(
    probabilities,  # (maps, h, w) float32 or float64
    labels,  # (maps, h, w), the same
    taps,  # (maps, 2R - 1 classes of rows, 2R - 1 classes of columns, 2 (2R - 1)^2 + 1) float64
    gradient,  # (maps, h, w), as the probabilities
    height,
    width,
    inner_rows,
    inner_columns,
    bands,
    chunks,
    ROWS: tl.constexpr,
    R: tl.constexpr,
):
    """Gradient in the probabilities of a band of rows and a chunk of columns: a convolution of both maps."""
    SPAN: tl.constexpr = 2 * R - 1
    LAST: tl.constexpr = 2 * SPAN * SPAN
    chunk = tl.program_id(0) % chunks
    band = (tl.program_id(0) // chunks) % bands
    index = (tl.program_id(0) // chunks // bands).to(tl.int64)
    start, stop = _band(band, height, inner_rows, ROWS, R)
    column = chunk * COLUMNS + tl.arange(0, COLUMNS)
    base = index * height * width
    row_edges = height - inner_rows
    row_class = tl.where(band < row_edges, tl.where(band < R - 1, band, band + 1), R - 1)
    column_class = tl.where(
        column < R - 1, column, tl.where(column < R - 1 + inner_columns, R - 1, column - inner_columns + 1)
    )
    own_taps = taps + ((index * SPAN + row_class) * SPAN + tl.minimum(column_class, SPAN - 1)) * (LAST + 1)

    center = tl.load(own_taps + LAST)
    totals = ()
    for _ in tl.static_range(ROWS):
        totals = totals + (-center,)
    # Values of a column are loaded once for all row lags, taps once for all rows.
    for k in tl.static_range(2):
        maps = probabilities if k == 0 else labels
        for b in range(SPAN):
            shifted = column + (b - (R - 1))
            values = ()
            for i in tl.static_range(ROWS + SPAN - 1):
                row = start - (R - 1) + i + column * 0
                mask = (shifted >= 0) & (shifted < width) & (row >= 0) & (row < height)
                values = values + (tl.load(maps + base + row * width + shifted, mask=mask, other=0.0).to(tl.float64),)
            for a in tl.static_range(SPAN):
                tap = tl.load(own_taps + (k * SPAN + b) * SPAN + a)
                added = ()
                for i in tl.static_range(ROWS):
                    added = added + (totals[i] + tap * values[i + a],)
                totals = added
    for i in tl.static_range(ROWS):
        row = start + i + column * 0
        mask = (column < width) & (row < stop)
        tl.store(gradient + base + row * width + column, totals[i].to(gradient.dtype.element_ty), mask=mask)
