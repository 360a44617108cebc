"""The backward pass: the gradient in the logits, from those in the pixel loss and in the pooled probabilities."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import triton
import triton.language as tl

from rmiseg.kernels.triton.arguments import Batch, Gradient, Pooled, Tiles
from rmiseg.kernels.triton.reading import (
    LOG2_E,
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
)


@triton.jit
def argmax_kernel(
    batch: Batch,
    pooled: Pooled,  # its argmax is written
    tiles: Tiles,
    READING: tl.constexpr,  # Reading
    WINDOWS: tl.constexpr,  # Windows
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
):
    """The place in each window of its first largest probability: that takes the gradient."""
    LANES: tl.constexpr = CELLS * SIDE
    SIZE: tl.constexpr = WINDOWS.size
    first, tile, n = program_of_tile(tiles)
    x, top, in_row = lanes_of_tile(tile, batch.width, tiles, WINDOWS, SIDE, CELLS)
    columns = column_places(batch, x, READING)
    rows, counts = (), ()
    for dy in tl.static_range(SIZE):
        y = top + dy
        rows = rows + (row_places(batch, y, READING),)
        exists = in_row & (y >= 0) & (y < batch.height)
        counts = counts + (exists & (read_label(batch, n, y, x, exists) >= 0),)
    cell = tile * CELLS + tl.arange(0, CELLS)
    row, column = cell // tiles.grid_width, cell % tiles.grid_width
    at = (n * batch.classes + first) * pooled.height * pooled.width + row * pooled.width + column
    plane = batch.logits + n * batch.stride_n + first.to(tl.int64) * batch.stride_c
    for _ in range(first, tl.minimum(first + tiles.group, batch.classes)):
        # Of logits, which are in the order of their probabilities, and not as near to each other.
        best = tl.full([LANES], LOWEST, READING.wide)
        place = tl.full([LANES], SIZE * SIZE, tl.int32)
        for dy in tl.static_range(SIZE):
            exists = in_row & (top + dy >= 0) & (top + dy < batch.height)
            v = read_logits(plane, rows[dy], columns, counts[dy], READING).to(READING.wide)
            v = tl.where(exists, v, LOWEST)
            place = tl.where(v > best, dy * SIZE + tl.arange(0, LANES) % SIDE, place)
            best = tl.where(v > best, v, best)
        best = tl.reshape(best, [CELLS, SIDE])
        place = tl.reshape(place, [CELLS, SIDE])
        place = tl.min(tl.where(best == tl.max(best, axis=1)[:, None], place, SIZE * SIZE), axis=1)
        tl.store(pooled.argmax + at, place, mask=(row < pooled.height) & (column < pooled.width))
        at += pooled.height * pooled.width
        plane += batch.stride_c


@triton.jit
def log_sum_exp_kernel(
    batch: Batch,
    log_sums,  # (N, H, W) float32 or float64, written
    blocks,
    READING: tl.constexpr,  # Reading
    LANES: tl.constexpr,
):
    """Logarithm of the sum over classes of exponentials, of each pixel."""
    pixel = (tl.program_id(0) % blocks) * LANES + tl.arange(0, LANES)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    exists = pixel < batch.height * batch.width
    rows = row_places(batch, pixel // batch.width, READING)
    columns = column_places(batch, pixel % batch.width, READING)
    plane = batch.logits + n * batch.stride_n
    largest = tl.full([LANES], LOWEST, READING.wide)
    total = tl.zeros([LANES], READING.wide)
    for _ in range(batch.classes):
        v = read_logits(plane, rows, columns, exists, READING).to(READING.wide)
        largest, total = add_exponential(v, largest, total)
        plane += batch.stride_c
    tl.store(log_sums + n * batch.height * batch.width + pixel, largest + tl.log(total), mask=exists)


@triton.jit
def share(position, size, pooled_size, READING: tl.constexpr, WINDOWS: tl.constexpr):
    """Along one axis: which pooled value takes from a pixel, with which weight, and the pixel's place in its window."""
    if WINDOWS.pool == "interp":
        # Two resized values are at least two pixels apart: none but the nearest can have taken from this pixel.
        last = tl.maximum(size - 1, 1)
        scaled = position.to(READING.whole) * (pooled_size - 1)
        index = (2 * scaled + last) // (2 * last)
        away = tl.abs(scaled - index * last).to(READING.wide) / tl.cast(tl.maximum(pooled_size - 1, 1), READING.wide)
        # A single row or column is taken from the first.
        away = tl.where(pooled_size > 1, away, position.to(READING.wide))
        share = tl.where(away < 1, 1.0 - away, 0.0)
        place = position * 0
    else:
        index = (position + WINDOWS.padding) // WINDOWS.size
        share = (index < pooled_size).to(READING.wide)
        if WINDOWS.pool == "avg":
            share *= 1.0 / WINDOWS.size  # not in tl.where, whose constants are float32
        place = position + WINDOWS.padding - index * WINDOWS.size
    return index, share, place


