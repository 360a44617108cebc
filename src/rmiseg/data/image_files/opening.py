"""Opening image files, whatever their format, and what is said when one is damaged or holds several images."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from rmiseg.data.image_files.damage import check_png, damaged
from rmiseg.data.image_files.deep import header, is_deep, unmapped
from rmiseg.data.image_files.dicom import dicom_header, is_dicom
from rmiseg.data.image_files.tiff import Header, TiffImage, is_tiff, several, stored_nodata
from rmiseg.data.image_files.volumes import is_slice, read_slice, slice_header
from rmiseg.runtime.places import said_of

NEW_SUBFILE_TYPE = 254
"""Number of the TIFF tag that says whether a page is a smaller copy (1) or a mask of transparency (4) of another."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "TGA", "AVIF", "JPEG2000")
"""Formats that are decoded, whatever a file is called. Pillow knows others: for some it starts programs (EPS)."""
UNREADABLE = (ValueError, OSError, ModuleNotFoundError)
"""Errors of a file that cannot be read: it is damaged, or not there, or the package that reads it is not installed."""

T = TypeVar("T")

# Pillow logs that a TIFF file has more bands than it reads, once an image; tifffile reads them.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
# tifffile does so for every tag that it cannot use, such as -9999 for no data in a file of uint16.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
# Of damaged tags Pillow warns without the name of the file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def opened(
    path: Path,
    kind: str,
    read: Callable[[Image.Image], T],
    otherwise: Callable[[], T] | None = None,
    *,
    pages: int = 1,
    pixels: bool = True,
) -> T:
    """Do something with an image or a mask that Pillow opens, or otherwise with a file that it does not know.

    Such are DICOM files, and TIFF files of other bands and types.

    Args:
        path: The file.
        kind: image or mask, that it is taken for.
        read: What is done with an image of Pillow's, not yet loaded.
        otherwise: What is done with another file.
        pages: Number of pages of a TIFF file that are bands of one image, which Pillow does not know.
        pixels: False if its header alone is read.

    Raises:
        FileNotFoundError, ValueError, ModuleNotFoundError: as `read_image`.
    """

    def work() -> T:
        if is_slice(path):
            if otherwise is None:
                raise ValueError("it is a slice of a volume")
            return otherwise()
        try:
            # Pillow, not torchvision.io: the latter is deprecated, and reads no TIFF or BMP.
            with open_image(path, kind, pages) as image:
                if image.format == "PNG" and pixels:
                    check_png(path)
                return read(image)
        except UnidentifiedImageError:
            if otherwise is None or not (is_tiff(path) or is_dicom(path)):
                raise ValueError(_what_else(path)) from None
            return otherwise()

    return said(path, kind, work)


def _what_else(path: Path) -> str:
    """Say what a file is that is no image."""
    with open(path, "rb") as file:
        begin = file.read(200)
    if not begin:
        return "it is empty: was it copied to the end?"
    if begin.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, and no image: `git lfs pull` fetches those"
    if begin.lstrip().lower().startswith((b"<html", b"<!doctype html")):
        return "it is a web page, and no image: was the download refused?"
    if begin[4:8] == b"ftyp" and begin[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "it is a HEIC image, which is not read: save it as PNG or JPEG"
    if begin.startswith((b"\x89HDF", b"\x93NUMPY")):
        return "it is an array, and no image: save it as PNG or TIFF"
    return "it is of no kind of image that is known, or damaged: open and save it as PNG or TIFF"


def said(path: Path, kind: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except ModuleNotFoundError:
        raise
    except FileNotFoundError as error:
        link = f": it is a symbolic link to {os.readlink(path)}, where there is nothing" if path.is_symlink() else ""
        raise FileNotFoundError(f"{kind} {path} does not exist{link}") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ValueError(
            f"cannot read {kind} {path}: images of more than {most:.0f} million pixels are not read at once. Cut image "
            "and mask into tiles, such as 2048 x 2048"
        ) from error
    except Exception as error:  # decoders fail in many ways: SyntaxError, struct.error, EOFError, IndexError, ...
        known = isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is not None)
        reason = said_of(error) if known else damaged(str(error))
        raise ValueError(f"cannot read {kind} {path}: {reason}") from error


@contextmanager
def of_any_size() -> Iterator[None]:
    """Open images, or read their headers, without Pillow's limit on their pixels, which are not decoded in here."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def open_image(path: Path, kind: str = "image", bands: int = 1) -> Image.Image:
    """Open an image file that holds one image.

    Args:
        path: The file.
        kind: image or mask, that it is taken for.
        bands: See `opened`, pages.

    Raises:
        UnidentifiedImageError: it is of none of the `FORMATS`, or its pages are bands.
        ValueError: it holds several: pages of a TIFF, frames of an animation.
    """
    image = Image.open(path, formats=decoded())
    if image.format in ("TIFF", "GIF", "WEBP", "PNG") and (pages := _pages(image)) > 1:
        image.close()
        if pages == bands and image.format == "TIFF":
            raise UnidentifiedImageError
        raise ValueError(several(pages, "pages" if image.format == "TIFF" else "frames", kind))
    return unmapped(image)


@functools.cache
def decoded() -> tuple[str, ...]:
    """Those of the `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _pages(image: Image.Image) -> int:
    """Number of the images in a file; smaller copies of one, as in GeoTIFF, do not count."""
    frames: int = getattr(image, "n_frames", 1)
    if frames == 1 or image.format != "TIFF":
        return frames
    pages = 0
    for frame in range(frames):
        image.seek(frame)
        pages += not image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & 5  # type: ignore[attr-defined]  # of TIFF files
    image.seek(0)
    return pages


def image_header(path: Path, pages: int = 1) -> Header:
    """Return what an image file holds, by its header.

    Args:
        path: The file.
        pages: Number of pages of a TIFF file that are bands of one image.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """

    def otherwise() -> Header:
        if is_slice(path):
            return slice_header(path)
        if is_dicom(path):
            return dicom_header(path)
        with TiffImage(path, pages) as image:
            return image.header

    return opened(path, "image", header, otherwise, pages=pages, pixels=False)


def nodata_of(path: Path) -> float | None:
    """Return the value that stands for no data in a file, if it is a TIFF file that says so."""
    if is_slice(path) or not is_tiff(path):
        return None
    return said(path, "image", lambda: stored_nodata(path))


def has_deep_values(path: Path) -> bool:
    """Return whether the values of an image of gray or colors have more than 8 bits; False if it cannot be read."""

    def otherwise() -> bool:
        if is_slice(path):
            return bool(read_slice(path).dtype.itemsize > 1)
        if is_dicom(path):
            return True
        with TiffImage(path) as image:
            return bool(image.dtype != np.uint8)

    try:
        return opened(path, "image", is_deep, otherwise, pixels=False)
    except UNREADABLE:
        return False
