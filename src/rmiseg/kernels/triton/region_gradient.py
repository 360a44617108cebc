"""Kernels of the gradient of `rmiseg.kernels.triton.regions`, which says what they compute."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import triton
import triton.language as tl

from rmiseg.kernels.triton.region_kernels import LANES, MapsCut, lane_columns, load_row


@triton.jit
def taps_kernel(
    weights,  # (maps, d, 2d + 1) float64
    taps,  # (maps, 2R - 1 classes of rows, 2 (2R - 1)^2 + 1, 2R - 1 classes of columns) float64, written
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
    out = taps + ((index * SPAN + row_class) * (LAST + 1) + tap) * SPAN + column_class
    tl.store(out, total, mask=(tap <= LAST) & (column_class < SPAN))


@triton.jit
def maps_gradient_kernel(
    probabilities,  # (maps, h, w) float32 or float64
    labels,  # (maps, h, w), the same
    taps,  # (maps, 2R - 1 classes of rows, 2 (2R - 1)^2 + 1, 2R - 1 classes of columns) float64
    gradient,  # (maps, h, w), as the probabilities, written
    cut: MapsCut,
    COLUMNS: tl.constexpr,
    R: tl.constexpr,
):
    """Gradient in the probabilities of a band of rows and a chunk of columns: a convolution of both maps."""
    SPAN: tl.constexpr = 2 * R - 1
    EACH: tl.constexpr = COLUMNS + SPAN - 1
    LINE: tl.constexpr = (2 * SPAN * SPAN + 1) * SPAN  # taps of a class of rows
    chunk = tl.program_id(0) % cut.chunks
    band = (tl.program_id(0) // cut.chunks) % cut.bands
    index = (tl.program_id(0) // cut.chunks // cut.bands).to(tl.int64)
    start, stop = band * cut.rows, tl.minimum(band * cut.rows + cut.rows, cut.height)
    lane, column, counting = lane_columns(chunk, cut, R, COLUMNS)
    probabilities += index * cut.height * cut.width
    labels += index * cut.height * cut.width
    gradient += index * cut.height * cut.width
    column_class = tl.where(lane < cut.width - cut.inner_columns, tl.where(lane < R - 1, lane, lane + 1), R - 1)
    taps += index * SPAN * LINE + column_class
    zeros = ()
    for _ in tl.static_range(COLUMNS):
        zeros = zeros + (tl.zeros([LANES], tl.float64),)

    # Sums so far of the SPAN rows around the one that is read, the first complete after it.
    totals = ()
    for _ in tl.static_range(SPAN):
        totals = totals + zeros
    ahead = load_row(probabilities, start - (R - 1), column, cut, R, COLUMNS)
    ahead = ahead + load_row(labels, start - (R - 1), column, cut, R, COLUMNS)
    for row in range(start - (R - 1), stop + (R - 1)):
        values = ()
        for i in tl.static_range(2 * EACH):
            values = values + (ahead[i].to(tl.float64),)
        # The next row is on its way while this one is worked on.
        ahead = load_row(probabilities, row + 1, column, cut, R, COLUMNS)
        ahead = ahead + load_row(labels, row + 1, column, cut, R, COLUMNS)
        added = ()
        for i in tl.static_range(SPAN):
            own_taps = taps + _row_class(row - (R - 1) + i, cut, R) * LINE
            of_row = totals[i * COLUMNS : (i + 1) * COLUMNS]
            for line in tl.static_range(2 * SPAN):  # kind times SPAN plus column lag
                tap = tl.load(own_taps + (line * SPAN + SPAN - 1 - i) * SPAN)
                new = ()
                for p in tl.static_range(COLUMNS):
                    new = new + (of_row[p] + tap * values[line // SPAN * EACH + line % SPAN + p],)
                of_row = new
            added = added + of_row
        out_row = row - (R - 1) + column * 0
        center = tl.load(taps + _row_class(row - (R - 1), cut, R) * LINE + LINE - SPAN)
        for p in tl.static_range(COLUMNS):
            out = gradient + out_row * cut.width + column + p
            mask = (p < counting) & (out_row >= start)
            tl.store(out, (added[p] - center).to(gradient.dtype.element_ty), mask=mask)
        totals = added[COLUMNS:] + zeros


@triton.jit
def _row_class(row, cut, R: tl.constexpr):
    """Class of a row (see `taps_kernel`), of the nearest where it is none."""
    row = tl.minimum(tl.maximum(row, 0), cut.height - 1)
    return tl.where(row < R - 1, row, tl.where(row < R - 1 + cut.inner_rows, R - 1, row - cut.inner_rows + 1))
