"""Kernels of `rmiseg.kernels.triton.regions`, which says what they compute."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

LANES = tl.constexpr(32)
"""One warp: sums over columns need no shared memory and no barrier."""


class MapsCut(NamedTuple):
    """Pooled maps, cut into bands of rows and chunks of columns.

    Attributes:
        height, width: h and w.
        inner_rows, inner_columns: Rows and columns that are not among the R - 1 first and last.
        rows: Rows of a band: for the lag sums of one of inner rows, and each other row is a band of its own.
        bands: Bands of rows.
        chunks: Chunks of columns, those of LANES lanes.
    """

    height: int
    width: int
    inner_rows: int
    inner_columns: int
    rows: int
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
def lane_columns(chunk, cut, R: tl.constexpr, COLUMNS: tl.constexpr):
    """Number of each lane in its map, its first column, and how many of its adjacent columns count.

    The first lanes have one edge column each, the others COLUMNS inner ones: edges need sums and weights of their own.
    """
    edges = cut.width - cut.inner_columns
    lane = chunk * LANES + tl.arange(0, LANES)
    inner = (lane - edges) * COLUMNS
    column = tl.where(lane < edges, tl.where(lane < R - 1, lane, lane + cut.inner_columns), R - 1 + inner)
    return lane, column, tl.where(lane < edges, 1, cut.inner_columns - inner)


@triton.jit
def load_row(maps, row, column, cut, R: tl.constexpr, COLUMNS: tl.constexpr):
    """Values in a row from R - 1 columns before each lane's first to R - 1 after its last, 0 beyond the map."""
    row = row + column * 0
    here = (row >= 0) & (row < cut.height)
    values = ()
    for i in tl.static_range(COLUMNS + 2 * (R - 1)):
        shifted = column + (i - (R - 1))
        mask = (shifted >= 0) & (shifted < cut.width) & here
        values = values + (tl.load(maps + row * cut.width + shifted, mask=mask, other=0.0),)
    return values


@triton.jit
def _own_columns(values, counting, R: tl.constexpr, COLUMNS: tl.constexpr):
    """A row's values in each lane's own columns in float64, 0 in those that do not count."""
    own = ()
    for p in tl.static_range(COLUMNS):
        own = own + (tl.where(p < counting, values[R - 1 + p].to(tl.float64), 0.0),)
    return own


