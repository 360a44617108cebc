"""Values of images as they are: those of more than 8 bits, those of any number of bands, and the range they lie in.

Pillow reads gray of 16 and 32 bits and floats, and colors of 16 bits, by a detour; `tiff` reads what it does not know:
TIFF files of other numbers of bands, or whose bands lie one after the other, signed bytes, floats of several.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rmiseg.data.bands import Ranges, ValueRange
from rmiseg.data.image_files.tiff import (
    BITS,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    SIGN,
    Header,
    TiffImage,
    header_of,
    valid_orientation,
)

SHARES = (0.1, 99.9)
"""Percentiles of the values that the range runs between, where nothing says another."""
FAR, LEVELS = 10.0, 16
"""A value that is so many spans of all others away from them, if these are so many levels, stands for no data."""
COLORS = {"RGB": 3, "RGBA": 4, "RGBX": 4, "LA": 2}
"""Bands of Pillow's modes of several bands whose values may have 16 bits."""


def packing(image: Image.Image) -> str:
    """Return Pillow's name of how the pixels of a file are packed, such as RGB;16B; "" once they are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def is_deep(image: Image.Image) -> bool:
    """Return whether the values of an image, of a file not yet loaded, are other than 0 to 255."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    tags = getattr(image, "tag_v2", None)
    deep = max(_several(tags.get(BITS, 8))) > 8 if tags is not None else netpbm_most(image) > 255
    return deep or ";16" in packing(image) or is_signed(image)


def netpbm_most(image: Image.Image) -> int:
    """Return the largest value that a PGM or PPM file can hold, not yet loaded; 0 of what Pillow reads as it is."""
    tiles: Any = getattr(image, "tile", None) if image.format == "PPM" else None
    stretched = tiles and tiles[0][0].startswith("ppm") and isinstance(tiles[0][3], tuple)
    return int(tiles[0][3][1]) if stretched else 0


def is_signed(image: Image.Image) -> bool:
    """Return whether the values are signed bytes, which Pillow takes for unsigned ones."""
    tags = getattr(image, "tag_v2", {})
    return 2 in _several(tags.get(SIGN, 1)) and max(_several(tags.get(BITS, 8))) == 8


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image file, from 1 to 8, by its header; 1 if it has none."""
    # Of a PNG, Pillow would look for EXIF data behind the pixels, too, and decode them all.
    known = image.format != "PNG" or "exif" in image.info
    return valid_orientation(image.getexif().get(ORIENTATION, 1)) if known else 1


def unmapped(image: Image.Image) -> Image.Image:
    """Keep Pillow from mapping a TIFF file turned by a quarter into memory: it mistakes width for height then."""
    if getattr(image, "tag_v2", {}).get(ORIENTATION, 1) > 4:
        image.filename = ""  # type: ignore[attr-defined]  # of files
    return image


def is_garbled(image: Image.Image) -> bool:
    """Return whether Pillow mistakes the pixels of a deep image in a TIFF file.

    Such are bands that lie one after the other, and unsigned values of 32 bits, of which it makes signed ones.
    """
    tags = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and max(_several(tags.get(BITS, 8))) == 32 and 1 in _several(tags.get(SIGN, 1))
    return unsigned or (tags.get(PLANAR) == 2 and image.mode.startswith("RGB"))


def is_inverted(image: Image.Image) -> bool:
    """Return whether it is a TIFF file of gray whose zero is white (MinIsWhite); Pillow turns those of up to 8 bits."""
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def header(image: Image.Image) -> Header:
    """Return what an image file holds, by its header."""
    size = (image.height, image.width)
    if (tags := getattr(image, "tag_v2", None)) is not None:
        return header_of(tags, size)
    if image.mode in ("1", "L", "LA") or image.mode == "F" or image.mode.startswith("I"):
        return Header(size, 1, image.mode == "LA")
    return Header(size, 3, image.mode in ("RGBA", "PA") or "transparency" in image.info)


def seen(values: NDArray[Any], photometric: Any, bits: int) -> NDArray[Any]:
    """Turn gray of a TIFF file whose zero is white (MinIsWhite) into how it looks, as Pillow does with 8 bits.

    Args:
        values: The values as they are stored.
        photometric: The tag of that name.
        bits: Bits of a value.
    """
    if photometric != 0 or values.dtype.kind not in "ub":
        return values
    most = np.array((1 << bits) - 1).astype(values.dtype)
    return ~values if values.dtype == bool else most - values


def unstretched(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Return gray as it is in a PGM file, whose largest value Pillow stretches to 255 or 65535.

    Args:
        values: Values (H, W) as Pillow has them.
        most: That largest value, see `netpbm_most`; 0 if nothing was stretched.
    """
    if not most:
        return values
    full = 255 if values.dtype == np.uint8 else 65535
    return np.rint(values * (most / full)).astype(np.uint8 if most < 256 else np.uint16)


