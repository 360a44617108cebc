"""Reading the categories in a MATLAB file of the Semantic Boundaries Dataset.

Such files are of version 5, as MATLAB and SciPy write them: elements of a type, a size and content, some of them
packed. They are read here since SciPy's reader trusts sizes: a damaged file can end the whole process.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = 128
ORDERS = {b"IM": "<", b"MI": ">"}
"""Orders of bytes, as the last two of the header tell them."""
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of elements that hold numbers."""
MATRIX, COMPRESSED, STRUCT = 14, 15, 2
MOST_BYTES = 1 << 28
"""Most bytes of an element that was packed."""


def read_categories(path: Path) -> NDArray[Any]:
    """Return GTcls.Segmentation (H, W), the category of each pixel.

    Raises:
        ValueError: the file is damaged, of another version, or does not hold it.
    """
    data = path.read_bytes()
    order = ORDERS.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError("it is no MATLAB file of version 5")
    for kind, content in _elements(data[HEADER:], order):
        if kind == COMPRESSED:
            kind, content = next(_elements(_unpacked(content), order), (0, b""))
        if kind == MATRIX and (found := _categories(content, order)) is not None:
            return found
    raise ValueError("it holds no GTcls.Segmentation")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The types and contents of elements, one behind the other."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}2I", data, at)
        small = kind >> 16 > 0  # then the size is in the upper half of the type, and four bytes follow
        kind, size, start = (kind & 0xFFFF, kind >> 16, at + 4) if small else (kind, size, at + 8)
        if size > (4 if small else len(data) - start):
            raise ValueError("it is damaged: an element is larger than what is left of the file")
        yield kind, data[start : start + size]
        at = at + 8 if small else start + size + (0 if kind == COMPRESSED else -size % 8)


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError("it is damaged: a packed element is cut off, or too large")
    return data


def _categories(content: bytes, order: str) -> NDArray[Any] | None:
    """The field Segmentation of a matrix, if that is the struct GTcls."""
    parts = _parts(content, order, 3)
    flags, _, (_, name) = parts[:3]
    if name != b"GTcls" or _class(flags, order) != STRUCT:
        return None
    if len(parts) < 5:
        raise ValueError("it is damaged: a matrix is cut off")
    (_, length), (_, names), *values = parts[3:]
    width = int.from_bytes(length, "little" if order == "<" else "big")
    fields = [names[i : i + width].split(b"\0")[0] for i in range(0, len(names), width)] if width else []
    if b"Segmentation" not in fields or len(values) != len(fields):
        raise ValueError("it is damaged, or GTcls has no field Segmentation")
    return _matrix(values[fields.index(b"Segmentation")][1], order)


def _matrix(content: bytes, order: str) -> NDArray[Any]:
    _, (_, size), _, (kind, numbers) = _parts(content, order, 4)[:4]
    shape = np.frombuffer(size, f"{order}i4") if len(size) == 8 else ()
    if kind not in NUMBERS or len(shape) != 2 or min(shape) < 1:
        raise ValueError("it is damaged, or Segmentation is no matrix of numbers")
    dtype = np.dtype(f"{order}{NUMBERS[kind]}")
    height, width = map(int, shape)
    if len(numbers) != dtype.itemsize * height * width:
        raise ValueError(f"it is damaged: {len(numbers)} bytes are no {height} x {width} pixels")
    return np.frombuffer(numbers, dtype).reshape((height, width), order="F").astype(dtype.newbyteorder("="))


def _parts(content: bytes, order: str, least: int) -> list[tuple[int, bytes]]:
    parts = list(_elements(content, order))
    if len(parts) < least:
        raise ValueError("it is damaged: a matrix is cut off")
    return parts


def _class(flags: tuple[int, bytes], order: str) -> int:
    """The class of a matrix: the lowest byte of the first of its flags."""
    return flags[1][0 if order == "<" else 3] if len(flags[1]) == 8 else 0
