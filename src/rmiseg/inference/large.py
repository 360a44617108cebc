"""Images that are too large to be held as arrays, read area by area.

TIFF files whose tiles or strips can be decoded apart take no more memory than these. Other files are read through
pyvips, if it is installed, which keeps what it decodes in a file; else Pillow decodes them whole, up to a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from rmiseg.data.bands import RGB, Bands, scaled, scaled_values
from rmiseg.data.image_files.deep import is_deep, is_inverted
from rmiseg.data.image_files.opening import of_any_size, open_image
from rmiseg.data.image_files.reading import rgb_pixels, wrong_bands
from rmiseg.data.image_files.tiff import CACHE, PHOTOMETRIC, TiffImage, is_tiff
from rmiseg.inference.tiles import Area
from rmiseg.runtime.extras import import_extra, remedy

Reader: TypeAlias = Callable[[Area], np.ndarray]
"""Returns an area of an image, (height, width, B) uint8."""

MOST_WHOLE, MOST_CACHED, MOST_PIXELS = 1 << 29, 1 << 33, 1 << 36
"""Most pixels of an image that Pillow decodes whole (2 GB), that pyvips keeps in a file, and of any image."""
PLAIN = (1, 2)
"""Photometric interpretations whose values are those of the image: black is zero, and RGB."""


def open_large(path: Path, bands: Bands) -> tuple[tuple[int, int], Reader]:
    """Open a large image.

    Args:
        path: Its file.
        bands: Its bands, see `read_image`.

    Returns:
        Height and width, and what reads an area.

    Raises:
        ValueError: it is damaged, or has too many pixels for its format.
    """
    try:
        return (is_tiff(path) and _in_areas(path, bands)) or _through_pyvips(path, bands) or _whole(path, bands)
    except Exception as error:  # decoders fail in many ways
        raise ValueError(f"cannot read image {path}: {error}") from error


def _in_areas(path: Path, bands: Bands) -> tuple[tuple[int, int], Reader] | None:
    """A TIFF file read area by area; None if its colors, its orientation or its size of strips need more."""
    image = TiffImage(path, pages=bands.pages)
    page, found = image.pages[0], image.header
    photometric = page.tags.get(PHOTOMETRIC)
    coded = photometric and photometric.value not in PLAIN
    if image.orientation != 1 or page.bitspersample % 8 or coded or image.part_bytes > CACHE:
        image.close()
        return None
    _check(found.size, MOST_PIXELS)
    if bands.count == RGB.count:
        if found.bands not in (1, 3):
            raise ValueError(wrong_bands(found.bands, RGB.count))
    elif bands.count not in (found.bands, image.samples):
        raise ValueError(wrong_bands(found.bands, bands.count))

    def read(area: Area) -> np.ndarray:
        return _pixels(image.read(area.top, area.left, area.height, area.width), found.bands, bands)

    return found.size, read


def _through_pyvips(path: Path, bands: Bands) -> tuple[tuple[int, int], Reader] | None:
    """An image that pyvips decodes into a file of its own; None without pyvips."""
    try:
        pyvips = import_extra("pyvips", "large", f"reading {path}")
    except (ImportError, OSError):  # the package, or the library behind it
        return None
    if not is_tiff(path):  # pyvips opens much else, such as SVG and PDF, and of several frames the first
        _through_pillow(path).close()
    image = pyvips.Image.new_from_file(str(path), access="random").autorot()
    _check((image.height, image.width), MOST_CACHED)
    if image.interpretation not in ("srgb", "b-w", "rgb16", "grey16", "multiband", "scrgb"):
        image = image.colourspace("srgb")
    found = image.bands - int(image.hasalpha())
    expected = (1, 3) if bands.count == RGB.count else (bands.count,)
    if found not in expected and image.bands not in expected:
        raise ValueError(wrong_bands(found, bands.count))

    def read(area: Area) -> np.ndarray:
        part: Any = image.crop(area.left, area.top, area.width, area.height).numpy()
        return _pixels(part[..., None] if part.ndim == 2 else part, found, bands)

    return (image.height, image.width), read


def _whole(path: Path, bands: Bands) -> tuple[tuple[int, int], Reader]:
    """An image that Pillow holds, with 4 bytes a pixel; of an area a copy is made."""
    image = _through_pillow(path)
    _check((image.height, image.width), MOST_WHOLE)
    is_gray = image.mode in ("F", "I", "I;16", "I;16B") and not is_inverted(image)
    if bands.count != RGB.count or (is_deep(image) and not is_gray):
        raise ValueError(
            f"an image of so many pixels, bands and bits is read through pyvips: {remedy('large')}; or save it as a "
            "tiled TIFF file"
        )
    image.load()
    ImageOps.exif_transpose(image, in_place=True)

    def read(area: Area) -> np.ndarray:
        part = image.crop((area.left, area.top, area.columns.stop, area.rows.stop))
        if image.mode == "F" or (image.mode.startswith("I") and bands.ranges is not None):
            return scaled(np.asarray(part), bands.ranges)
        return rgb_pixels(part)

    return (image.height, image.width), read


def _through_pillow(path: Path) -> Image.Image:
    """An image of any number of pixels, not yet decoded."""
    with of_any_size():
        return open_image(path)


def _pixels(values: np.ndarray, found: int, bands: Bands) -> np.ndarray:
    """Values (h, w, samples) of an image of so many bands, and perhaps alpha, as the network sees them."""
    if bands.count != RGB.count:
        return scaled_values(values[..., : bands.count], bands.ranges)
    pixels = scaled(values[..., 0] if found == 1 else values[..., :3], bands.ranges)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[-1] == 1 else pixels


def _check(size: tuple[int, int], most: int) -> None:
    height, width = size
    if height * width <= most:
        return
    raise ValueError(
        f"it has {width} x {height} pixels, and {most:,} of such a file are read at most"
        + (f"; a tiled TIFF file is read in parts, and others are with {remedy('large')}" if most < MOST_PIXELS else "")
    )
