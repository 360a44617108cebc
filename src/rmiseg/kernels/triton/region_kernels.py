"""Kernels of `rmiseg.kernels.triton.regions`, which says what they compute."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

COLUMNS = tl.constexpr(32)
"""One warp: sums over columns need no shared memory and no barrier. 129 columns (513 pooled by 4) waste a fifth."""


class MapsCut(NamedTuple):
    """Pooled maps, cut into bands of rows and chunks of COLUMNS columns.

    Attributes:
        height, width: h and w.
        inner_rows, inner_columns: Rows and columns that are not among the R - 1 first and last.
        bands: Bands: one for each other row, and those of the inner rows.
        chunks: Chunks of columns.
    """

    height: int
    width: int
    inner_rows: int
    inner_columns: int
    bands: int
    chunks: int


class SumsCut(NamedTuple):
    """Sums over bands and chunks, (maps, bands, lags, column edges + chunks), and which of them count where.

    Attributes:
        positions: Windows of a map.
        bands: Bands of rows: `row_edges`, and `row_blocks` of inner rows.
        row_edges, column_edges: Rows and columns with sums of their own.
        row_single, column_single: Those among them that count at any one offset in the window.
        row_blocks: Bands of inner rows.
        chunks: Chunks of columns.
    """

    positions: int
    bands: int
    row_edges: int
    row_single: int
    row_blocks: int
    column_edges: int
    column_single: int
    chunks: int


@triton.jit
def _band(band, cut, ROWS: tl.constexpr, R: tl.constexpr):
    """First row of a band, and the row after its last."""
    edges = cut.height - cut.inner_rows
    start = tl.where(band < edges, tl.where(band < R - 1, band, band + cut.inner_rows), R - 1 + (band - edges) * ROWS)
    stop = tl.where(band < edges, start + 1, tl.minimum(start + ROWS, R - 1 + cut.inner_rows))
    return start, stop


@triton.jit
def lag_sums_kernel(
    probabilities,  # (maps, h, w) float32 or float64
    labels,  # (maps, h, w), the same
    sums,  # (maps, bands, lags, column edges + chunks) float64, written
    cut: MapsCut,
    ROWS: tl.constexpr,
    R: tl.constexpr,
    PAIRS: tl.constexpr,  # bit 2 k + k' for products of kinds k and k': all, or one pair where registers do not suffice
):
    """Sums over a band of rows and a chunk of columns, of products at every lag and of the maps themselves."""
    SPAN: tl.constexpr = 2 * R - 1  # column lags -(R - 1) to R - 1
    PRODUCTS: tl.constexpr = 4 * R * SPAN
    chunk = tl.program_id(0) % cut.chunks
    band = (tl.program_id(0) // cut.chunks) % cut.bands
    index = (tl.program_id(0) // cut.chunks // cut.bands).to(tl.int64)
    start, stop = _band(band, cut, ROWS, R)
    column = chunk * COLUMNS + tl.arange(0, COLUMNS)
    base = index * cut.height * cut.width
    zero = tl.zeros([COLUMNS], tl.float64)

    # Values in this chunk's columns of the R - 1 rows before, the latest first, of both kinds.
    before = ()
    for a in tl.static_range(1, R):
        row = start - a + column * 0
        for k in tl.static_range(2):
            maps = probabilities if k == 0 else labels
            mask = (column < cut.width) & (row >= 0)
            before = before + (tl.load(maps + base + row * cut.width + column, mask=mask, other=0.0).to(tl.float64),)
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
                mask = (shifted >= 0) & (shifted < cut.width)
                at = maps + base + row * cut.width + shifted
                latest = latest + (tl.load(at, mask=mask, other=0.0).to(tl.float64),)
        rows = (latest[R - 1], latest[SPAN + R - 1]) + before
        totals = (totals[0] + rows[0], totals[1] + rows[1])
        added = ()
        for a in tl.static_range(R):
            for k in tl.static_range(2):
                for other in tl.static_range(2):
                    for b in tl.static_range(SPAN):
                        total = products[((a * 2 + k) * 2 + other) * SPAN + b]
                        # Else the same as another, with both sides exchanged.
                        counts = a > 0 or k < other or (k == other and b >= R - 1)
                        if counts and PAIRS >> (2 * k + other) & 1:
                            total += rows[2 * a + k] * latest[other * SPAN + b]
                        added = added + (total,)
        products = added
        before = rows[: 2 * (R - 1)]

    inner = (column >= R - 1) & (column < R - 1 + cut.inner_columns)
    edge = tl.where(column < R - 1, column, column - cut.inner_columns)
    edges = cut.width - cut.inner_columns
    out = sums + (index * cut.bands + band) * (PRODUCTS + 2) * (edges + cut.chunks)
    every = products + totals
    for lag in tl.static_range(PRODUCTS + 2):
        # A map's own sum goes with its products with itself.
        if PAIRS >> (lag // SPAN % 4 if lag < PRODUCTS else 3 * (lag - PRODUCTS)) & 1:
            tl.store(out + lag * (edges + cut.chunks) + edge, every[lag], mask=(column < cut.width) & (inner == 0))
            inside = tl.sum(tl.where(inner, every[lag], 0.0), axis=0)
            tl.store(out + lag * (edges + cut.chunks) + edges + chunk, inside)


@triton.jit
def _gather(
    sums,  # (bands, lags, column edges + chunks) float64, of one map
    lag,  # tile of lags
    row_offset,  # tile of row offsets in the window, of the second factor
    column_offset,  # tile of column offsets in the window, of the first factor
    mask,
    lags,
    cut: SumsCut,
):
    """Sums over all windows: the edges that count at the offsets, and everything inside."""
    total = tl.zeros(mask.shape, tl.float64)
    for i in range(cut.row_single + cut.row_blocks):
        band = tl.where(i < cut.row_single, row_offset + i, cut.row_edges + i - cut.row_single)
        for j in range(cut.column_single + cut.chunks):
            at = tl.where(j < cut.column_single, column_offset + j, cut.column_edges + j - cut.column_single)
            total += tl.load(sums + (band * lags + lag) * (cut.column_edges + cut.chunks) + at, mask=mask, other=0.0)
    return total


@triton.jit
def _sweep(matrix, k, u):
    """Sweep pivot k of a symmetric tile. All n swept, a matrix is minus its inverse; before, the rest is a Schur
    complement. Returns the pivot too."""
    # A column, which is the row too: sums over columns stay within threads, and those over rows would not.
    line = tl.sum(tl.where(u[None, :] == k, matrix, 0.0), axis=1)
    pivot = tl.sum(tl.where(u == k, line, 0.0), axis=0)
    inverse = 1.0 / pivot  # once: a quotient in float64 is thirty instructions
    here, there = u[:, None] == k, u[None, :] == k
    swept = matrix - (line * inverse)[:, None] * line[None, :]
    swept = tl.where(here | there, matrix * inverse, swept)
    return tl.where(here & there, -inverse, swept), pivot


@triton.jit
def _diagonal(u, D: tl.constexpr, ALPHA: tl.constexpr):
    """Alpha on the diagonal of the covariance, and ones on that of the rest of its tile."""
    # tl.full, since the constants of tl.where are float32.
    alpha = tl.full([u.shape[0]], ALPHA, tl.float64)
    values = tl.where(u < 2 * D, alpha, 1.0)
    return tl.where(u[:, None] == u[None, :], values[:, None], 0.0)


@triton.jit
def assemble_kernel(
    sums,  # (maps, bands, lags, column edges + chunks) float64
    covariance,  # (maps, 2d, 2d) float64, written
    rmi,  # (maps,) float64, written
    present,  # (maps,) uint8, written
    weights,  # (maps, d, 2d + 1) float64, written, or None
    cut: SumsCut,
    R: tl.constexpr,
    TILE: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """Covariance and RMI of one map, and the weights of its gradient.

    These are the rows of 2 K (see `rmiseg.kernels.regions`) of the probabilities; last, their value at the mean.
    """
    D: tl.constexpr = R * R
    SPAN: tl.constexpr = 2 * R - 1
    LAGS: tl.constexpr = 4 * R * SPAN + 2
    index = tl.program_id(0).to(tl.int64)
    sums += index * cut.bands * LAGS * (cut.column_edges + cut.chunks)
    u = tl.arange(0, TILE)
    # The order of a pair that `lag_sums_kernel` has: the second is not above the first, and so on.
    ku, iu, ju = (u // D)[:, None], (u % D // R)[:, None], (u % R)[:, None]
    kv, iv, jv = (u // D)[None, :], (u % D // R)[None, :], (u % R)[None, :]
    exchange = (iu > iv) | ((iu == iv) & ((ku > kv) | ((ku == kv) & (ju > jv))))
    k, i, j = tl.where(exchange, kv, ku), tl.where(exchange, iv, iu), tl.where(exchange, jv, ju)
    k2, i2, j2 = tl.where(exchange, ku, kv), tl.where(exchange, iu, iv), tl.where(exchange, ju, jv)
    lag = (((i2 - i) * 2 + k) * 2 + k2) * SPAN + j2 - j + R - 1
    mask = (u < 2 * D)[:, None] & (u < 2 * D)[None, :]
    total = _gather(sums, lag, i2, j, mask, LAGS, cut)
    mean = _gather(sums, LAGS - 2 + u // D, u % D // R, u % R, u < 2 * D, LAGS, cut)
    tl.store(present + index, tl.max(tl.where((u >= D) & (mean > 0), 1, 0), axis=0).to(tl.uint8))
    # Centering is a rank-one correction: what cancels leaves float64 with far more digits than alpha needs.
    total -= mean[:, None] * (mean / cut.positions)[None, :]
    tl.store(covariance + index * 4 * D * D + u[:, None] * 2 * D + u[None, :], total, mask=mask)

    matrix = total + _diagonal(u, D, ALPHA)
    for step in range(D):
        matrix, _ = _sweep(matrix, step, u)
    # Minus the inverse of the probabilities' own block.
    own = tl.where((u < D)[:, None] & (u < D)[None, :], matrix, 0.0)
    pivots = tl.full([TILE], 1.0, tl.float64)
    for step in range(D, 2 * D):
        matrix, pivot = _sweep(matrix, step, u)
        pivots = tl.where(u == step, pivot, pivots)
    # A pivot that is not positive comes from maps that are not finite.
    logarithms = tl.log(tl.where(pivots > 0, pivots, float("nan")))
    tl.store(rmi + index, tl.sum(logarithms, axis=0) / (2 * D))
    if weights is not None:
        scaled = (own - matrix) / D
        center = tl.sum(tl.where(mask, scaled * (mean / cut.positions)[None, :], 0.0), axis=1)
        weights += index * D * (2 * D + 1)
        tl.store(weights + u[:, None] * (2 * D + 1) + u[None, :], scaled, mask=(u < D)[:, None] & (u < 2 * D)[None, :])
        tl.store(weights + u * (2 * D + 1) + 2 * D, center, mask=u < D)


@triton.jit
def taps_kernel(
    weights,  # (maps, d, 2d + 1) float64
    taps,  # (maps, 2R - 1 classes of rows, 2R - 1 classes of columns, 2 (2R - 1)^2 + 1) float64, written
    cut: MapsCut,
    R: tl.constexpr,
    TAPS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """Weights in the gradient of the values around one, by kind, column lag and row lag; last, the constant.

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
    row = tl.where(row_class < R, row_class, row_class - 1 + cut.inner_rows) + tap * 0
    column = tl.where(column_class < R, column_class, column_class - 1 + cut.inner_columns)
    k = tap // (SPAN * SPAN)
    b = tap // SPAN % SPAN - (R - 1)
    a = tap % SPAN - (R - 1)
    total = tl.zeros([TAPS, CLASSES], tl.float64)
    for i in tl.static_range(R):
        for j in tl.static_range(R):
            exists = (row >= i) & (row - i <= cut.height - R) & (column >= j) & (column - j <= cut.width - R)
            lag = (tap < LAST) & (i + a >= 0) & (i + a < R) & (j + b >= 0) & (j + b < R)
            at = tl.where(tap == LAST, 2 * D, k * D + (i + a) * R + j + b)
            source = weights + index * D * (2 * D + 1) + (i * R + j) * (2 * D + 1) + at
            total += tl.load(source, mask=exists & (lag | (tap == LAST)), other=0.0)
    out = taps + ((index * SPAN + row_class) * SPAN + column_class) * (LAST + 1) + tap
    tl.store(out, total, mask=(tap <= LAST) & (column_class < SPAN))