def read_deep(image: Image.Image, path: Path, alpha: bool = False, stored: bool = False) -> NDArray[Any]:
    """Read the values of an image that `is_deep`, turned by its orientation.

    Args:
        image: The image, not yet loaded.
        path: Its file.
        alpha: True to return alpha, too, if there is any.
        stored: True to return gray as it is stored, where zero is white, too.

    Returns:
        (H, W) or (H, W, bands), of any dtype.

    Raises:
        ValueError: it has other bands than gray or RGB, with alpha or without.
        ModuleNotFoundError: it needs tifffile, which is not installed.
    """
    if is_garbled(image) or is_signed(image):
        return read_tiff(path, alpha=alpha, stored=stored)
    if image.mode == "F" or image.mode.startswith("I"):
        tags = {} if stored else getattr(image, "tag_v2", {})
        most = netpbm_most(image)
        ImageOps.exif_transpose(image, in_place=True)
        values = unstretched(np.asarray(image), most)
        values = seen(values, tags.get(PHOTOMETRIC), max(_several(tags.get(BITS, 8))))
        # Pillow has 16 bits of a PNG as 32.
        return values.astype(np.uint16) if image.mode == "I" and image.format == "PNG" else values
    kind, _, order = packing(image).partition(";16")
    if kind not in COLORS or order not in ("L", "B", "N"):
        raise ValueError(
            f"colors of {image.format} of the kind {packing(image)} are not read with all their bits; save them as "
            f"PNG or TIFF"
        )
    if kind == "LA":
        values = _gray_alpha(path)
        return values if alpha else values[..., 0]
    # Pillow has no mode for such colors: it takes the first or the second byte of each, as it is told.
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    high, low = (_unpacked(path, f"{kind};16{end}") for end in ("LB" if little else "BL"))
    return (high.astype(np.uint16) << 8 | low)[..., : COLORS[kind] if alpha else 3]


def _unpacked(path: Path, packing: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        tiles = []
        for tile in image.tile:
            arguments = (packing, *tile.args[1:]) if isinstance(tile.args, tuple) else packing
            tiles.append(tile._replace(args=arguments))
        image.tile = tiles
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image)


def _gray_alpha(path: Path) -> NDArray[np.uint16]:
    """Gray and alpha of 16 bits, of which Pillow reads the high bytes only: as RGBA of 8, which have as many bytes."""
    with Image.open(path) as image:
        image._mode = "RGBA"
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image).view(">u2").astype(np.uint16)


def read_tiff(path: Path, *, alpha: bool = False, pages: int = 1, stored: bool = False) -> NDArray[Any]:
    """Read a TIFF file of one image as it is, turned by its orientation.

    Args:
        path: The file.
        alpha: True to return alpha, too, if there is any.
        pages: See `TiffImage`.
        stored: See `read_deep`.

    Returns:
        (H, W) of one band, else (H, W, bands).

    Raises:
        ValueError, ModuleNotFoundError: As `TiffImage`.
    """
    with TiffImage(path, pages) as image:
        values = turned(image.read(), image.orientation)
        if not stored:
            values = seen(values, image.photometric, image.bits)
        values = values if alpha else values[..., : image.header.bands]
    return values[..., 0] if values.shape[-1] == 1 else values


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn values (H, W, ...) as an EXIF orientation from 1 to 8 says."""
    turns: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }
    return np.ascontiguousarray(turns.get(orientation, np.asarray)(values))


class RangeFinder:
    """Finds the range of values of several images, of which it keeps a sample.

    Args:
        apart: True to find a range for each band, in place of one for all.
        most: Values of each image, and band, that are looked at, evenly spaced.
    """

    def __init__(self, apart: bool, most: int = 1 << 16) -> None:
        self.apart, self.most = apart, most
        self.samples: list[list[NDArray[np.float64]]] = []
        self.images = 0
        self.left_out: set[float] = set()

    def add(self, values: NDArray[Any], nodata: float | None = None) -> None:
        """Look at an image (H, W) or (H, W, B) of any dtype; `nodata` stands for no value in it."""
        bands = [values[..., band] for band in range(values.shape[-1])] if self.apart else [values]
        self.samples = self.samples or [[] for _ in bands]
        self.images += 1
        for band, parts in zip(bands, self.samples):
            flat = band.ravel()
            flat = flat[:: max(1, flat.size // self.most)].astype(np.float64)
            if nodata is not None and (flat == nodata).any():
                self.left_out.add(nodata)
                flat = flat[flat != nodata]
            parts.append(flat[np.isfinite(flat)])

    def ranges(self) -> Ranges:
        """Return the percentiles `SHARES`: of all bands together, or of each.

        Raises:
            ValueError: the images hold no numbers.
        """
        found = tuple(self._range(np.concatenate(parts)) for parts in self.samples)
        return found if self.apart else found[0]

    def _range(self, values: NDArray[np.float64]) -> ValueRange:
        levels = np.unique(values)
        for end, others in ((0, levels[1:]), (-1, levels[:-1])):
            if len(others) < LEVELS:
                continue
            nearest = others[0] if end == 0 else others[-1]
            if abs(levels[end] - nearest) > FAR * (others[-1] - others[0]):
                self.left_out.add(float(levels[end]))
                values = values[values != levels[end]]
        if not values.size:
            raise ValueError(
                "the images hold no numbers, from which to take the range of values; give it in dataset.yaml"
            )
        low, high = np.percentile(values, SHARES)
        return (float(low), float(high)) if low < high else (float(low), float(low) + 1)


def _several(value: Any) -> Sequence[int]:
    return value if isinstance(value, tuple) and value else (value,)
