"""Images of more than 8 bits a value: reading them as they are, and the range of values that becomes 0 to 255.

Images of 8 bits never come here. Gray of 16 and 32 bits and floats are read through Pillow, as are colors of 16 bits;
TIFF files whose bands lie one after the other, and floats of three bands, through tifffile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rmiseg.runtime.extras import import_extra

ValueRange: TypeAlias = tuple[float, float]
"""Values of pixels that become 0 and 255."""

BITS, PHOTOMETRIC, PLANAR, ORIENTATION = 258, 262, 284, 274
"""Numbers of TIFF tags; that of the orientation is EXIF's, too."""
SHARES = (0.1, 99.9)
"""Percentiles of the values that the range runs between, where nothing says another."""


def packing(image: Image.Image) -> str:
    """Return Pillow's name of how the pixels of a file are packed, such as RGB;16B; "" once they are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def is_deep(image: Image.Image) -> bool:
    """Return whether the values of an image, of a file not yet loaded, have more than 8 bits."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    tags = getattr(image, "tag_v2", None)
    return (tags is not None and max(_several(tags.get(BITS, 8))) > 8) or ";16" in packing(image)


def unmapped(image: Image.Image) -> Image.Image:
    """Keep Pillow from mapping a TIFF file turned by a quarter into memory: it mistakes width for height then."""
    if getattr(image, "tag_v2", {}).get(ORIENTATION, 1) > 4:
        image.filename = ""  # type: ignore[attr-defined]  # of files
    return image


def is_garbled(image: Image.Image) -> bool:
    """Return whether Pillow mistakes the pixels of a deep image: bands that lie one after the other in a TIFF file."""
    return getattr(image, "tag_v2", {}).get(PLANAR) == 2 and image.mode.startswith("RGB")


def read_deep(image: Image.Image, path: Path) -> NDArray[Any]:
    """Read the values of an image of more than 8 bits, turned by its orientation.

    Args:
        image: The image, not yet loaded.
        path: Its file.

    Returns:
        (H, W) or (H, W, 3), of any dtype.

    Raises:
        ValueError: it has other bands than gray or RGB, with alpha or without.
        ModuleNotFoundError: it needs tifffile, which is not installed.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        ImageOps.exif_transpose(image, in_place=True)
        values = np.asarray(image)
        # Pillow has 16 bits of a PNG as 32.
        return values.astype(np.uint16) if image.mode == "I" and image.format == "PNG" else values
    if is_garbled(image):
        return read_tiff(path)
    kind, _, order = packing(image).partition(";16")
    if kind not in ("RGB", "RGBA", "RGBX") or order not in ("L", "B", "N"):
        raise ValueError(f"colors of the kind {packing(image)} are not read with all their bits; save them as RGB")
    # Pillow has no mode for such colors: it takes the first or the second byte of each, as it is told.
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    high, low = (_unpacked(path, f"{kind};16{end}") for end in ("LB" if little else "BL"))
    return high.astype(np.uint16) << 8 | low


def _unpacked(path: Path, packing: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        tiles = []
        for tile in image.tile:
            arguments = (packing, *tile.args[1:]) if isinstance(tile.args, tuple) else packing
            tiles.append(tile._replace(args=arguments))
        image.tile = tiles
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image)[..., :3]


def read_tiff(path: Path) -> NDArray[Any]:
    """Read a TIFF file of one image through tifffile; see `read_deep`."""
    tifffile = import_extra("tifffile", "train", f"reading {path}")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        values, axes = page.asarray(), page.axes
        extra, orientation = page.extrasamples, page.tags.get(ORIENTATION)
    if axes == "SYX":
        values, axes = np.moveaxis(values, 0, -1), "YXS"
    bands = values.shape[-1] if axes == "YXS" else 1
    if axes not in ("YX", "YXS") or not (bands in (1, 3) or (bands in (2, 4) and any(extra))):
        raise ValueError(f"it has {bands} bands; images of one band or three are read, with alpha or without")
    if axes == "YXS":
        values = values[..., :3] if bands > 2 else values[..., 0]
    return turned(values, int(orientation.value) if orientation else 1)


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


def scaled(values: NDArray[Any], value_range: ValueRange | None) -> NDArray[np.uint8]:
    """Make values of any dtype 0 to 255.

    Args:
        values: (H, W) or (H, W, 3).
        value_range: Values that become 0 and 255; those beyond become that too. None keeps the high byte of 16 bits.

    Returns:
        (H, W, 3) uint8; gray becomes three equal bands, and what is not a number 0.

    Raises:
        ValueError: there is no range, for values other than unsigned ones of 16 bits.
    """
    if value_range is not None:
        low, high = value_range
        shares = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
        pixels = np.rint(255 * np.nan_to_num(np.clip(shares, 0, 1))).astype(np.uint8)
    elif values.dtype == np.uint16:
        pixels = (values >> 8).astype(np.uint8)
    else:
        raise ValueError(
            f"pixels of {values.dtype} have no defined range; say which values are black and white, as `range: "
            f"[{values.min():.6g}, {values.max():.6g}]` in dataset.yaml or as data.value_range"
        )
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def checked_range(value_range: Sequence[Any]) -> ValueRange:
    """Return a range of values that a person gave.

    Raises:
        ValueError: it is not two numbers, the smaller one first.
    """
    numbers = [x for x in value_range if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) != 2 or len(value_range) != 2 or not -np.inf < numbers[0] < numbers[1] < np.inf:
        raise ValueError(
            f"the range of values must be two numbers, the one for black and the larger one for white, such as "
            f"[0, 4095], not {value_range}"
        )
    return float(numbers[0]), float(numbers[1])


def range_of(images: Sequence[NDArray[Any]], most: int = 1 << 16) -> ValueRange:
    """Return the range of values of several images: the percentiles `SHARES` of them.

    Args:
        images: Values of any shape and dtype.
        most: Values of each that are looked at, evenly spaced.
    """
    parts = []
    for values in images:
        flat = values.ravel()
        flat = flat[:: max(1, flat.size // most)].astype(np.float64)
        parts.append(flat[np.isfinite(flat)])
    together = np.concatenate(parts)
    if not together.size:
        raise ValueError("the images hold no numbers, from which to take the range of values; give it in dataset.yaml")
    low, high = np.percentile(together, SHARES)
    return (float(low), float(high)) if low < high else (float(low), float(low) + 1)


def _several(value: Any) -> Sequence[int]:
    return value if isinstance(value, tuple) and value else (value,)
