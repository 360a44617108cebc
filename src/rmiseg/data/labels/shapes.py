"""Pixels of polygons, run lengths, bitmaps and masks, each as the library of its format has them.

All functions take the size (height, width) of the image last and return (H, W) bool, and raise ValueError where a shape
is not finite, or of another size than its image. Coordinates are in pixels; (0, 0) is the left upper corner.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rmiseg.config.recipes import shortened
from rmiseg.data.image_files.masks import read_numbers
from rmiseg.data.image_files.opening import decoded
from rmiseg.data.labels.values import Size
from rmiseg.runtime.extras import import_extra

FARTHEST = 4
"""Sides of the image that a coordinate may lie outside of it; library functions take memory for what lies between."""
LONGEST = 2
"""Steps of an outline for each pixel of the image; even that of a checkerboard has no more."""

ROUND = 64
"""Corners of the polygon that stands for a circle or an ellipse."""


def points(values: Any) -> NDArray[np.float64]:
    """Return the corners (N, 2), x and y, of a polygon that is given as pairs, or as numbers in one row.

    Raises:
        ValueError: They are no finite numbers, or an odd count of them.
    """
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"corners must be numbers, not {shortened(repr(values), 100)}") from error
    if found.ndim == 1 and found.size % 2 == 0:
        found = found.reshape(-1, 2)
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(f"corners must be pairs of x and y, not {shortened(repr(values), 100)}")
    if not np.isfinite(found).all():
        raise ValueError("a coordinate is not a finite number")
    return found


def _near(corners: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    most = np.array(size[::-1]) * (FARTHEST + 1.0)
    if corners.size and ((corners < -most) | (corners > most)).any():
        worst = corners.flat[np.abs(corners).argmax()]
        raise ValueError(f"the coordinate {worst:.6g} lies far outside of an image of {size[1]} x {size[0]} pixels")
    return corners


def exact_polygons(polygons: Sequence[NDArray[np.float64]], size: Size) -> NDArray[np.bool_]:
    """Return the pixels in any of some polygons (N, 2), as pycocotools draws them: COCO, CVAT, Label Studio."""
    coco = import_extra("pycocotools.mask", "labels", "drawing polygons")
    kept = [_near(polygon, size) for polygon in polygons if len(polygon) > 2]
    if not kept:
        return np.zeros(size, bool)
    # Memory is taken for every step along the outlines.
    length = sum(float(np.abs(polygon - np.roll(polygon, 1, axis=0)).max(axis=1).sum()) for polygon in kept)
    if length > LONGEST * size[0] * size[1] + 100 * sum(size):
        raise ValueError(f"an outline of {length:.6g} pixels is longer than any in {size[1]} x {size[0]} pixels")
    flat = [polygon.ravel().tolist() for polygon in kept]
    drawn: NDArray[np.bool_] = coco.decode(coco.merge(coco.frPyObjects(flat, *size))).astype(bool)
    return drawn


def even_odd(rings: Sequence[NDArray[np.float64]], size: Size) -> NDArray[np.bool_]:
    """Return the pixels in an odd number of some rings (N, 2): outlines, their holes, and what lies in these."""
    drawn = np.zeros(size, bool)
    for ring in rings:
        drawn ^= exact_polygons([ring], size)
    return drawn


def with_holes(polygons: Sequence[Sequence[NDArray[np.float64]]], size: Size) -> NDArray[np.bool_]:
    """Return the pixels in any of some polygons, each of which is its outline (N, 2) and its holes."""
    drawn = np.zeros(size, bool)
    for outer, *holes in polygons:
        drawn |= exact_polygons([outer], size) & ~exact_polygons(holes, size)
    return drawn


def filled_polygon(outer: NDArray[np.float64], holes: Sequence[NDArray[np.float64]], size: Size) -> NDArray[np.bool_]:
    """Return the pixels of a polygon with its outline, as OpenCV's fillPoly draws it: YOLO, Supervisely.

    Args:
        outer: Corners (N, 2), of which the whole pixels count, without what is behind the point.
        holes: Corners of what is taken out, with the outlines of the holes.
        size: Height and width of the image.
    """
    cv2 = import_extra("cv2", "labels", "drawing polygons")
    drawn = np.zeros(size, np.uint8)
    cv2.fillPoly(drawn, [_near(outer, size).astype(np.int32)], 1)
    if holes:
        cv2.fillPoly(drawn, [_near(hole, size).astype(np.int32) for hole in holes], 0)
    return drawn.astype(bool)


def outlined_polygon(corners: NDArray[np.float64], size: Size, *, outline: int | None = 1) -> NDArray[np.bool_]:
    """Return the pixels of a polygon, as Pillow draws it: with its outline, labelme; without, Cityscapes."""
    image = Image.new("L", size[::-1])
    ImageDraw.Draw(image).polygon([(x, y) for x, y in _near(corners, size).tolist()], outline=outline, fill=1)
    return np.array(image, bool)


def outlined_rectangle(corners: NDArray[np.float64], size: Size) -> NDArray[np.bool_]:
    """Return the pixels of a rectangle between two corners (2, 2), as Pillow draws it: labelme."""
    image = Image.new("L", size[::-1])
    low, high = _near(corners, size).min(axis=0), corners.max(axis=0)
    ImageDraw.Draw(image).rectangle((*low.tolist(), *high.tolist()), outline=1, fill=1)
    return np.array(image, bool)


def outlined_circle(center_and_edge: NDArray[np.float64], size: Size) -> NDArray[np.bool_]:
    """Return the pixels of a circle by its center and a point of its edge (2, 2), as Pillow draws it: labelme."""
    image = Image.new("L", size[::-1])
    center, edge = _near(center_and_edge, size)
    # As labelme has it, to the last bit: NumPy's hypot rounds otherwise.
    radius = float(((center[0] - edge[0]) ** 2 + (center[1] - edge[1]) ** 2) ** 0.5)
    ImageDraw.Draw(image).ellipse((*(center - radius).tolist(), *(center + radius).tolist()), outline=1, fill=1)
    return np.array(image, bool)


def rectangle(left: float, top: float, width: float, height: float) -> NDArray[np.float64]:
    """Return the corners (4, 2) of a rectangle."""
    return between(left, top, left + width, top + height)


def between(left: float, top: float, right: float, bottom: float) -> NDArray[np.float64]:
    """Return the corners (4, 2) of the rectangle between two of them."""
    return points([left, top, right, top, right, bottom, left, bottom])


def rotated(corners: NDArray[np.float64], radians: float, pivot: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return corners (N, 2) turned about a point (2,), clockwise as seen."""
    if not radians:
        return corners
    sine, cosine = np.sin(radians), np.cos(radians)
    return points((corners - pivot) @ np.array([[cosine, sine], [-sine, cosine]]) + pivot)


