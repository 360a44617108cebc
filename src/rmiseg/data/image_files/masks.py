"""Reading one mask from a file, exactly, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rmiseg.data.classes import ClassTable, Color, RawValue, describe_classes
from rmiseg.data.image_files.deep import (
    COLORS,
    header,
    is_deep,
    is_garbled,
    is_inverted,
    is_signed,
    netpbm_most,
    packing,
    read_deep,
    read_tiff,
    unstretched,
)
from rmiseg.data.image_files.dicom import is_dicom
from rmiseg.data.image_files.exactness import check_exact, check_exact_tiff
from rmiseg.data.image_files.matlab import read_categories
from rmiseg.data.image_files.opening import opened, said
from rmiseg.data.image_files.reading import unknown_to_pillow
from rmiseg.data.image_files.volumes import is_slice
from rmiseg.runtime.words import some

SMOOTHED_VALUES, SMOOTHED_SHARE = 4, 0.6
"""Least number of unknown values in a mask whose edges were smoothed, and least share of its other pixels."""


class RawMask(NamedTuple):
    """Raw values of a mask, exactly as stored.

    Attributes:
        values: Values (H, W) of an integer dtype, or colors (H, W, 3) uint8.
        palette: Colors of the values, of a file with a palette.
        transparent: True if some pixels of gray or colors are transparent, and some are not.
        inverted: True if it is a TIFF file whose zero is white (MinIsWhite), whose stored values are not what is seen.
    """

    values: NDArray[Any]
    palette: tuple[Color, ...] = ()
    transparent: bool = False
    inverted: bool = False


def read_raw_mask(path: Path, rgb: bool, lossy: bool = False) -> RawMask:
    """Read the raw values of a mask, exactly as stored, turned as its EXIF orientation says.

    Of GIF files, whose indices are the program's that wrote it, gray levels are values.

    Args:
        path: File of the mask.
        lossy: True to take what a file holds that does not keep values exactly, such as JPEG.
        rgb: Whether to return colors; else values, which are palette indices for palette images, and what the three
            bands have in common for gray that was saved as RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, does not keep values exactly, holds another kind of pixels, or several images.
    """
    if path.suffix.lower() == ".mat":
        return said(path, "mask", lambda: RawMask(read_categories(path)))
    if path.suffix.lower() == ".npy":
        return said(path, "mask", lambda: RawMask(_read_array(path, rgb)))

    def read(image: Image.Image) -> RawMask:
        if not lossy:
            check_exact(image, path)
        if not rgb:
            image = _gray(image) if image.format == "GIF" else image
            if image.mode == "L" and header(image).bands == 2:  # of which Pillow reads the first
                return RawMask(_whole(read_tiff(path, stored=True), image.mode))
            if is_signed(image) or (is_deep(image) and (image.mode in COLORS or is_garbled(image))):
                return RawMask(_whole(read_deep(image, path, stored=True), image.mode))
            colors = image.getpalette() or [] if image.mode == "P" else []
            palette = tuple(zip(colors[::3], colors[1::3], colors[2::3]))
            inverted = is_inverted(image)
            return RawMask(raw_values(image, turn=True), palette, _transparent(image), inverted)
        if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            raise ValueError(f"the classes are given as colors, but the pixels are of mode {image.mode}")
        ImageOps.exif_transpose(image, in_place=True)
        return RawMask(np.array(image.convert("RGB")), transparent=_transparent(image))

    def read_otherwise() -> RawMask:
        if not is_slice(path) and is_dicom(path):
            raise ValueError("masks in DICOM files are not read: save it as PNG")
        if not (lossy or is_slice(path)):
            check_exact_tiff(path)
        values = unknown_to_pillow(path, stored=True)
        if rgb:
            raise ValueError(f"the classes are given as colors, but the pixels are {values.dtype}")
        return RawMask(_whole(values, str(values.dtype)))

    return opened(path, "mask", read, read_otherwise)


def read_numbers(path: Path, colors: bool) -> NDArray[np.int32]:
    """Read a mask as numbers (H, W): its values, or of its colors red + 256 green + 65536 blue; see `read_raw_mask`."""
    values = read_raw_mask(path, rgb=colors).values.astype(np.int32)
    return np.asarray(values @ np.array([1, 256, 65536], np.int32)) if colors else values


def raw_values(image: Image.Image, turn: bool = False) -> NDArray[Any]:
    """Return the values (H, W) of a Pillow image that is a mask, palette indices if it has a palette.

    Args:
        image: The image.
        turn: Turn it, in place, as its EXIF orientation says.

    Raises:
        ValueError: its pixels are colors or floats.
    """
    packed, most = packing(image), netpbm_most(image)  # known of a file, until its pixels are loaded
    inverted = is_inverted(image) and packed.partition(";")[2].strip("0123456789")
    if turn:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("LA", "PA"):
        return np.array(image)[..., 0]
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _whole(np.asarray(image)[..., :3], image.mode)
    if image.mode == "F":
        return _whole(np.asarray(image), "F")
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(_no_values(image.mode))
    raw = unstretched(np.array(image), most)
    if image.mode == "1":
        return (raw ^ bool(inverted)).astype(np.uint8)
    if inverted and image.mode == "L":  # MinIsWhite, which Pillow turns into how it looks
        raw = 255 - raw
    # Pillow stretches gray of 2 and 4 bits to 0 .. 255.
    return raw // 85 if "L;2" in packed else raw // 17 if "L;4" in packed else raw


def _transparent(image: Image.Image) -> bool:
    low, high = image.getchannel("A").getextrema() if image.mode in ("LA", "RGBA") else (255, 255)
    return low == 0 != high


def _gray(image: Image.Image) -> Image.Image:
    """The gray levels of an image with a palette, if all colors that occur are gray; else the image."""
    used = [color for _, color in image.convert("RGB").getcolors(256) or []]
    gray = all(isinstance(color, tuple) and len(set(color)) == 1 for color in used)
    return image.convert("L") if gray and used else image


def _whole(values: NDArray[Any], mode: str) -> NDArray[Any]:
    """Return the whole numbers (H, W) of what was saved as colors (H, W, bands), all bands equal, or as floats."""
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise ValueError(_no_values(mode) if values.shape[-1] == 3 else _no_bands(values.shape[-1]))
        values = np.ascontiguousarray(values[..., 0])
    if values.dtype.kind != "f":
        return values
    values = values.astype(np.float64)  # of 16 bits, the limit below would be too much
    if not (np.isfinite(values) & (np.abs(values) < 1 << 31)).all() or (values != np.rint(values)).any():
        which = ": NaN is none, so save a number such as 255 for what is unknown" if np.isnan(values).any() else ""
        raise ValueError(f"its values are floats, and not whole numbers{which or ': save the numbers of the classes'}")
    return values.astype(np.int64)


def _no_values(mode: str) -> str:
    return (
        f"the classes are given as single values, but the pixels are of mode {mode}; for masks that "
        f"hold colors, give the classes in dataset.yaml as name: [red, green, blue]"
    )


def _no_bands(count: int) -> str:
    return (
        f"it has {count} bands that differ, and a mask has one value a pixel: if each band shows one class, save the "
        f"number of the class in their place"
    )


def _read_array(path: Path, rgb: bool) -> NDArray[Any]:
    """Return the values (H, W), or colors (H, W, 3), of an array that NumPy saved."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: no more is read than is there
    except ValueError as error:
        raise ValueError("it holds Python objects, which are not read" if "objects" in str(error) else error) from error
    if Image.MAX_IMAGE_PIXELS is not None and mapped.size > 3 * 2 * Image.MAX_IMAGE_PIXELS:  # Pillow's, for colors
        raise ValueError(f"it holds an array {mapped.shape}, which is larger than any image that is read")
    found = np.array(mapped)
    values = found[..., 0] if found.ndim == 3 and found.shape[-1] == 1 else found
    if rgb and values.ndim == 3 and values.shape[-1] == 3 and values.dtype == np.uint8:
        return values
    if values.ndim != 2 or values.dtype.kind not in "buif" or 0 in values.shape:
        wanted = "(H, W, 3) of uint8, as the classes are given as colors" if rgb else "(H, W) of numbers of classes"
        raise ValueError(f"it holds an array {found.shape} of {found.dtype}; a mask is {wanted}")
    if rgb:
        raise ValueError(f"the classes are given as colors, but the array is {values.shape}")
    return _whole(values.astype(np.uint8) if values.dtype == bool else values, str(values.dtype))


def read_mask(path: Path, classes: ClassTable) -> NDArray[np.uint8]:
    """Read a mask as class ids (H, W) uint8, with `IGNORE_INDEX` where ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds a value that is neither a class nor ignored.
    """
    ids, unknown = classes.encode(read_raw_mask(path, classes.rgb, classes.lossy).values)
    if unknown:
        found = some((f"{value} ({count} pixels)" for value, count in unknown.items()), 5)
        raise ValueError(
            f"mask {path} holds values that are neither a class nor ignored: {found}.\n"
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