@triton.jit
def _sums_over_lanes(values, COUNT: tl.constexpr):
    """Sums over lanes of COUNT tiles: lane l of result j holds that of number LANES * j + l.

    Each stage adds up two tiles at once, one in half of the lanes: a fifth of the exchanges of sums one by one.
    """
    lane = tl.arange(0, LANES)
    for stage in tl.static_range(5):
        upper = (lane >> stage & 1) == 1
        added = ()
        for i in tl.static_range((COUNT + (2 << stage) - 1) // (2 << stage)):
            first = values[2 * i]
            second = tl.zeros([LANES], tl.float64)
            if 2 * i + 1 < (COUNT + (1 << stage) - 1) // (1 << stage):
                second = values[2 * i + 1]
            other = tl.gather(tl.where(upper, first, second), lane ^ (1 << stage), 0)
            added = added + (tl.where(upper, second, first) + other,)
        values = added
    return values


@triton.jit
def lag_sums_kernel(
    probabilities,  # (maps, h, w) float32 or float64
    labels,  # (maps, h, w), the same
    sums,  # (maps, bands, lags, column edges + chunks) float64, written
    cut: MapsCut,
    COLUMNS: tl.constexpr,
    R: tl.constexpr,
    FIRST: tl.constexpr,  # products of kinds k and k', the first pair and how many, pairs numbered 2 k + k':
    PAIRS: tl.constexpr,  # all 4, or 1 where registers do not suffice
):
    """Sums over a band of rows and a chunk of columns, of products at every lag and of the maps themselves."""
    SPAN: tl.constexpr = 2 * R - 1  # column lags -(R - 1) to R - 1
    LAGS: tl.constexpr = 4 * R * SPAN + 2
    PRODUCTS: tl.constexpr = PAIRS * R * SPAN
    # A map's own sum goes with its products with itself.
    TOTALS: tl.constexpr = 2 if PAIRS == 4 else (1 if FIRST % 3 == 0 else 0)
    chunk = tl.program_id(0) % cut.chunks
    band = (tl.program_id(0) // cut.chunks) % cut.bands
    index = (tl.program_id(0) // cut.chunks // cut.bands).to(tl.int64)
    row_edges = cut.height - cut.inner_rows
    start = tl.where(band < R - 1, band, band + cut.inner_rows)
    start = tl.where(band < row_edges, start, R - 1 + (band - row_edges) * cut.rows)
    stop = tl.where(band < row_edges, start + 1, tl.minimum(start + cut.rows, R - 1 + cut.inner_rows))
    lane, column, counting = lane_columns(chunk, cut, R, COLUMNS)
    probabilities += index * cut.height * cut.width
    labels += index * cut.height * cut.width
    zero = tl.zeros([LANES], tl.float64)

    # Values in this chunk's columns of the R - 1 rows before, the latest first, of both kinds.
    before = ()
    for a in tl.static_range(1, R):
        for k in tl.static_range(2):
            values = load_row(probabilities if k == 0 else labels, start - a, column, cut, R, COLUMNS)
            before = before + _own_columns(values, counting, R, COLUMNS)
    products, totals = (), (zero, zero)
    for _ in tl.static_range(PRODUCTS):
        products = products + (zero,)
    ahead = load_row(probabilities, start, column, cut, R, COLUMNS)
    ahead = ahead + load_row(labels, start, column, cut, R, COLUMNS)
    EACH: tl.constexpr = COLUMNS + SPAN - 1
    for row in range(start, stop):
        # In column p of a lane, at column lag b: latest[k * EACH + p + b + R - 1].
        latest = ()
        for i in tl.static_range(2 * EACH):
            latest = latest + (ahead[i].to(tl.float64),)
        rows = _own_columns(ahead[:EACH], counting, R, COLUMNS) + _own_columns(ahead[EACH:], counting, R, COLUMNS)
        rows = rows + before
        # The next row is on its way while this one is worked on.
        ahead = load_row(probabilities, row + 1, column, cut, R, COLUMNS)
        ahead = ahead + load_row(labels, row + 1, column, cut, R, COLUMNS)
        added = ()
        for k in tl.static_range(2):
            total = totals[k]
            for p in tl.static_range(COLUMNS):
                total += rows[k * COLUMNS + p]
            added = added + (total,)
        totals = added
        added = ()
        for a in tl.static_range(R):
            for pair in tl.static_range(FIRST, FIRST + PAIRS):
                for b in tl.static_range(SPAN):
                    total = products[(a * PAIRS + pair - FIRST) * SPAN + b]
                    # Else the same as another, with both sides exchanged.
                    if a > 0 or pair == 1 or (pair != 2 and b >= R - 1):
                        for p in tl.static_range(COLUMNS):
                            total += rows[(2 * a + pair // 2) * COLUMNS + p] * latest[pair % 2 * EACH + p + b]
                    added = added + (total,)
        products = added
        before = rows[: 2 * (R - 1) * COLUMNS]

    if TOTALS == 2:
        products = products + totals
    if TOTALS == 1:
        products = products + (totals[FIRST // 3],)
    edges = cut.width - cut.inner_columns
    out = sums + (index * cut.bands + band) * LAGS * (edges + cut.chunks)
    inside = ()
    for i in tl.static_range(PRODUCTS + TOTALS):
        tl.store(out + _lag(i, SPAN, R, FIRST, PAIRS) * (edges + cut.chunks) + lane, products[i], mask=lane < edges)
        inside = inside + (tl.where(lane < edges, 0.0, products[i]),)
    inside = _sums_over_lanes(inside, PRODUCTS + TOTALS)
    for j in tl.static_range((PRODUCTS + TOTALS + LANES - 1) // LANES):
        i = j * LANES + tl.arange(0, LANES)
        at = out + _lag(i, SPAN, R, FIRST, PAIRS) * (edges + cut.chunks) + edges + chunk
        tl.store(at, inside[j], mask=i < PRODUCTS + TOTALS)


@triton.jit
def _lag(i, SPAN: tl.constexpr, R: tl.constexpr, FIRST: tl.constexpr, PAIRS: tl.constexpr):
    """Number of a lag among all, from that among those of some pairs of kinds."""
    if PAIRS == 4:
        return i
    # Only pairs 0 and 3 have the sum of a map itself.
    return tl.where(i < R * SPAN, (i // SPAN * 4 + FIRST) * SPAN + i % SPAN, 4 * R * SPAN + FIRST // 3)


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
    samples,  # (maps,) float64, how many have added to the sums of each, or None of one
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
    positions = cut.positions
    if samples is not None:
        positions = positions * tl.load(samples + index)
    total = _gather(sums, lag, i2, j, mask, LAGS, cut)
    mean = _gather(sums, LAGS - 2 + u // D, u % D // R, u % R, u < 2 * D, LAGS, cut)
    tl.store(present + index, tl.max(tl.where((u >= D) & (mean > 0), 1, 0), axis=0).to(tl.uint8))
    # Centering is a rank-one correction: what cancels leaves float64 with far more digits than alpha needs.
    total -= mean[:, None] * (mean / positions)[None, :]
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
        center = tl.sum(tl.where(mask, scaled * (mean / positions)[None, :], 0.0), axis=1)
        weights += index * D * (2 * D + 1)
        tl.store(weights + u[:, None] * (2 * D + 1) + u[None, :], scaled, mask=(u < D)[:, None] & (u < 2 * D)[None, :])
        tl.store(weights + u * (2 * D + 1) + 2 * D, center, mask=u < D)