def ellipse(center: Any, radii: Any, radians: float = 0.0) -> NDArray[np.float64]:
    """Return the corners (N, 2) of the polygon that stands for an ellipse.

    Args:
        center: Its center, x and y.
        radii: Its radii along x and y, before it is turned.
        radians: Angle by which it is turned, clockwise as seen.
    """
    middle, radius = points([center, radii])
    angles = np.arange(ROUND) * (2 * np.pi / ROUND)
    return rotated(middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), radians, middle)


def run_lengths(counts: Any, drawn_on: Any, size: Size) -> NDArray[np.bool_]:
    """Return the pixels of COCO's run lengths, down the columns, compressed or not.

    Args:
        counts: Numbers of pixels outside and inside in turn, or a text or bytes that hold them.
        drawn_on: Height and width that they are for.
        size: Those of the image.
    """
    if list(drawn_on) != list(size):
        raise ValueError(f"run lengths are for {shortened(str(list(drawn_on)), 60)} rows and columns, not {list(size)}")
    if isinstance(counts, str | bytes):
        counts = _decompressed(counts)
    return _runs(counts, size[0] * size[1]).reshape(size[::-1]).T


def row_run_lengths(counts: Any, left: int, top: int, width: int, height: int, size: Size) -> NDArray[np.bool_]:
    """Return the pixels of run lengths along the rows of a part of the image: CVAT."""
    return placed(_runs(counts, _area(width, height, size)).reshape(height, width), left, top, size)


