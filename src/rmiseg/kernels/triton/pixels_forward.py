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
    row_places,
    source_pixels,
)


@triton.jit
def _binary_terms(v, e, label, c, weight, linear, product):
    """Take pixels more into sums of the binary cross entropy of class `c`, linear + log(product).

    softplus(v) = max(v, 0) + log(1 + e). A sum of logarithms is one of a product; what 1 + e rounds off is added.
    """
    one_more = 1.0 + e
    product *= tl.where(label >= 0, one_more, 1.0)
    positive = tl.where(v > 0, v, 0.0) - tl.where(label == c, v, 0.0)
    # Times the weight, not where: what is not finite stays so.
    linear += (positive + (e - (one_more - 1.0))) * weight
    return linear, product


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
    """Probabilities and labels of the windows (CELLS,), from those of their columns (CELLS * SIDE,)."""
    if WINDOWS.pool == "avg":
        window_p = tl.sum(tl.reshape(pooled_p, [CELLS, SIDE]), axis=1) / (WINDOWS.size * WINDOWS.size)
        window_y = tl.sum(tl.reshape(pooled_y, [CELLS, SIDE]), axis=1) / (WINDOWS.size * WINDOWS.size)
    else:
        window_p = tl.max(tl.reshape(pooled_p, [CELLS, SIDE]), axis=1)
        window_p += tl.sum(tl.reshape(poison, [CELLS, SIDE]), axis=1)
        window_y = tl.max(tl.reshape(pooled_y, [CELLS, SIDE]), axis=1)
    return window_p, window_y


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
    STAGES: tl.constexpr,
):
    """Pixel loss and pooled maps of a tile of windows and a group of classes."""
    LANES: tl.constexpr = CELLS * SIDE
    WIDE: tl.constexpr = READING.wide
    SIZE: tl.constexpr = WINDOWS.size
    POOLED: tl.constexpr = WINDOWS.pool == "avg" or WINDOWS.pool == "max"
    # Classes whose 1 + e are multiplied before one logarithm: as many as stay far from the largest float32.
    MANY: tl.constexpr = FACTORS > SIZE and (CROSS_ENTROPY or batch.class_weights is None)
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

    cell = tile * CELLS + tl.arange(0, CELLS)
    row, column = cell // tiles.grid_width, cell % tiles.grid_width
    at = (n * batch.classes + first) * pooled.height * pooled.width + row * pooled.width + column
    is_pooled = (row < pooled.height) & (column < pooled.width)
    # The offset of the probabilities: less where an average sees the zeros around the image.
    offset = OFFSET
    if WINDOWS.pool == "avg":
        offset = tl.sum(tl.reshape(count, [CELLS, SIDE]), axis=1) * (OFFSET / (SIZE * SIZE))

    pixel = tl.zeros([LANES], tl.float64)
    zero = tl.zeros([LANES], WIDE)
    own, total = each_row(zero, SIZE), each_row(zero, SIZE)
    largest = each_row(tl.full([LANES], LOWEST, WIDE), SIZE)
    for start in range(first, last, LOGS):
        linear = zero
        product = zero + 1.0
        for c in tl.range(start, tl.minimum(start + LOGS, last), num_stages=STAGES):
            pooled_p, pooled_y, poison = zero, zero, zero
            new_own, new_largest, new_total = (), (), ()
            for dy in tl.static_range(SIZE):
                exists = in_row & (top + dy >= 0) & (top + dy < batch.height)
                weight = (own_labels[dy] >= 0).to(WIDE)
                is_label = (own_labels[dy] == c).to(WIDE)
                # Not at ignored pixels, whose logits may be anything.
                v = read_logits(plane, rows[dy], columns, exists & (own_labels[dy] >= 0), READING)
                e, _r, p = exact_sigmoid(v)
                if CROSS_ENTROPY:
                    one_more_largest, one_more_total = add_exponential(v, largest[dy], total[dy])
                    new_own = new_own + (own[dy] + tl.where(own_labels[dy] == c, v, 0.0),)
                    new_largest, new_total = new_largest + (one_more_largest,), new_total + (one_more_total,)
                else:
                    linear, product = _binary_terms(v, e, own_labels[dy], c, weight, linear, product)
                    if (dy + 1) % FACTORS == 0:
                        linear += tl.log(product)
                        product = zero + 1.0
                if POOLED:
                    p *= weight
                    if CROSS_ENTROPY:
                        p = tl.where(exists, tl.where(p < OFFSET, OFFSET, p), 0.0)
                    pooled_p, pooled_y, poison = _pool_rows(p, is_label, pooled_p, pooled_y, poison, WINDOWS)
            if CROSS_ENTROPY:
                own, largest, total = new_own, new_largest, new_total
            if POOLED:
                window_p, window_y = _pool_columns(pooled_p, pooled_y, poison, WINDOWS, SIDE, CELLS)
                if not CROSS_ENTROPY:
                    window_p += offset
                tl.store(pooled.probabilities + at, window_p, mask=is_pooled)
                tl.store(pooled.labels + at, window_y, mask=is_pooled)
                at += pooled.height * pooled.width
            plane += batch.stride_c
        if not CROSS_ENTROPY:
            terms = (linear + tl.log(product)).to(tl.float64)
            pixel += terms * tl.load(batch.class_weights + start) if batch.class_weights is not None else terms
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
        _e, _r, p = exact_sigmoid(read_logits(plane, rows, columns, counts, READING))
        p *= counts.to(READING.wide)
        if CLAMP:
            p = tl.where(p < OFFSET, OFFSET, p)
        else:
            p += OFFSET
        p *= (1.0 - down) if i < 2 else down
        value += p * ((1.0 - along) if i % 2 == 0 else along)
    at = (n * batch.classes + c) * pooled.height * pooled.width + cell
    tl.store(pooled.probabilities + at, value, mask=exists)