@triton.jit
def maps_gradient_kernel(
    probabilities,  # (maps, h, w) float32 or float64
    labels,  # (maps, h, w), the same
    taps,  # (maps, 2R - 1 classes of rows, 2R - 1 classes of columns, 2 (2R - 1)^2 + 1) float64
    gradient,  # (maps, h, w), as the probabilities, written
    cut: MapsCut,
    ROWS: tl.constexpr,
    R: tl.constexpr,
):
    """Gradient in the probabilities of a band of rows and a chunk of columns: a convolution of both maps."""
    SPAN: tl.constexpr = 2 * R - 1
    LAST: tl.constexpr = 2 * SPAN * SPAN
    chunk = tl.program_id(0) % cut.chunks
    band = (tl.program_id(0) // cut.chunks) % cut.bands
    index = (tl.program_id(0) // cut.chunks // cut.bands).to(tl.int64)
    start, stop = _band(band, cut, ROWS, R)
    column = chunk * COLUMNS + tl.arange(0, COLUMNS)
    base = index * cut.height * cut.width
    row_edges = cut.height - cut.inner_rows
    row_class = tl.where(band < row_edges, tl.where(band < R - 1, band, band + 1), R - 1)
    column_class = tl.where(
        column < R - 1, column, tl.where(column < R - 1 + cut.inner_columns, R - 1, column - cut.inner_columns + 1)
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
                mask = (shifted >= 0) & (shifted < cut.width) & (row >= 0) & (row < cut.height)
                at = maps + base + row * cut.width + shifted
                values = values + (tl.load(at, mask=mask, other=0.0).to(tl.float64),)
            for a in tl.static_range(SPAN):
                tap = tl.load(own_taps + (k * SPAN + b) * SPAN + a)
                added = ()
                for i in tl.static_range(ROWS):
                    added = added + (totals[i] + tap * values[i + a],)
                totals = added
    for i in tl.static_range(ROWS):
        row = start + i + column * 0
        mask = (column < cut.width) & (row < stop)
        tl.store(gradient + base + row * cut.width + column, totals[i].to(gradient.dtype.element_ty), mask=mask)