@triton.jit
def pixel_gradient(v, label, c, grad_pixel, log_sum, through, WINDOWS: tl.constexpr, CROSS_ENTROPY: tl.constexpr):
    """Gradient in full-size logits `v` of class `c`, given that in their probability through the pooled ones.

    Nothing is masked where no label counts: the gradient in the logit `ABSENT` is 0, unless something is not finite,
    which stays so.
    """
    e, r, p = exact_sigmoid(v)
    is_label = label == c
    if CROSS_ENTROPY:
        # A pixel that does not count has the weight 0, and no sum to compare with.
        direct = tl.exp2((v - log_sum) * LOG2_E) - is_label.to(v.dtype)
        out = direct * grad_pixel * (label >= 0).to(v.dtype)
    else:
        # Probability minus label, without cancellation where the pixel is certain.
        out = tl.where((v >= 0) != is_label, r, e * r) * tl.where(is_label, -grad_pixel, grad_pixel)
    if WINDOWS.pool != "none":
        slope = e * r * r
        if CROSS_ENTROPY:
            slope = tl.where(p < OFFSET, 0.0, slope)  # the gradient of clamping
        out += through * slope
    return out


@triton.jit
def _log_sums_of_rows(
    batch, plane, rows, columns, labels, READING: tl.constexpr, LANES: tl.constexpr, SIZE: tl.constexpr
):
    """Logarithm of the sum over all classes of exponentials, of each row of windows of full-size logits."""
    zero = tl.zeros([LANES], READING.wide)
    largest, total = each_row(zero + LOWEST, SIZE), each_row(zero, SIZE)
    for _ in range(batch.classes):
        values = read_rows(plane, rows, columns, labels, None, READING, SIZE)
        new_largest, new_total = (), ()
        for dy in tl.static_range(SIZE):
            more_largest, more_total = add_exponential(values[dy].to(READING.wide), largest[dy], total[dy])
            new_largest, new_total = new_largest + (more_largest,), new_total + (more_total,)
        largest, total = new_largest, new_total
        plane += batch.stride_c
    log_sums = ()
    for dy in tl.static_range(SIZE):
        log_sums = log_sums + (largest[dy] + tl.log(total[dy]),)
    return log_sums