def _runs(counts: Any, total: int) -> NDArray[np.bool_]:
    try:
        numbers = np.asarray(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"run lengths must be whole numbers, not {shortened(repr(counts), 100)}") from error
    if numbers.ndim != 1 or (numbers < 0).any() or (numbers > total).any() or int(numbers.sum()) != total:
        raise ValueError(f"run lengths must add up to the {total} pixels that they are for")
    return np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)


def _decompressed(text: str | bytes) -> list[int]:
    """The run lengths of COCO's text: five bits a character, and from the third on differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode() if isinstance(text, str) else text:
        bits = byte - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths are no text as COCO has it")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths are cut short")
    return counts


def placed(part: NDArray[np.bool_], left: int, top: int, size: Size) -> NDArray[np.bool_]:
    """Return a part (h, w) at its place in the image."""
    height, width = part.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"a mask of {width} x {height} pixels at ({left}, {top}) does not fit into {size[1]} x {size[0]}"
        )
    drawn = np.zeros(size, bool)
    drawn[top : top + height, left : left + width] = part
    return drawn


def _area(width: int, height: int, size: Size) -> int:
    if not (0 <= width <= size[1] and 0 <= height <= size[0]):
        raise ValueError(f"a mask of {width} x {height} pixels does not fit into an image of {size[1]} x {size[0]}")
    return width * height


def bitmap(text: str, left: int, top: int, size: Size, *, alpha: bool = False) -> NDArray[np.bool_]:
    """Return the pixels of an image file that is encoded as base64, and perhaps compressed: labelme, Supervisely.

    Args:
        text: The code.
        left: Column of its left edge.
        top: Row of its upper edge.
        size: Height and width of the whole image.
        alpha: True if of pixels with an opacity that counts, rather than colors.
    """
    most = 2 * size[0] * size[1] * 4 + (1 << 16)  # bytes of any such file that fits
    data = from_base64(text)
    if data[:2] in (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"):
        packed = zlib.decompressobj()
        try:
            data = packed.decompress(data, most)
        except zlib.error as error:
            raise ValueError(f"a mask is damaged: {error}") from error
        if packed.unconsumed_tail:
            raise ValueError(f"a mask is larger than its image of {size[1]} x {size[0]} pixels")
    try:
        with Image.open(io.BytesIO(data), formats=decoded()) as image:
            _area(*image.size, size)
            values = np.array(image)
    except ValueError:
        raise
    except Exception as error:  # decoders fail in many ways
        raise ValueError(f"a mask cannot be read: {error}") from error
    if values.ndim == 3:
        values = np.asarray(values[..., 3] if alpha and values.shape[2] == 4 else values.any(axis=-1))
    return placed(values.astype(bool), left, top, size)


@functools.lru_cache(maxsize=2)
def mask_numbers(path: Path, colors: bool) -> NDArray[np.int32]:
    """Return the numbers (H, W) of a mask, see `read_numbers`; those of the last two are kept."""
    return read_numbers(path, colors)


def pixels_of_value(path: Path, colors: bool, value: int, size: Size) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a number, see `mask_numbers`."""
    found: NDArray[np.bool_] = mask_numbers(path, colors) == value
    assert found.shape == size
    return found


def from_base64(text: Any) -> bytes:
    """Return the bytes of a text of base64.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(text, str):
        raise ValueError(f"a text of base64 is {shortened(repr(text), 60)}")
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"a text is not base64: {error}") from error
