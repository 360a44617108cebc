"""The forward pass: pixel loss and pooled maps, in one reading of the logits."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import triton
import triton.language as tl

from rmiseg.kernels.triton.arguments import Batch, Pooled, Tiles
from rmiseg.kernels.triton.reading import (
    LOWEST,
    OFFSET,
    add_exponential,
    column_places,
    each_row,
    exact_sigmoid,
    lanes_of_tile,
    pixel_weight,
    program_of_tile,
    read_label,
    read_logits,
    read_rows,
    row_places,
    source_pixels,
)


@triton.jit
def _binary_terms(v, e, is_label, linear, product):
    """Take pixels more into sums of a class's binary cross entropy, linear + log(1 + product).

    softplus(v) = max(v, 0) + log(1 + e). A sum of logarithms is one of a product, (1 + product) * (1 + e), and what is
    beyond 1 of it stays exact where all are certain. `is_label` is 0 or 1.
    """
    linear += tl.maximum(v, 0.0) - is_label * v  # not where: what is not finite stays so
    return linear, product * e + (product + e)


@triton.jit
def _log_of_one_more(product):
    """log(1 + product), exact where it is small."""
    one_more = 1.0 + product
    return tl.log(one_more) + (product - (one_more - 1.0)) / one_more


@triton.jit
def _pool_rows(p, is_label, pooled_p, pooled_y, poison, WINDOWS: tl.constexpr):
    """Take one row more of probabilities and labels into the windows' sums, or maxima and NaN, which these may drop."""
    if WINDOWS.pool == "avg":
        pooled_p += p
        pooled_y += is_label
    else:
        pooled_p = tl.where(p > pooled_p, p, pooled_p)
        pooled_y = tl.where(is_label > pooled_y, is_label, pooled_y)
        poison += p * 0.0
    return pooled_p, pooled_y, poison


@triton.jit
def _pool_columns(pooled_p, pooled_y, poison, WINDOWS: tl.constexpr, SIDE: tl.constexpr, CELLS: tl.constexpr):
    """Probabilities and labels of the windows, from those of their columns; both (CELLS * SIDE,), SIDE times the same.

    So no values change hands between warps.
    """
    if WINDOWS.pool == "avg":
        window_p = _sum_lanes(pooled_p, SIDE, CELLS) / (WINDOWS.size * WINDOWS.size)
        window_y = _sum_lanes(pooled_y, SIDE, CELLS) / (WINDOWS.size * WINDOWS.size)
    else:
        window_p = _largest_of_lanes(pooled_p, SIDE, CELLS) + _sum_lanes(poison, SIDE, CELLS)
        window_y = _largest_of_lanes(pooled_y, SIDE, CELLS)
    return window_p, window_y


@triton.jit
def _sum_lanes(values, SIDE: tl.constexpr, CELLS: tl.constexpr):
    """Sum over the SIDE lanes of each window, in all of them."""
    of_cells = tl.sum(tl.reshape(values, [CELLS, SIDE]), axis=1, keep_dims=True)
    return tl.reshape(tl.broadcast_to(of_cells, [CELLS, SIDE]), [CELLS * SIDE])


@triton.jit
def _largest_of_lanes(values, SIDE: tl.constexpr, CELLS: tl.constexpr):
    """Largest of the SIDE lanes of each window, in all of them."""
    of_cells = tl.max(tl.reshape(values, [CELLS, SIDE]), axis=1, keep_dims=True)
    return tl.reshape(tl.broadcast_to(of_cells, [CELLS, SIDE]), [CELLS * SIDE])


