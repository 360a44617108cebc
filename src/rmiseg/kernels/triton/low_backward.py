"""The backward pass for logits below label resolution: the gradient of the interpolation within that of the loss."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import triton
import triton.language as tl

from rmiseg.kernels.triton.arguments import Bands, Batch, Gradient, Pooled
from rmiseg.kernels.triton.pixels_backward import pixel_gradient, share
from rmiseg.kernels.triton.reading import ABSENT, column_places, each_row, pixel_weight, read_along, read_label


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
def _pooled_of_row(y, pooled, height, columns, in_row, READING: tl.constexpr, WINDOWS: tl.constexpr):
    """Place in a map, share and place in the window of a row of pixels; `columns` is what `share` gave."""
    column, share_x, place_x = columns
    row, share_y, place_y = share(y, height, pooled.height, READING, WINDOWS)
    mask = in_row & (share_y > 0) & (share_x > 0)
    return row * pooled.width + column, mask, share_y * share_x, place_y * WINDOWS.size + place_x


@triton.jit
def _through_pooled(of_row, of_class, pooled, WINDOWS: tl.constexpr):
    """Gradient in the probabilities of a class's row of pixels, through the pooled ones."""
    place, mask, own_share, place_in_window = of_row
    through = tl.load(pooled.gradient + of_class + place, mask=mask, other=0.0) * own_share
    if WINDOWS.pool == "max":
        taken = tl.load(pooled.argmax + of_class + place, mask=mask, other=-1)
        through = tl.where(taken == place_in_window, through, 0.0)
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
    CLASSES: tl.constexpr,
):
    """Gradient in ROWS rows and COLUMNS - 1 columns of small logits of CLASSES classes, for which it reads labels once.

    Interval k holds the full-size rows between small rows k and k + 1, -1 and the last those beyond them; so with
    columns. A program walks down the intervals that touch its rows. Lanes are COLUMNS intervals of at most RUN pixels.
    Where classes are no multiple of CLASSES, the last one is computed more than once.
    """
    WIDE: tl.constexpr = READING.wide
    first = (tl.program_id(0) % bands.packs) * CLASSES
    block = tl.program_id(0) // bands.packs % bands.blocks
    band = tl.program_id(0) // bands.packs // bands.blocks % bands.bands
    n = (tl.program_id(0) // bands.packs // bands.blocks // bands.bands).to(tl.int64)
    upstream = tl.load(gradient.pixel + n).to(WIDE)

    lane = tl.arange(0, COLUMNS * RUN)
    interval = block * (COLUMNS - 1) - 1 + lane // RUN
    x = _interval(interval, batch.low_width, batch.width, READING) + lane % RUN
    in_row = (x < _interval(interval + 1, batch.low_width, batch.width, READING)) & (interval < batch.low_width)
    left, right, along = column_places(batch, x, READING)
    # Before the first column and after the last, all is theirs. Pixels before the first are interval -1's, whose second
    # column is the first.
    to_right = tl.where(interval < 0, 1.0, tl.where(interval >= batch.low_width - 1, 0.0, along))
    columns = share(x, batch.width, pooled.width, READING, WINDOWS)
    number = tl.arange(0, COLUMNS)
    before = number[None, :] == number[:, None] - 1
    out_column = block * (COLUMNS - 1) - 1 + number
    writes = (number > 0) & (out_column < batch.low_width)
    zero = tl.zeros([COLUMNS * RUN], WIDE)

    # Of each class: its number, logits, gradient, pooled map, and the gradients in its sums.
    classes, planes, outs, of_classes, grads_pixel, grads_rmi = (), (), (), (), (), ()
    for i in tl.static_range(CLASSES):
        c = tl.minimum(first + i, batch.classes - 1)
        wide_c = c.to(tl.int64)
        classes = classes + (c,)
        planes = planes + (batch.logits + n * batch.stride_n + wide_c * batch.stride_c,)
        outs = outs + (gradient.out + n * gradient.stride_n + wide_c * gradient.stride_c,)
        of_classes = of_classes + ((n * batch.classes + c) * pooled.height * pooled.width,)
        grad_pixel, grad_rmi = upstream, upstream
        if batch.class_weights is not None and not CROSS_ENTROPY:
            grad_pixel *= tl.load(batch.class_weights + c).to(WIDE)
        if WINDOWS.pool != "none":
            grad_rmi = tl.load(pooled.upstream + n * batch.classes + c).to(WIDE)
        grads_pixel, grads_rmi = grads_pixel + (grad_pixel,), grads_rmi + (grad_rmi,)

    top_row = band * ROWS
    stop_row = tl.minimum(top_row + ROWS, batch.low_height)
    # Row y is at (multiple * y + shift) / denominator of the small rows.
    if READING.upsample == "corners":
        multiple, shift, denominator = batch.low_height - 1, 0, tl.maximum(batch.height - 1, 1)
    else:
        multiple, shift, denominator = 2 * batch.low_height, batch.low_height - batch.height, 2 * batch.height
    step = 1.0 / tl.cast(denominator, WIDE)
    carried = each_row(zero, CLASSES)  # what a row takes from the interval above it
    for k in range(top_row - 1, stop_row):
        above = tl.maximum(k, 0)
        upper_row = tl.cast(above, tl.int64) * batch.stride_h
        lower_row = tl.cast(tl.minimum(above + 1, batch.low_height - 1), tl.int64) * batch.stride_h
        upper, lower = (), ()
        for i in tl.static_range(CLASSES):
            upper = upper + (read_along(planes[i] + upper_row, left, right, along, in_row, READING),)
            lower = lower + (read_along(planes[i] + lower_row, left, right, along, in_row, READING),)
        to_next = each_row(zero, CLASSES)
        # Not carried from one row to the next: Triton 3.6 would take the first row's start for all.
        y_start = _interval(k, batch.low_height, batch.height, READING)
        for line in range(y_start, _interval(k + 1, batch.low_height, batch.height, READING)):
            y = line + lane * 0
            away = tl.cast(line, READING.whole) * multiple + shift - tl.cast(k, READING.whole) * denominator
            down = tl.where(k < 0, 0.0, tl.cast(away, WIDE) * step)
            to_lower = tl.where(k < 0, 1.0, tl.where(k >= batch.low_height - 1, 0.0, down))
            label = read_label(batch, n, y, x, in_row)
            log_sum, pixel_weights = zero, 1.0
            if CROSS_ENTROPY:
                log_sum = tl.load(log_sums + (n * batch.height + y) * batch.width + x, mask=label >= 0, other=0.0)
                if batch.class_weights is not None:
                    pixel_weights = pixel_weight(batch, label, WIDE)
            of_row = _pooled_of_row(y, pooled, batch.height, columns, in_row, READING, WINDOWS)
            new_carried, new_to_next = (), ()
            for i in tl.static_range(CLASSES):
                v = tl.where(label >= 0, (1 - down) * upper[i] + down * lower[i], ABSENT)
                through = zero
                if WINDOWS.pool != "none":
                    through = _through_pooled(of_row, of_classes[i], pooled, WINDOWS) * grads_rmi[i]
                direct = grads_pixel[i] * pixel_weights
                grad = pixel_gradient(v, label, classes[i], direct, log_sum, through, WINDOWS, CROSS_ENTROPY)
                new_carried = new_carried + (carried[i] + (1 - to_lower) * grad,)
                new_to_next = new_to_next + (to_next[i] + to_lower * grad,)
            carried, to_next = new_carried, new_to_next
        to_row = tl.cast(above, tl.int64) * gradient.stride_h + out_column.to(tl.int64) * gradient.stride_w
        mask = writes & (number * 0 + k >= top_row)
        for i in tl.static_range(CLASSES):
            own = _sum_columns(carried[i], to_right, before, COLUMNS, RUN)
            tl.store(outs[i] + to_row, own.to(gradient.out.dtype.element_ty), mask=mask)
        carried = to_next
