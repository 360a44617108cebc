"""Reading one image from a file, whatever its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rmiseg.data.bands import RGB, Bands, scaled, scaled_values, without_range
from rmiseg.data.image_files.deep import (
    header,
    is_deep,
    is_garbled,
    is_inverted,
    is_signed,
    netpbm_most,
    read_deep,
    read_tiff,
)
from rmiseg.data.image_files.dicom import is_dicom, read_dicom
from rmiseg.data.image_files.opening import opened, said
from rmiseg.data.image_files.tiff import is_tiff
from rmiseg.data.image_files.volumes import is_slice, read_slice


def read_image(path: Path, reduction: int = 1, bands: Bands = RGB) -> NDArray[np.uint8]:
    """Read an image of any format and mode as (H, W, B) uint8, turned as its EXIF orientation says.

    Where three bands are asked for, gray becomes three equal ones, and alpha is dropped.

    Args:
        path: File of the image.
        reduction: 1, 2, 4 or 8: average squares of so many pixels, (H / reduction, W / reduction) rounded up remain.
            JPEG files are decoded at that size, two to five times as fast.
        bands: Number of bands B, and the values that become 0 and 255, for files of more than 8 bits; without, 16 bits
            keep their high byte.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds several images or other bands, or its values need a range and there is
            none.
        ModuleNotFoundError: it needs a package that is not installed.
    """
    if bands.count != RGB.count:
        return reduced(scaled_values(band_values(path, bands.count), bands.ranges), reduction)

    def read(image: Image.Image) -> NDArray[np.uint8]:
        if (found := header(image).bands) not in (1, 3):
            raise ValueError(wrong_bands(found, 3))
        strange = is_garbled(image) or is_signed(image) or is_inverted(image) or image.mode == "LA"
        strange = strange or netpbm_most(image) > 255
        if is_deep(image) and (bands.ranges is not None or strange):
            return reduced(scaled(read_deep(image, path), bands.ranges), reduction)
        if reduction == 1:
            return rgb_pixels(image)
        # Only JPEG has drafts; asked for a size, they take the smallest that is no smaller.
        size = (image.width // reduction, image.height // reduction)
        if min(size) > 0 and image.draft(None, size):
            return rgb_pixels(image)
        return reduced(rgb_pixels(image), reduction)

    def read_otherwise() -> NDArray[np.uint8]:
        values = unknown_to_pillow(path, bands.pages)
        if values.ndim == 3 and values.shape[-1] != 3:
            raise ValueError(wrong_bands(values.shape[-1], 3))
        return reduced(scaled(values, bands.ranges), reduction)

    return opened(path, "image", read, read_otherwise, pages=bands.pages)


def band_values(path: Path, count: int) -> NDArray[Any]:
    """Read the values of an image of so many bands as they are, (H, W, count), turned by its orientation.

    Alpha counts as a band where it takes all to make so many.

    Raises:
        FileNotFoundError, ValueError, ModuleNotFoundError: as `read_image`.
    """

    def through_tifffile() -> NDArray[Any]:
        return chosen(read_tiff(path, alpha=True, pages=count))

    def read(image: Image.Image) -> NDArray[Any]:
        if image.format == "TIFF" and not (is_deep(image) and image.mode == "F"):
            return through_tifffile()
        if is_deep(image):
            return chosen(read_deep(image, path, alpha=True))
        if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB"):
            image = image.convert("RGBA" if header(image).alpha else "RGB")
        ImageOps.exif_transpose(image, in_place=True)
        return chosen(np.array(image.convert("L") if image.mode == "1" else image))

    def chosen(values: NDArray[Any]) -> NDArray[Any]:
        values = values[..., None] if values.ndim == 2 else values
        found = values.shape[-1]
        if found == count:
            return values
        if found in (2, 4) and found == count + 1:  # alpha, which is asked for nowhere
            return values[..., :count]
        raise ValueError(wrong_bands(found, count))

    if is_slice(path):
        return said(path, "image", lambda: chosen(read_slice(path)))
    if is_dicom(path):
        return said(path, "image", lambda: chosen(read_dicom(path)))
    if is_tiff(path):  # pages may be bands, which Pillow would take for several images
        return said(path, "image", through_tifffile)
    return opened(path, "image", read)


def wrong_bands(found: int, expected: int) -> str:
    """Say that an image has other bands than expected."""
    wanted = "gray or RGB is" if expected == 3 else f"{expected} are" if expected > 1 else "1 is"
    return f"it has {found} bands, and {wanted} expected: are all images alike?"


def deep_values(path: Path, bands: Bands = RGB) -> NDArray[Any] | None:
    """Read the values of an image as they are, if they have more than 8 bits.

    Args:
        path: File of the image.
        bands: How many there are; their ranges do not matter.

    Returns:
        (H, W) or (H, W, 3), or (H, W, count) where other bands than three are asked for; None of 8 bits.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    if bands.count != RGB.count:
        values = band_values(path, bands.count)
        return None if values.dtype == np.uint8 else values

    def read(image: Image.Image) -> NDArray[Any] | None:
        return read_deep(image, path) if is_deep(image) else None

    def read_otherwise() -> NDArray[Any] | None:
        values = unknown_to_pillow(path, bands.pages)
        return None if values.dtype == np.uint8 else values

    return opened(path, "image", read, read_otherwise, pages=bands.pages)


def unknown_to_pillow(path: Path, pages: int = 1, stored: bool = False) -> NDArray[Any]:
    """Read the values of a file that Pillow does not open: slices of volumes, DICOM, TIFF files of other kinds."""
    if is_slice(path):
        return read_slice(path)
    return read_dicom(path) if is_dicom(path) else read_tiff(path, pages=pages, stored=stored)


def reduced(pixels: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8]:
    """Average squares of pixels (H, W, B): (H / reduction, W / reduction, B) rounded up remain."""
    if reduction == 1:
        return pixels
    if pixels.shape[-1] == 3:
        return np.array(Image.fromarray(pixels).reduce(reduction))
    bands = [Image.fromarray(np.ascontiguousarray(band)).reduce(reduction) for band in np.moveaxis(pixels, -1, 0)]
    return np.stack([np.array(band) for band in bands], axis=-1)


def rgb_pixels(image: Image.Image, turn: bool = True) -> NDArray[np.uint8]:
    """Return the pixels of a Pillow image as `read_image` returns them, (H, W, 3) uint8.

    Args:
        image: The image.
        turn: Turn it, in place, as its EXIF orientation says.

    Raises:
        ValueError: its pixels are floats or 32-bit integers, which have no defined white.
    """
    if turn:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(without_range(f"mode {image.mode}", "0, 1"))
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