@triton.jit
def backward_kernel(
    batch: Batch,
    pooled: Pooled,  # its gradient and upstream are read, and its argmax if pooling is "max"
    gradient: Gradient,
    tiles: Tiles,
    READING: tl.constexpr,  # Reading
    WINDOWS: tl.constexpr,  # Windows
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
    CROSS_ENTROPY: tl.constexpr,
    AHEAD: tl.constexpr,  # logits of the next class are on their way while one is worked on
):
    """Gradient in full-size logits, of a tile of windows and a group of classes."""
    LANES: tl.constexpr = CELLS * SIDE
    WIDE: tl.constexpr = READING.wide
    SIZE: tl.constexpr = WINDOWS.size
    POOL: tl.constexpr = WINDOWS.pool
    first, tile, n = program_of_tile(tiles)
    x, top, in_row = lanes_of_tile(tile, batch.width, tiles, WINDOWS, SIDE, CELLS)
    upstream = tl.load(gradient.pixel + n).to(WIDE)
    plane = batch.logits + n * batch.stride_n + first.to(tl.int64) * batch.stride_c
    out = gradient.out + n * gradient.stride_n + first.to(tl.int64) * gradient.stride_c
    of_class = (n * batch.classes + first) * pooled.height * pooled.width
    zero = tl.zeros([LANES], WIDE)
    columns = column_places(batch, x, READING)
    out_column = x.to(READING.offset) * tl.cast(gradient.stride_w, READING.offset)
    rows, out_rows, own_labels, upstreams = (), (), (), ()
    for dy in tl.static_range(SIZE):
        y = top + dy
        rows = rows + (row_places(batch, y, READING),)
        out_rows = out_rows + (y.to(READING.offset) * tl.cast(gradient.stride_h, READING.offset),)
        label = read_label(batch, n, y, x, in_row & (y >= 0) & (y < batch.height))
        own_labels = own_labels + (label,)
        if CROSS_ENTROPY and batch.class_weights is not None:
            upstreams = upstreams + (upstream * pixel_weight(batch, label, WIDE),)
        else:
            upstreams = upstreams + (upstream,)
    if CROSS_ENTROPY:
        # All classes are in this group. What is read here is mostly still in the cache below.
        log_sums = _log_sums_of_rows(batch, plane, rows, columns, own_labels, READING, LANES, SIZE)
    else:
        log_sums = each_row(zero, SIZE)
    column, share_x, place_x = share(x, batch.width, pooled.width, READING, WINDOWS)
    # The row of windows, the same for all rows of pixels; "interp" has one for each.
    row, share_y, _y = share(top, batch.height, pooled.height, READING, WINDOWS)

    last = tl.minimum(first + tiles.group, batch.classes)
    # What a window takes from its class is read as the logits are: before the first store, since the compiler cannot
    # know that they do not overlap, and, if AHEAD, while the class before is worked on.
    window = of_class + row * pooled.width + column
    in_window = in_row & (share_y > 0) & (share_x > 0)
    if AHEAD:
        ahead = read_rows(plane, rows, columns, own_labels, None, READING, SIZE)
        window_ahead = _read_window(pooled, window, in_window, POOL)
    if POOL != "none":
        of_map = pooled.upstream + n * batch.classes + first
    for c in range(first, last):
        if AHEAD:
            values = ahead
            grad_window, taken = window_ahead
            plane += batch.stride_c
            window += pooled.height * pooled.width
            ahead = read_rows(plane, rows, columns, own_labels, last - c - 1, READING, SIZE)
            window_ahead = _read_window(pooled, window, in_window & (window * 0 < last - c - 1), POOL)
        else:
            values = read_rows(plane, rows, columns, own_labels, None, READING, SIZE)
            grad_window, taken = _read_window(pooled, window, in_window, POOL)
            plane += batch.stride_c
            window += pooled.height * pooled.width
        if POOL != "none":
            grad_rmi = tl.load(of_map).to(WIDE)
            of_map += 1
        if POOL == "avg":
            grad_window *= grad_rmi * (share_y * share_x)
        elif POOL == "max":
            grad_window *= grad_rmi
        if batch.class_weights is not None and not CROSS_ENTROPY:
            weight_of_class = tl.load(batch.class_weights + c).to(WIDE)
        grads = ()
        for dy in tl.static_range(SIZE):
            y = top + dy
            if POOL == "avg":
                through = grad_window
            elif POOL == "max":
                through = tl.where(taken == dy * SIZE + place_x, grad_window, 0.0)
            elif POOL == "interp":
                own_row, own_share, _y = share(y, batch.height, pooled.height, READING, WINDOWS)
                mask = in_row & (y >= 0) & (y < batch.height) & (own_share > 0) & (share_x > 0)
                at = pooled.gradient + of_class + own_row * pooled.width + column
                through = tl.load(at, mask=mask, other=0.0) * (own_share * share_x) * grad_rmi
            else:
                through = zero
            grad_pixel = upstreams[dy]
            if batch.class_weights is not None and not CROSS_ENTROPY:
                grad_pixel *= weight_of_class
            log_sum, label, v = log_sums[dy], own_labels[dy], values[dy].to(WIDE)
            grads = grads + (pixel_gradient(v, label, c, grad_pixel, log_sum, through, WINDOWS, CROSS_ENTROPY),)
        for dy in tl.static_range(SIZE):
            exists = in_row & (top + dy >= 0) & (top + dy < batch.height)
            to = out + (out_rows[dy] + out_column)
            tl.store(to, grads[dy].to(gradient.out.dtype.element_ty), mask=exists)
        of_class += pooled.height * pooled.width
        out += gradient.stride_c


@triton.jit
def _read_window(pooled, window, in_window, POOL: tl.constexpr):
    """Gradient in the pooled value of each lane's window, and the place of its maximum; 0 where neither is needed."""
    grad_window, taken = 0.0, 0
    if POOL == "avg" or POOL == "max":
        grad_window = tl.load(pooled.gradient + window, mask=in_window, other=0.0)
    if POOL == "max":
        taken = tl.load(pooled.argmax + window, mask=in_window, other=-1)
    return grad_window, taken
