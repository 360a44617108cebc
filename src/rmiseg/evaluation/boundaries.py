"""Pixels near the boundaries between labels, found 64 at a time.

A row of the image is a column of 64-bit words, of which each bit is a pixel; a bit is set where two neighbors differ.
To look within some width of every pixel is then to shift words and to join them, which costs next to nothing: in this
layout always long stretches of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BOUNDARY_RATIO = 0.02
"""Width of the boundaries of boundary IoU, as a share of the image's diagonal (Cheng et al. 2021)."""

WORD = 64
EVERY = np.uint64(2**64 - 1)
"""Word of which every pixel is set."""

BAND = 128
"""Rows of an image that are read at once, so that what is made of them stays in the processor's cache."""


def boundary_width(shape: tuple[int, ...]) -> int:
    """Width of the boundaries of boundary IoU in an image of `shape` = (H, W): at least 1."""
    return max(1, round(BOUNDARY_RATIO * math.hypot(*shape)))


def near_boundary(labels: NDArray[np.uint8], widths: Iterable[int]) -> dict[int, NDArray[np.uint64]]:
    """Pixels with another label within so many rows and columns of them.

    Every value is a label, that of ignored pixels too: in PASCAL VOC they are the boundaries.

    Args:
        labels: (H, W) uint8.
        widths: Halves of the sides of the squares that are searched, in pixels, each at least 1.

    Returns:
        (W / 64 rounded up, H) words for each width; see `pixels`.
    """
    found = {}
    near, reached = _words_near_boundary(labels), 1
    for width in sorted(widths):  # a square around what is near is near with a larger width
        near, reached = _dilated(near, width - reached, width - reached), width
        found[width] = near
    return found


def inner_boundary(near: NDArray[np.uint64], width: int, columns: int) -> NDArray[np.uint64]:
    """Return what is near another label or the outside.

    Of the pixels of a class these are its boundary as boundary IoU has it: what `width` erosions of its mask with a
    3 x 3 square take away.

    Args:
        near: (W / 64 rounded up, H) words, as `near_boundary` returns them for this width.
        width: See there.
        columns: Width W of the image.
    """
    inner = near.copy()
    inner[:, :width] = inner[:, max(near.shape[1] - width, 0) :] = EVERY
    for first, end in ((0, min(width, columns)), (max(columns - width, 0), columns)):
        for word in range(first // WORD, -(-end // WORD)):
            low, high = max(first - word * WORD, 0), min(end - word * WORD, WORD)
            inner[word] |= np.uint64((1 << high) - (1 << low))
    return inner


def pixels(words: NDArray[np.uint64], columns: int) -> NDArray[np.uint8]:
    """Return (H, W) uint8 of 0 and 1, of an image of so many columns W."""
    rows = np.ascontiguousarray(words.T, "<u8").view(np.uint8)
    return np.unpackbits(rows, axis=1, count=columns, bitorder="little")


def _words_near_boundary(labels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Pixels with another label among the eight around them, (W / 64 rounded up, H) words."""
    height, width = labels.shape
    rows, columns = np.empty((2, -(-width // WORD), height), np.uint64)
    for start in range(0, height, BAND):
        band = labels[start : start + BAND]
        differ = np.zeros(band.shape, bool)
        below = labels[start + 1 : start + BAND + 1]
        np.not_equal(below, band[: len(below)], out=differ[: len(below)])  # between this row and the next
        rows[:, start : start + BAND] = _words(differ)
        np.not_equal(band[:, 1:], band[:, :-1], out=differ[:, :-1])
        differ[:, -1] = False
        columns[:, start : start + BAND] = _words(differ)
    rows[:, 1:] |= rows[:, :-1].copy()
    columns |= _shifted(columns, 1)
    return _dilated(rows, 0, 1) | _dilated(columns, 1, 0)


def _words(differ: NDArray[np.bool_]) -> NDArray[np.uint64]:
    packed = np.packbits(differ, axis=1, bitorder="little")
    if packed.shape[1] % 8:
        packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return packed.view("<u8").T.astype(np.uint64, copy=False)


def _dilated(words: NDArray[np.uint64], rows: int, columns: int) -> NDArray[np.uint64]:
    """All pixels within so many rows and columns of those that are set."""
    length, height = words.shape
    if columns:
        room = np.zeros((length + -(-columns // WORD), height), np.uint64)
        room[:length] = words
        for step in _doublings(2 * columns + 1):
            room |= _shifted(room, step)
        words = _shifted(room, -columns)[:length]
    if rows:
        room = np.zeros((length, height + 2 * rows), np.uint64)
        room[:, rows : rows + height] = words
        for step in _doublings(2 * rows + 1):
            room = np.bitwise_or(room[:, :-step], room[:, step:])
        words = room
    return words


def _doublings(window: int) -> Iterable[int]:
    """Steps by which to join what was joined so far, until so many neighbors are."""
    length = 1
    while length < window:
        step = min(length, window - length)
        yield step
        length += step


def _shifted(words: NDArray[np.uint64], columns: int) -> NDArray[np.uint64]:
    """The pixels so many columns further to the right; of a negative number, to the left."""
    whole, bits = divmod(abs(columns), WORD)
    on, carry = (np.left_shift, np.right_shift) if columns >= 0 else (np.right_shift, np.left_shift)
    way = slice(None, None, 1 if columns >= 0 else -1)
    shifted, rest = np.zeros_like(words), len(words) - whole
    source, goal = words[way], shifted[way]
    on(source[:rest], np.uint64(bits), out=goal[whole:])
    if bits:
        goal[whole + 1 :] |= carry(source[: rest - 1], np.uint64(WORD - bits))
    return shifted
