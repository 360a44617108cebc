"""Reading one image or one mask from a file, exactly, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rmiseg.data.classes import ClassTable, Color, RawValue, describe_classes
from rmiseg.data.deep import (
    PHOTOMETRIC,
    ValueRange,
    is_deep,
    is_garbled,
    packing,
    read_deep,
    read_tiff,
    scaled,
    unmapped,
)
from rmiseg.runtime.extras import import_extra

NEW_SUBFILE_TYPE = 254
"""Number of the TIFF tag that says whether a page is a smaller copy (1) or a mask of transparency (4) of another."""
SMOOTHED_VALUES, SMOOTHED_SHARE = 4, 0.8
"""Least number of unknown values in a mask whose edges were smoothed, and least share of its other pixels."""


def read_image(path: Path, reduction: int = 1, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read an image of any format and mode as RGB (H, W, 3) uint8, turned as its EXIF orientation says.

    Gray becomes three equal channels, and alpha is dropped.

    Args:
        path: File of the image.
        reduction: 1, 2, 4 or 8: average squares of so many pixels, (H / reduction, W / reduction) rounded up remain.
            JPEG files are decoded at that size, two to five times as fast.
        value_range: Values that become 0 and 255, for files of more than 8 bits; without, 16 bits keep their high byte.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds several images, or its values need a range and there is none.
    """
    try:
        # Pillow, not torchvision.io: the latter is deprecated, and reads no TIFF or BMP.
        with open_image(path) as image:
            if is_deep(image) and (value_range is not None or is_garbled(image)):
                return reduced(scaled(read_deep(image, path), value_range), reduction)
            if reduction == 1:
                return rgb_pixels(image)
            # Only JPEG has drafts; asked for a size, they take the smallest that is no smaller.
            size = (image.width // reduction, image.height // reduction)
            if min(size) > 0 and image.draft(None, size):
                return rgb_pixels(image)
            return reduced(rgb_pixels(image), reduction)
    except UnidentifiedImageError as error:
        if not _is_tiff(path):
            raise ValueError(f"cannot read image {path}: {error}") from error
        return reduced(_through_tifffile(path, partial(scaled, value_range=value_range)), reduction)
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:  # decoders fail in many ways: OSError, SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"cannot read image {path}: {error}") from error


def deep_values(path: Path) -> NDArray[Any] | None:
    """Read the values of an image as they are, (H, W) or (H, W, 3), if they have more than 8 bits.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    try:
        with open_image(path) as image:
            return read_deep(image, path) if is_deep(image) else None
    except UnidentifiedImageError as error:
        if not _is_tiff(path):
            raise ValueError(f"cannot read image {path}: {error}") from error
        return _through_tifffile(path)
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise ValueError(f"cannot read image {path}: {error}") from error


def open_image(path: Path) -> Image.Image:
    """Open an image file that holds one image.

    Raises:
        ValueError: it holds several: pages of a TIFF, frames of an animation.
    """
    image = Image.open(path)
    if image.format in ("TIFF", "GIF", "WEBP", "PNG") and (pages := _pages(image)) > 1:
        image.close()
        kind = "pages" if image.format == "TIFF" else "frames"
        raise ValueError(f"it holds {pages} {kind}, which are several images: save each as a file of its own")
    return unmapped(image)


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


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _through_tifffile(path: Path, then: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray) -> NDArray[Any]:
    """Read a TIFF file that Pillow does not know, such as three bands of floats."""
    try:
        return then(read_tiff(path))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read image {path}: {error}") from error


def reduced(pixels: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8]:
    """Average squares of pixels (H, W, 3): (H / reduction, W / reduction, 3) rounded up remain."""
    return pixels if reduction == 1 else np.array(Image.fromarray(pixels).reduce(reduction))


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
        raise ValueError(
            f"pixels of mode {image.mode} have no defined range; say which values are black and white, as `range: "
            f"[0, 1]` in dataset.yaml or as data.value_range"
        )
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


class RawMask(NamedTuple):
    """Raw values of a mask, exactly as stored.

    Attributes:
        values: Values (H, W) of an integer dtype, or colors (H, W, 3) uint8.
        palette: Colors of the values, of a file with a palette.
    """

    values: NDArray[Any]
    palette: tuple[Color, ...] = ()


def read_raw_mask(path: Path, rgb: bool) -> RawMask:
    """Read the raw values of a mask, exactly as stored, turned as its EXIF orientation says.

    Args:
        path: File of the mask.
        rgb: Whether to return colors; else values, which are palette indices for palette images, and what the three
            bands have in common for gray that was saved as RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the file is a .mat file, and SciPy is not installed.
        ValueError: the file is damaged, or holds another kind of pixels, or several images.
    """
    try:
        if path.suffix.lower() == ".mat":
            return RawMask(_read_sbd(path))
        with open_image(path) as image:
            if not rgb:
                if is_deep(image) and image.mode in ("RGB", "RGBA", "RGBX"):
                    return RawMask(_gray_of(read_deep(image, path), image.mode))
                colors = image.getpalette() or [] if image.mode == "P" else []
                palette = tuple((colors[i], colors[i + 1], colors[i + 2]) for i in range(0, len(colors) - 2, 3))
                return RawMask(raw_values(image, turn=True), palette)
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
                raise ValueError(f"the classes are given as colors, but the pixels are of mode {image.mode}")
            ImageOps.exif_transpose(image, in_place=True)
            return RawMask(np.array(image.convert("RGB")))
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise ValueError(f"cannot read mask {path}: {error}") from error


def raw_values(image: Image.Image, turn: bool = False) -> NDArray[Any]:
    """Return the values (H, W) of a Pillow image that is a mask, palette indices if it has a palette.

    Args:
        image: The image.
        turn: Turn it, in place, as its EXIF orientation says.

    Raises:
        ValueError: its pixels are colors or floats.
    """
    packed = packing(image)  # known of a file, until its pixels are loaded
    inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0 and packed.partition(";")[2].strip("0123456789")
    if turn:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("LA", "PA"):
        return np.array(image)[..., 0]
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _gray_of(np.asarray(image)[..., :3], image.mode)
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(_no_values(image.mode))
    raw = np.array(image)
    if image.mode == "1":
        return (raw ^ bool(inverted)).astype(np.uint8)
    if inverted and image.mode == "L":  # MinIsWhite, which Pillow turns into how it looks
        raw = 255 - raw
    # Pillow stretches gray of 2 and 4 bits to 0 .. 255.
    return raw // 85 if "L;2" in packed else raw // 17 if "L;4" in packed else raw


def _gray_of(colors: NDArray[Any], mode: str) -> NDArray[Any]:
    """Return the values (H, W) of gray that was saved as colors (H, W, 3)."""
    if not (colors == colors[..., :1]).all():
        raise ValueError(_no_values(mode))
    return np.ascontiguousarray(colors[..., 0])


def _no_values(mode: str) -> str:
    return (
        f"the classes are given as single values, but the pixels are of mode {mode}; for masks that "
        f"hold colors, give the classes in dataset.yaml as name: [red, green, blue]"
    )


def _read_sbd(path: Path) -> NDArray[Any]:
    """Return the category of each pixel in a MATLAB file of the Semantic Boundaries Dataset."""
    loadmat = import_extra("scipy.io", "sbd", "reading .mat files").loadmat
    return np.asarray(loadmat(path, variable_names="GTcls")["GTcls"]["Segmentation"][0, 0])


def read_mask(path: Path, classes: ClassTable) -> NDArray[np.uint8]:
    """Read a mask as class ids (H, W) uint8, with `IGNORE_INDEX` where ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds a value that is neither a class nor ignored.
    """
    ids, unknown = classes.encode(read_raw_mask(path, classes.rgb).values)
    if unknown:
        found = ", ".join(f"{value} ({count} pixels)" for value, count in list(unknown.items())[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(
            f"mask {path} holds values that are neither a class nor ignored: {found}{more}.\n"
            f"Classes: {describe_classes(classes)}.\n{smoothed(ids.size, unknown)}"
            f"`rmiseg data check` lists all such values and files. Correct the masks or, in a data set of your own, "
            f"add each value to `classes` or to `ignore` in dataset.yaml."
        )
    return ids


def smoothed(pixels: int, unknown: Mapping[RawValue, int]) -> str:
    """Say so, if masks look as if their edges had been smoothed: many values, of which few pixels are no class.

    Args:
        pixels: Pixels of the masks.
        unknown: Pixels of each raw value that is neither a class nor ignored.
    """
    share = 1 - sum(unknown.values()) / max(pixels, 1)
    if len(unknown) < SMOOTHED_VALUES or share < SMOOTHED_SHARE:
        return ""
    return (
        f"{share:.1%} of the pixels are classes or ignored, and the others hold {len(unknown)} values: edges that were "
        f"smoothed, or compressed? `nearest: true` in dataset.yaml reads each as the nearest value that is known.\n"
    )
