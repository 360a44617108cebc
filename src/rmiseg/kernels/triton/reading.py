"""Reading labels and logits: a kernel that checks labels, and what the kernels of both passes share."""
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import math

import triton
import triton.language as tl

from rmiseg.functional import PROBABILITY_OFFSET

OFFSET = tl.constexpr(PROBABILITY_OFFSET)

LOWEST = tl.constexpr(-3.0e38)

ABSENT = tl.constexpr(-1.0e4)
"""The logit of what does not count: its sigmoid is 0, and so is its binary cross entropy as another class's pixel."""

LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def lanes_of_tile(tile, width, tiles, WINDOWS: tl.constexpr, SIDE: tl.constexpr, CELLS: tl.constexpr):
    """A tile of CELLS windows, SIDE lanes each: column of the lane's pixels, first row, whether they exist so far.

    Everything is one-dimensional, and rows of the windows are unrolled: neighboring lanes read neighboring pixels, and
    no values change hands between threads but in the sums over windows.
    """
    lane = tl.arange(0, CELLS * SIDE)
    cell = tile * CELLS + lane // SIDE
    x = (cell % tiles.grid_width) * WINDOWS.size + lane % SIDE - WINDOWS.padding
    y = (cell // tiles.grid_width) * WINDOWS.size - WINDOWS.padding
    return x, y, (cell < tiles.cells) & (lane % SIDE < WINDOWS.size) & (x >= 0) & (x < width)


@triton.jit
def program_of_tile(tiles):
    """First class, tile and sample (int64) of this program. Groups of a tile are neighbors: its labels are cached."""
    first = (tl.program_id(0) % tiles.groups) * tiles.group
    tile = (tl.program_id(0) // tiles.groups) % tiles.tiles
    return first, tile, (tl.program_id(0) // tiles.groups // tiles.tiles).to(tl.int64)


@triton.jit
def each_row(value, SIZE: tl.constexpr):
    """The same value for every row of a window."""
    values = ()
    for _ in tl.static_range(SIZE):
        values = values + (value,)
    return values


@triton.jit
def read_label(batch, n, y, x, exists):
    """Class of each pixel, int32, -1 where it is not valid."""
    pixel = (n * batch.height + y) * batch.width + x  # n is int64
    is_valid = tl.load(batch.valid + pixel, mask=exists, other=0) != 0
    return tl.where(is_valid, tl.load(batch.target + pixel, mask=exists, other=0).to(tl.int32), -1)


@triton.jit
def labels_kernel(
    target,  # (N, pixels) int64
    valid,  # (N, pixels) uint8, written
    tallies,  # (N, blocks, 2) int32, written: pixels that count, and those whose label is unknown
    pixels,
    blocks,
    classes,
    IGNORED: tl.constexpr,  # labels
    COUNT: tl.constexpr,  # of them
    LANES: tl.constexpr,
):
    """Valid pixels of a block of one sample, and how many are valid or unknown."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = (tl.program_id(0) % blocks) * LANES + tl.arange(0, LANES)
    exists = pixel < pixels
    label = tl.load(target + n * pixels + pixel, mask=exists, other=0)
    is_ignored = label != label
    for i in tl.static_range(COUNT):
        is_ignored |= label == IGNORED[i]
    is_class = (label >= 0) & (label < classes)
    counts = exists & is_class & (is_ignored == 0)
    unknown = exists & (is_class == 0) & (is_ignored == 0)
    tl.store(valid + n * pixels + pixel, counts.to(tl.uint8), mask=exists)
    at = tallies + tl.program_id(0).to(tl.int64) * 2
    tl.store(at, tl.sum(counts.to(tl.int32), axis=0))
    tl.store(at + 1, tl.sum(unknown.to(tl.int32), axis=0))


@triton.jit
def pixel_weight(batch, label, WIDE: tl.constexpr):
    """The weight of each pixel's class, 0 where it is not valid."""
    weight = (label >= 0).to(WIDE)
    if batch.class_weights is not None:
        mask = (label >= 0) & (label < batch.classes)
        weight = tl.load(batch.class_weights + label, mask=mask, other=0.0).to(WIDE)
    return weight


@triton.jit
def source_pixels(position, low_size, size, CORNERS: tl.constexpr, READING: tl.constexpr):
    """The two pixels that a position is interpolated from, and the weight of the second, in whole numbers up to there.

    As F.interpolate defines it, without its rounding.
    """
    position = position.to(READING.whole)
    if CORNERS:
        numerator = position * (low_size - 1)
        denominator = tl.maximum(size - 1, 1)
    else:
        numerator = (2 * position + 1) * low_size - size
        denominator = 2 * size
    numerator = tl.maximum(numerator, 0)
    first = tl.minimum(numerator // denominator, low_size - 1)
    second = tl.minimum(first + 1, low_size - 1)
    return first, second, (numerator - first * denominator).to(READING.wide) / tl.cast(denominator, READING.wide)


@triton.jit
def axis_places(position, stride, low_size, size, READING: tl.constexpr):
    """Places of pixels along one axis: offset, or both offsets and the weight of the second."""
    if READING.upsample == "none":
        place = (position.to(READING.offset) * tl.cast(stride, READING.offset),)
    else:
        CORNERS: tl.constexpr = READING.upsample == "corners"
        first, second, weight = source_pixels(position, low_size, size, CORNERS, READING)
        step = tl.cast(stride, READING.offset)
        place = (first.to(READING.offset) * step, second.to(READING.offset) * step, weight)
    return place


@triton.jit
def row_places(batch, y, READING: tl.constexpr):
    """`axis_places` of rows."""
    return axis_places(y, batch.stride_h, batch.low_height, batch.height, READING)


@triton.jit
def column_places(batch, x, READING: tl.constexpr):
    """`axis_places` of columns."""
    return axis_places(x, batch.stride_w, batch.low_width, batch.width, READING)


@triton.jit
def read_along(row, left, right, along, exists, READING: tl.constexpr):
    """Logits of a row of small ones, interpolated between two columns."""
    value = (1 - along) * tl.load(row + left, mask=exists, other=0.0).to(READING.wide)
    value += along * tl.load(row + right, mask=exists, other=0.0).to(READING.wide)
    return value


@triton.jit
def read_logits(plane, rows, columns, exists, READING: tl.constexpr):
    """Full-size logits of one class, `plane` (h, w), at what `axis_places` returned; `ABSENT` where none exists.

    Those of full size are as they are stored: nothing waits for them, so that they can be on their way while those of
    another class are worked on.
    """
    if READING.upsample == "none":
        value = tl.load(plane + (rows[0] + columns[0]), mask=exists, other=ABSENT)
    else:
        upper = read_along(plane + rows[0], columns[0], columns[1], columns[2], exists, READING)
        lower = read_along(plane + rows[1], columns[0], columns[1], columns[2], exists, READING)
        value = tl.where(exists, (1 - rows[2]) * upper + rows[2] * lower, ABSENT)
    return value


@triton.jit
def read_rows(plane, rows, columns, labels, left, READING: tl.constexpr, SIZE: tl.constexpr):
    """`read_logits` of SIZE rows, where their labels count; none if `left` is a number, not None, and 0."""
    values = ()
    for dy in tl.static_range(SIZE):
        mask = labels[dy] >= 0
        if left is not None:
            mask &= labels[dy] * 0 < left
        values = values + (read_logits(plane, rows[dy], columns, mask, READING),)
    return values


@triton.jit
def exact_sigmoid(v):
    """exp(-|v|), 1 / (1 + exp(-|v|)), and the sigmoid: exact in both tails.

    Powers of two and inverse roots are single instructions; exponentials and quotients are five and six.
    """
    e = tl.exp2(tl.abs(v) * -LOG2_E)
    root = tl.rsqrt(1.0 + e)
    r = root * root
    return e, r, tl.where(v >= 0, r, e * r)


@triton.jit
def add_exponential(v, largest, total):
    """Take one class more into the logarithm of a sum of exponentials, total * exp(largest)."""
    e = tl.exp2(tl.abs(v - largest) * -LOG2_E)
    above = v > largest
    return tl.where(above, v, largest), tl.where(above, total * e + 1.0, total + e)
