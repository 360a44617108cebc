"""The backward pass: the gradient in the logits, from those in the pixel loss and in the pooled probabilities."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import triton
import triton.language as tl

from rmiseg.kernels.triton.arguments import Bands, Batch, Gradient, Pooled, Tiles
from rmiseg.kernels.triton.reading import (
    ABSENT,
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
    read_along,
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
        best = tl.full([LANES], -1.0, READING.wide)
        place = tl.full([LANES], SIZE * SIZE, tl.int32)
        for dy in tl.static_range(SIZE):
            exists = in_row & (top + dy >= 0) & (top + dy < batch.height)
            _e, _r, p = exact_sigmoid(read_logits(plane, rows[dy], columns, counts[dy], READING))
            p = tl.where(exists, p, -1.0)
            place = tl.where(p > best, dy * SIZE + tl.arange(0, LANES) % SIDE, place)
            best = tl.where(p > best, p, best)
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
        largest, total = add_exponential(read_logits(plane, rows, columns, exists, READING), largest, total)
        plane += batch.stride_c
    tl.store(log_sums + n * batch.height * batch.width + pixel, largest + tl.log(total), mask=exists)


@triton.jit
def _share(position, size, pooled_size, READING: tl.constexpr, WINDOWS: tl.constexpr):
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
def _pixel_gradient(v, label, c, grad_pixel, log_sum, through, WINDOWS: tl.constexpr, CROSS_ENTROPY: tl.constexpr):
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
    column, share_x, place_x = _share(x, batch.width, pooled.width, READING, WINDOWS)
    # The row of windows, the same for all rows of pixels; "interp" has one for each.
    row, share_y, _y = _share(top, batch.height, pooled.height, READING, WINDOWS)

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
                own_row, own_share, _y = _share(y, batch.height, pooled.height, READING, WINDOWS)
                mask = in_row & (y >= 0) & (y < batch.height) & (own_share > 0) & (share_x > 0)
                at = pooled.gradient + of_class + own_row * pooled.width + column
                through = tl.load(at, mask=mask, other=0.0) * (own_share * share_x) * grad_rmi
            else:
                through = zero
            grad_pixel = upstreams[dy]
            if batch.class_weights is not None and not CROSS_ENTROPY:
                grad_pixel *= weight_of_class
            log_sum, label, v = log_sums[dy], own_labels[dy], values[dy].to(WIDE)
            grads = grads + (_pixel_gradient(v, label, c, grad_pixel, log_sum, through, WINDOWS, CROSS_ENTROPY),)
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


@triton.jit
def _interval(k, low_size, size, READING: tl.constexpr):
    """The first pixel at or after small pixel number `k`, from -1 to the size."""
    if READING.upsample == "corners":
        numerator = tl.cast(k, READING.whole) * (size - 1)
        denominator = low_size - 1
        alone = tl.where(k > 0, size, 0)  # a single small pixel is everybody's
    else:
        numerator = (2 * tl.cast(k, READING.whole) + 1) * size - low_size
        denominator = 2 * low_size
        alone = 0
    # Rounded up; what is not positive is the first pixel.
    start = (tl.maximum(numerator, 0) + denominator - 1) // tl.maximum(denominator, 1)
    return tl.cast(tl.minimum(tl.where(denominator > 0, start, alone), size), tl.int32)


@triton.jit
def _through_pooled(pooled, of_class, y, height, columns, in_row, READING: tl.constexpr, WINDOWS: tl.constexpr):
    """Gradient in the probabilities of one row of pixels, through the pooled ones; `columns` is what `_share` gave."""
    column, share_x, place_x = columns
    row, share_y, place_y = _share(y, height, pooled.height, READING, WINDOWS)
    mask = in_row & (share_y > 0) & (share_x > 0)
    at = of_class + row * pooled.width + column
    through = tl.load(pooled.gradient + at, mask=mask, other=0.0) * (share_y * share_x)
    if WINDOWS.pool == "max":
        taken = tl.load(pooled.argmax + at, mask=mask, other=-1)
        through = tl.where(taken == place_y * WINDOWS.size + place_x, through, 0.0)
    return through


@triton.jit
def _sum_columns(grad, to_right, before, COLUMNS: tl.constexpr, RUN: tl.constexpr):
    """Gradient in small columns (COLUMNS,), from that in pixels (COLUMNS * RUN,), which have a left and a right one.

    A column takes what goes to the right from the interval before its own: `before` (COLUMNS, COLUMNS) says which.
    """
    own = tl.sum(tl.reshape((1 - to_right) * grad, [COLUMNS, RUN]), axis=1)
    others = tl.sum(tl.reshape(to_right * grad, [COLUMNS, RUN]), axis=1)
    own += tl.sum(tl.where(before, others[None, :], 0.0), axis=1)
    return own


@triton.jit
def low_backward_kernel(
    batch: Batch,
    pooled: Pooled,  # its gradient and upstream are read, and its argmax if pooling is "max"
    gradient: Gradient,
    log_sums,  # (N, H, W) float32 or float64, if the pixel loss is cross entropy
    bands: Bands,
    READING: tl.constexpr,  # Reading
    WINDOWS: tl.constexpr,  # Windows
    CROSS_ENTROPY: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RUN: tl.constexpr,
):
    """Gradient in ROWS rows and COLUMNS - 1 columns of small logits, of a group of classes.

    Interval k holds the full-size rows between small rows k and k + 1, -1 and the last those beyond them; so with
    columns. A program walks down the intervals that touch its rows. Lanes are COLUMNS intervals of at most RUN pixels.
    """
    WIDE: tl.constexpr = READING.wide
    first = (tl.program_id(0) % bands.groups) * bands.group
    block = tl.program_id(0) // bands.groups % bands.blocks
    band = tl.program_id(0) // bands.groups // bands.blocks % bands.bands
    n = (tl.program_id(0) // bands.groups // bands.blocks // bands.bands).to(tl.int64)
    upstream = tl.load(gradient.pixel + n).to(WIDE)

    lane = tl.arange(0, COLUMNS * RUN)
    interval = block * (COLUMNS - 1) - 1 + lane // RUN
    x = _interval(interval, batch.low_width, batch.width, READING) + lane % RUN
    in_row = (x < _interval(interval + 1, batch.low_width, batch.width, READING)) & (interval < batch.low_width)
    left, right, along = column_places(batch, x, READING)
    # Before the first column and after the last, all is theirs. Pixels before the first are interval -1's, whose second
    # column is the first.
    to_right = tl.where(interval < 0, 1.0, tl.where(interval >= batch.low_width - 1, 0.0, along))
    columns = _share(x, batch.width, pooled.width, READING, WINDOWS)
    number = tl.arange(0, COLUMNS)
    before = number[None, :] == number[:, None] - 1
    out_column = block * (COLUMNS - 1) - 1 + number
    writes = (number > 0) & (out_column < batch.low_width)

    plane = batch.logits + n * batch.stride_n + first.to(tl.int64) * batch.stride_c
    out = gradient.out + n * gradient.stride_n + first.to(tl.int64) * gradient.stride_c
    of_class = (n * batch.classes + first) * pooled.height * pooled.width
    top_row = band * ROWS
    stop_row = tl.minimum(top_row + ROWS, batch.low_height)
    # Row y is at (multiple * y + shift) / denominator of the small rows.
    if READING.upsample == "corners":
        multiple, shift, denominator = batch.low_height - 1, 0, tl.maximum(batch.height - 1, 1)
    else:
        multiple, shift, denominator = 2 * batch.low_height, batch.low_height - batch.height, 2 * batch.height
    step = 1.0 / tl.cast(denominator, WIDE)
    zero = tl.zeros([COLUMNS * RUN], WIDE)
    for c in range(first, tl.minimum(first + bands.group, batch.classes)):
        carried = zero  # what a row takes from the interval above it
        if WINDOWS.pool != "none":
            grad_rmi = tl.load(pooled.upstream + n * batch.classes + c).to(WIDE)
        for k in range(top_row - 1, stop_row):
            above = tl.maximum(k, 0)
            upper_row = plane + tl.cast(above, tl.int64) * batch.stride_h
            lower_row = plane + tl.cast(tl.minimum(above + 1, batch.low_height - 1), tl.int64) * batch.stride_h
            upper = read_along(upper_row, left, right, along, in_row, READING)
            lower = read_along(lower_row, left, right, along, in_row, READING)
            to_next = zero
            # Not carried from one row to the next: Triton 3.6 would take the first row's start for all.
            y_start = _interval(k, batch.low_height, batch.height, READING)
            for line in range(y_start, _interval(k + 1, batch.low_height, batch.height, READING)):
                y = line + lane * 0
                away = tl.cast(line, READING.whole) * multiple + shift - tl.cast(k, READING.whole) * denominator
                down = tl.where(k < 0, 0.0, tl.cast(away, WIDE) * step)
                label = read_label(batch, n, y, x, in_row)
                v = tl.where(label >= 0, (1 - down) * upper + down * lower, ABSENT)
                log_sum, through, grad_pixel = zero, zero, upstream
                if CROSS_ENTROPY:
                    log_sum = tl.load(log_sums + (n * batch.height + y) * batch.width + x, mask=label >= 0, other=0.0)
                if WINDOWS.pool != "none":
                    through = _through_pooled(pooled, of_class, y, batch.height, columns, in_row, READING, WINDOWS)
                    through *= grad_rmi
                if batch.class_weights is not None and CROSS_ENTROPY:
                    grad_pixel *= pixel_weight(batch, label, WIDE)
                elif batch.class_weights is not None:
                    grad_pixel *= tl.load(batch.class_weights + c).to(WIDE)
                grad = _pixel_gradient(v, label, c, grad_pixel, log_sum, through, WINDOWS, CROSS_ENTROPY)
                to_lower = tl.where(k < 0, 1.0, tl.where(k >= batch.low_height - 1, 0.0, down))
                carried += (1 - to_lower) * grad
                to_next += to_lower * grad
            own = _sum_columns(carried, to_right, before, COLUMNS, RUN)
            to_row = out + tl.cast(above, tl.int64) * gradient.stride_h
            mask = writes & (number * 0 + k >= top_row)
            to = to_row + out_column.to(tl.int64) * gradient.stride_w
            tl.store(to, own.to(gradient.out.dtype.element_ty), mask=mask)
            carried = to_next
        plane += batch.stride_c
        out += gradient.stride_c
        of_class += pooled.height * pooled.width
