"""Class ids as TIFF files that have the coordinates of their images, as geographic information systems read them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.data.image_files.tiff import TiffImage, is_tiff
from rmiseg.runtime.extras import import_extra
from rmiseg.runtime.files import replacing

TIFF = "TIFF"
STRIP = 64
"""Rows of a strip."""


def geography_of(path: Path | None, pages: int = 1) -> list[Any]:
    """Return the tags that say where on earth an image lies, as `tiff_writer` takes them; its pages may be bands."""
    if path is None or not is_tiff(path):
        return []
    with TiffImage(path, pages) as image:
        return image.geography


@contextmanager
def tiff_writer(
    path: Path, size: tuple[int, int], palette: bytes, geography: Sequence[Any]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write class ids as a TIFF file with a palette, row by row.

    The file appears, whole, at the end; on an error, or when rows are missing, it does not. Until then its rows are
    held, packed: of class ids, about a hundredth of their size.

    Args:
        path: The file.
        size: Height and width.
        palette: 256 colors of three bytes.
        geography: Tags that say where it lies, see `geography_of`.

    Yields:
        A function that takes the next rows, uint8 (rows, W).
    """
    tifffile = import_extra("tifffile", "train", f"writing {path}")
    strips: list[bytes] = []
    waiting = np.empty((0, size[1]), np.uint8)
    with replacing(path) as temporary:

        def write(rows: np.ndarray) -> None:
            nonlocal waiting
            waiting = np.concatenate([waiting, rows])
            while len(waiting) >= STRIP:
                strips.append(zlib.compress(waiting[:STRIP].tobytes()))
                waiting = waiting[STRIP:]

        yield write
        written = STRIP * len(strips) + len(waiting)
        if written != size[0]:
            raise ValueError(f"{written} of {size[0]} rows were written to {path}")
        if len(waiting):
            strips.append(zlib.compress(waiting.tobytes()))
        colors = np.frombuffer(palette, np.uint8).reshape(256, 3).T.astype(np.uint16) * 257
        tifffile.imwrite(
            temporary,
            iter(strips),
            shape=size,
            dtype=np.uint8,
            photometric="palette",
            colormap=colors,
            compression="zlib",
            rowsperstrip=STRIP,
            metadata=None,
            # As GDAL has it: the value of ignored pixels stands for no data.
            extratags=[*geography, (42113, "s", 0, str(IGNORE_INDEX), True)],
        )
