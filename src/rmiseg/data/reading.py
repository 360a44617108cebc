"""Reading one image or one mask from a file, exactly, whatever its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rmiseg.data.classes import ClassTable, describe_classes
from rmiseg.runtime.extras import import_extra


def read_image(path: Path, reduction: int = 1) -> NDArray[np.uint8]:
    """Read an image of any format and mode as RGB (H, W, 3) uint8, turned as its EXIF orientation says.

    Gray becomes three equal channels, alpha is dropped, and 16 bits keep their high byte.

    Args:
        path: File of the image.
        reduction: 1, 2, 4 or 8: average squares of so many pixels, (H / reduction, W / reduction) rounded up remain.
            JPEG files are decoded at that size, two to five times as fast.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its pixels are floats or 32-bit integers, which have no defined white.
    """
    try:
        # Pillow, not torchvision.io: the latter is deprecated, and reads no TIFF or BMP.
        with Image.open(path) as image:
            if reduction == 1:
                return rgb_pixels(image)
            # Only JPEG has drafts; asked for a size, they take the smallest that is no smaller.
            size = (image.width // reduction, image.height // reduction)
            if min(size) > 0 and image.draft(None, size):
                return rgb_pixels(image)
            return reduced(rgb_pixels(image), reduction)
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders fail in many ways: OSError, SyntaxError, struct.error, EOFError, ...
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
        raise ValueError(f"pixels of mode {image.mode} have no defined range; convert them to 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_raw_mask(path: Path, rgb: bool) -> NDArray[Any]:
    """Read the raw values of a mask, exactly as stored.

    Args:
        path: File of the mask.
        rgb: Whether to return colors; else values, which are palette indices for palette images.

    Returns:
        Values (H, W) of an integer dtype, or colors (H, W, 3) uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the file is a .mat file, and SciPy is not installed.
        ValueError: the file is damaged, or holds another kind of pixels.
    """
    try:
        if path.suffix.lower() == ".mat":
            return _read_sbd(path)
        with Image.open(path) as image:
            if not rgb:
                return raw_values(image)
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
                raise ValueError(f"the classes are given as colors, but the pixels are of mode {image.mode}")
            return np.array(image.convert("RGB"))
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise ValueError(f"cannot read mask {path}: {error}") from error


def raw_values(image: Image.Image) -> NDArray[Any]:
    """Return the values (H, W) of a Pillow image that is a mask, palette indices if it has a palette.

    Raises:
        ValueError: its pixels are colors or floats.
    """
    tiles = getattr(image, "tile", None)  # of a file, until its pixels are loaded
    packing = str(tiles[0][3]) if tiles else ""
    if image.mode in ("LA", "PA"):
        return np.array(image)[..., 0]
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(
            f"the classes are given as single values, but the pixels are of mode {image.mode}; for masks that "
            f"hold colors, give the classes in dataset.yaml as name: [red, green, blue]"
        )
    raw = np.array(image)
    if image.mode == "1":
        return raw.astype(np.uint8)
    # Pillow stretches gray of 2 and 4 bits to 0 .. 255.
    return raw // 85 if "L;2" in packing else raw // 17 if "L;4" in packing else raw


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
    ids, unknown = classes.encode(read_raw_mask(path, classes.rgb))
    if unknown:
        found = ", ".join(f"{value} ({count} pixels)" for value, count in list(unknown.items())[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(
            f"mask {path} holds values that are neither a class nor ignored: {found}{more}.\n"
            f"Classes: {describe_classes(classes)}.\n"
            f"`rmiseg data check` lists all such values and files. Correct the masks or, in a data set of your own, "
            f"add each value to `classes` or to `ignore` in dataset.yaml."
        )
    return ids
