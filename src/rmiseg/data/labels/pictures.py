"""The image files that labels are for: their sizes by their headers, or their content where a document holds it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from rmiseg.data.image_files.deep import orientation_of
from rmiseg.data.image_files.opening import decoded
from rmiseg.data.labels.annotations import LabeledImage
from rmiseg.data.labels.shapes import from_base64
from rmiseg.data.labels.values import Size
from rmiseg.runtime.extras import import_extra

EMBEDDED = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
"""Formats of images that documents hold, and the suffixes of their files."""


@dataclass
class Picture:
    """An image with its labels.

    Attributes:
        labels: What the tool knows of it.
        size: Height and width as it is shown: turned as its EXIF orientation says.
        stored: Height and width as it is stored.
        orientation: Its EXIF orientation.
        path: Its file.
        content: Its content, if there is no file.
        suffix: Suffix of its file.
        split: Name of its split; "" if it has none yet.
    """

    labels: LabeledImage
    size: Size
    stored: Size
    orientation: int
    path: Path | None
    content: bytes | None
    suffix: str
    split: str

    @property
    def title(self) -> str:
        """Its file, or its name."""
        return str(self.path) if self.path else self.labels.reference


def look_at(path: Path, labels: LabeledImage) -> Picture:
    """Return an image file with its labels; its header is read.

    Raises:
        ValueError: It is no image, or one too large to be read.
    """
    try:
        with Image.open(path, formats=decoded()) as image:
            stored, orientation = (image.height, image.width), orientation_of(image)
    except UnidentifiedImageError as error:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise ValueError(
                f"{labels.document} names {path}, which is no image that is read here: convert it, and name the "
                f"new file in the labels"
            ) from error
        stored, orientation = _tiff_size(path), 1
    except Exception as error:  # of damaged files, decoders fail in many ways
        raise ValueError(f"cannot read image {path}: {error}") from error
    return _picture(labels, stored, orientation, path, None, path.suffix)


def embedded_picture(labels: LabeledImage) -> Picture:
    """Return the image that a document holds.

    Raises:
        ValueError: It is none.
    """
    title = f"{labels.document}: the image {labels.reference}, which it holds,"
    try:
        content = from_base64(labels.embedded)
        with Image.open(io.BytesIO(content), formats=decoded()) as image:
            suffix = EMBEDDED.get(image.format or "")
            stored, orientation = (image.height, image.width), orientation_of(image)
    except Exception as error:
        raise ValueError(f"{title} cannot be read: {error}") from error
    if suffix is None:
        raise ValueError(f"{title} is none of {', '.join(EMBEDDED)}")
    return _picture(labels, stored, orientation, None, content, suffix)


def _picture(
    labels: LabeledImage, stored: Size, orientation: int, path: Path | None, content: bytes | None, suffix: str
) -> Picture:
    size = (stored[1], stored[0]) if orientation > 4 else stored
    return Picture(labels, size, stored, orientation, path, content, suffix, labels.split)


def _tiff_size(path: Path) -> Size:
    tifffile = import_extra("tifffile", "train", f"reading {path}")
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            return int(page.imagelength), int(page.imagewidth)
    except Exception as error:
        raise ValueError(f"cannot read image {path}: {error}") from error