@triton.jit
def forward_kernel(
    batch: Batch,
    pooled: Pooled,  # its probabilities and labels are written
    sums,  # (programs,) float64, written: pixel loss
    tiles: Tiles,
    READING: tl.constexpr,  # Reading
    WINDOWS: tl.constexpr,  # Windows
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
    CROSS_ENTROPY: tl.constexpr,
    FACTORS: tl.constexpr,
    AHEAD: tl.constexpr,  # logits of the next class are on their way while one is worked on
):
    """Pixel loss and pooled maps of a tile of windows and a group of classes."""
    LANES: tl.constexpr = CELLS * SIDE
    WIDE: tl.constexpr = READING.wide
    SIZE: tl.constexpr = WINDOWS.size
    POOLED: tl.constexpr = WINDOWS.pool == "avg" or WINDOWS.pool == "max"
    # Classes whose 1 + e are multiplied before one logarithm: as many as stay far from the largest float32.
    MANY: tl.constexpr = FACTORS > SIZE and batch.class_weights is None
    LOGS: tl.constexpr = FACTORS // SIZE if MANY else 1
    first, tile, n = program_of_tile(tiles)
    last = tl.minimum(first + tiles.group, batch.classes)
    x, top, in_row = lanes_of_tile(tile, batch.width, tiles, WINDOWS, SIDE, CELLS)
    columns = column_places(batch, x, READING)
    plane = batch.logits + n * batch.stride_n + first.to(tl.int64) * batch.stride_c
    rows, own_labels = (), ()
    count = tl.zeros([LANES], WIDE)
    for dy in tl.static_range(SIZE):
        y = top + dy
        exists = in_row & (y >= 0) & (y < batch.height)
        rows = rows + (row_places(batch, y, READING),)
        own_labels = own_labels + (read_label(batch, n, y, x, exists),)
        count += exists.to(WIDE)

    lane = tl.arange(0, LANES)
    cell = tile * CELLS + lane // SIDE
    row, column = cell // tiles.grid_width, cell % tiles.grid_width
    at = (n * batch.classes + first) * pooled.height * pooled.width + row * pooled.width + column
    writes = (row < pooled.height) & (column < pooled.width) & (lane % SIDE == 0)
    # The offset of the probabilities: less where an average sees the zeros around the image.
    offset = OFFSET
    if WINDOWS.pool == "avg":
        offset = _sum_lanes(count, SIDE, CELLS) * (OFFSET / (SIZE * SIZE))

    pixel = tl.zeros([LANES], tl.float64)
    zero = tl.zeros([LANES], WIDE)
    own, total = each_row(zero, SIZE), each_row(zero, SIZE)
    largest = each_row(tl.full([LANES], LOWEST, WIDE), SIZE)
    linear, product = zero, zero
    if AHEAD:
        ahead = read_rows(plane, rows, columns, own_labels, None, READING, SIZE)
    for c in range(first, last):
        if AHEAD:
            values = ahead
            plane += batch.stride_c
            ahead = read_rows(plane, rows, columns, own_labels, last - c - 1, READING, SIZE)
        else:
            values = read_rows(plane, rows, columns, own_labels, None, READING, SIZE)
            plane += batch.stride_c
        pooled_p, pooled_y, poison = zero, zero, zero
        new_own, new_largest, new_total = (), (), ()
        for dy in tl.static_range(SIZE):
            is_label = (own_labels[dy] == c).to(WIDE)
            v = values[dy].to(WIDE)
            e, _r, p = exact_sigmoid(v)
            if CROSS_ENTROPY:
                one_more_largest, one_more_total = add_exponential(v, largest[dy], total[dy])
                new_own = new_own + (own[dy] + tl.where(own_labels[dy] == c, v, 0.0),)
                new_largest, new_total = new_largest + (one_more_largest,), new_total + (one_more_total,)
            else:
                linear, product = _binary_terms(v, e, is_label, linear, product)
                if (dy + 1) % FACTORS == 0:
                    linear += _log_of_one_more(product)
                    product = zero
            if POOLED:
                if CROSS_ENTROPY:
                    exists = in_row & (top + dy >= 0) & (top + dy < batch.height)
                    p = tl.where(exists, tl.where(p < OFFSET, OFFSET, p), 0.0)
                pooled_p, pooled_y, poison = _pool_rows(p, is_label, pooled_p, pooled_y, poison, WINDOWS)
        if CROSS_ENTROPY:
            own, largest, total = new_own, new_largest, new_total
        elif ((c - first + 1) % LOGS == 0) | (c + 1 == last):
            terms = (linear + _log_of_one_more(product)).to(tl.float64)
            pixel += terms * tl.load(batch.class_weights + c) if batch.class_weights is not None else terms
            linear, product = zero, zero
        if POOLED:
            window_p, window_y = _pool_columns(pooled_p, pooled_y, poison, WINDOWS, SIDE, CELLS)
            if not CROSS_ENTROPY:
                window_p += offset
            tl.store(pooled.probabilities + at, window_p, mask=writes)
            tl.store(pooled.labels + at, window_y, mask=writes)
            at += pooled.height * pooled.width
    if CROSS_ENTROPY:
        for dy in tl.static_range(SIZE):
            weight = pixel_weight(batch, own_labels[dy], WIDE)
            pixel += ((largest[dy] + tl.log(total[dy]) - own[dy]) * weight).to(tl.float64)
    tl.store(sums + tl.program_id(0), tl.sum(pixel, axis=0))


@triton.jit
def interp_kernel(
    batch: Batch,
    pooled: Pooled,  # its probabilities are written
    blocks,
    READING: tl.constexpr,  # Reading
    CELLS: tl.constexpr,
    CLAMP: tl.constexpr,
):
    """Probabilities resized bilinearly, corners aligned: four pixels for each value."""
    block = tl.program_id(0) % blocks
    c = (tl.program_id(0) // blocks % batch.classes).to(tl.int64)
    n = (tl.program_id(0) // blocks // batch.classes).to(tl.int64)
    cell = block * CELLS + tl.arange(0, CELLS)
    exists = cell < pooled.height * pooled.width
    top, bottom, down = source_pixels(cell // pooled.width, batch.height, pooled.height, True, READING)
    left, right, along = source_pixels(cell % pooled.width, batch.width, pooled.width, True, READING)
    plane = batch.logits + n * batch.stride_n + c * batch.stride_c
    value = tl.zeros([CELLS], READING.wide)
    for i in tl.static_range(4):
        y = top if i < 2 else bottom
        x = left if i % 2 == 0 else right
        rows, columns = row_places(batch, y, READING), column_places(batch, x, READING)
        counts = exists & (read_label(batch, n, y, x, exists) >= 0)
        _e, _r, p = exact_sigmoid(read_logits(plane, rows, columns, counts, READING).to(READING.wide))
        if CLAMP:
            p = tl.where(p < OFFSET, OFFSET, p)
        else:
            p += OFFSET
        p *= (1.0 - down) if i < 2 else down
        value += p * ((1.0 - along) if i % 2 == 0 else along)
    at = (n * batch.classes + c) * pooled.height * pooled.width + cell
    tl.store(pooled.probabilities + at, value, mask=exists)
