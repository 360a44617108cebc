"""The types that every data set shares, and reading one image with its mask.

A data set module only answers "which image goes with which mask, and what do the mask values mean": it returns a
`Split`, which is a list of `Sample` and a `ClassTable`. `SegmentationDataset` reads them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from torchvision import tv_tensors

from rmiseg.runtime.extras import import_extra

IGNORE_INDEX = 255
"""Class id of the pixels that are neither trained on nor scored."""

Color: TypeAlias = tuple[int, int, int]
RawValue: TypeAlias = int | Color
"""What a mask file stores for a class: a value (index masks), or a color (RGB masks)."""

Transform: TypeAlias = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Sample:
    """One image and its mask.

    Args:
        name: Name of the sample, unique in its split; relative path without suffix, with forward slashes.
        image: File of the image.
        mask: File of the mask; None in a split that is published without masks.
    """

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class ClassTable:
    """Names and colors of the classes, and how the raw values in mask files map to class ids.

    Class ids are 0 .. C-1 in the order of ``names``; ignored pixels get `IGNORE_INDEX`.

    Args:
        names: Name of each class.
        values: Raw value of each class in the mask files, either all values (0 .. 65535) or all colors.
        ignore: Raw values of ignored pixels, of the same kind as ``values``.
        palette: Color of each class in pictures.

    Raises:
        ValueError: no class, more than 255, lengths that differ, a name or raw value given twice, values and colors
            mixed, or a value out of range.
    """

    names: tuple[str, ...]
    values: tuple[RawValue, ...]
    ignore: tuple[RawValue, ...]
    palette: tuple[Color, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 1 <= count <= IGNORE_INDEX:
            raise ValueError(
                f"{count} classes; there must be 1 to {IGNORE_INDEX}, since class ids are stored in one byte"
            )
        if not count == len(self.values) == len(self.palette):
            raise ValueError(f"{count} class names, {len(self.values)} values and {len(self.palette)} palette colors")
        if twice := _repeated(self.names):
            raise ValueError(f"class name {twice!r} is given twice")
        raws = self.values + self.ignore
        if len({isinstance(raw, tuple) for raw in raws}) > 1:
            raise ValueError(f"mask values and mask colors cannot be mixed: {', '.join(map(str, raws))}")
        if (twice := _repeated(raws)) is not None:
            raise ValueError(f"mask value {twice} is given twice, among classes and ignored values")
        for color in [raw for raw in raws if isinstance(raw, tuple)] + list(self.palette):
            if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
                raise ValueError(f"color {color} is not three numbers from 0 to 255")
        for raw in raws:
            if isinstance(raw, int) and not 0 <= raw <= 65535:
                raise ValueError(f"mask value {raw} is outside 0 .. 65535")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rgb(self) -> bool:
        """Whether mask files hold colors rather than values."""
        return isinstance(self.values[0], tuple)

    def encode(self, raw: np.ndarray) -> tuple[np.ndarray, dict[RawValue, int]]:
        """Map raw mask values to class ids.

        Args:
            raw: Values (H, W) of any integer dtype, or colors (H, W, 3) uint8, as `read_raw_mask` returns them.

        Returns:
            Class ids (H, W) uint8, and the number of pixels of each raw value that is neither a class nor ignored.
            Such pixels are `IGNORE_INDEX` in the class ids.
        """
        keys = tuple(_pack(value) for value in self.values + self.ignore)
        if raw.dtype == np.uint8 and not self.rgb:  # the common case, three times as fast with strings
            known, table = _byte_table(keys, len(self.names))
            if not (data := raw.tobytes()).translate(None, delete=known):
                return np.frombuffer(bytearray(data.translate(table)), np.uint8).reshape(raw.shape), {}
        if self.rgb:
            red, green, blue = np.moveaxis(raw.astype(np.int32), -1, 0)
            packed = red << 16 | green << 8 | blue
        elif raw.dtype == np.uint8 or raw.dtype == np.uint16:
            packed = raw
        else:
            packed = np.where((raw < 0) | (raw > 65535), 65536, raw)  # 65536: beyond every class
        # One more than the class id, in 16 bits, because 0 is taken by unknown values.
        ids = _lookup_table(keys, len(self.names), 1 << 24 if self.rgb else 65537)[packed]
        unknown: dict[RawValue, int] = {}
        if not ids.all():
            strange, counts = np.unique(raw[ids == 0], axis=0, return_counts=True)
            unknown = {
                tuple(value) if self.rgb else value: count for value, count in zip(strange.tolist(), counts.tolist())
            }
        return (ids - 1).astype(np.uint8), unknown


def _repeated(items: tuple[Any, ...]) -> Any | None:
    return next((item for i, item in enumerate(items) if item in items[:i]), None)


def _pack(value: RawValue) -> int:
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


@functools.cache
def _byte_table(keys: tuple[int, ...], num_classes: int) -> tuple[bytes, bytes]:
    """The values that have a meaning, and what each of the 256 becomes, for `bytes.translate`."""
    table = bytearray(256)
    known = {key: index if index < num_classes else IGNORE_INDEX for index, key in enumerate(keys) if key < 256}
    for key, value in known.items():
        table[key] = value
    return bytes(known), bytes(table)


@functools.cache  # one a process, outside of ClassTable so that it is not sent to loader processes
def _lookup_table(keys: tuple[int, ...], num_classes: int, size: int) -> np.ndarray:
    # Zero pages of memory cost nothing until they are touched: a table of all colors is in truth small.
    table = np.zeros(size, np.uint16)
    for index, key in enumerate(keys):
        table[key] = 1 + (index if index < num_classes else IGNORE_INDEX)
    return table


def voc_palette(count: int) -> tuple[Color, ...]:
    """The color map of PASCAL VOC: ``count`` colors, any two of them different, starting with black."""
    colors = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


@dataclass(frozen=True)
class Split:
    """The samples of one split, the classes, and what did not fit together.

    Args:
        name: Name of the split.
        samples: Complete pairs of image and mask, in a fixed order; or all images of a split without masks.
        classes: The classes.
        images_without_mask: Images that cannot be used.
        masks_without_image: Masks that nothing refers to; harmless, but seldom intended.
        problems: Anything else that is wrong with the files, one line each.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: ClassTable
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def labeled(self) -> bool:
        """Whether there are masks; without, a split is for prediction only."""
        return all(sample.mask is not None for sample in self.samples)


def read_image(path: Path, reduction: int = 1) -> np.ndarray:
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
            size = tuple(side // reduction for side in image.size)
            if min(size) > 0 and image.draft(None, size):
                return rgb_pixels(image)
            return np.array(Image.fromarray(rgb_pixels(image)).reduce(reduction))
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders fail in many ways: OSError, SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"cannot read image {path}: {error}") from error


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image as `read_image` returns them.

    Raises:
        ValueError: its pixels are floats or 32-bit integers, which have no defined white.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError(f"pixels of mode {image.mode} have no defined range; convert them to 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_raw_mask(path: Path, rgb: bool) -> np.ndarray:
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
            packing = str(image.tile[0][3]) if image.tile else ""  # gone once the pixels are loaded
            if rgb:
                if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
                    raise ValueError(f"the classes are given as colors, but the pixels are of mode {image.mode}")
                return np.array(image.convert("RGB"))
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
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise ValueError(f"cannot read mask {path}: {error}") from error


def _read_sbd(path: Path) -> np.ndarray:
    """The category of each pixel in a MATLAB file of the Semantic Boundaries Dataset."""
    loadmat = import_extra("scipy.io", "sbd", "reading .mat files").loadmat
    return loadmat(path, variable_names="GTcls")["GTcls"]["Segmentation"][0, 0]


def read_mask(path: Path, classes: ClassTable) -> np.ndarray:
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


def describe_classes(classes: ClassTable) -> str:
    """The classes and ignored values in one line, shortened when there are many."""
    known = [f"{value} {name}" for value, name in zip(classes.values, classes.names)]
    if len(known) > 12:
        known = [*known[:6], "...", *known[-3:]]
    return ", ".join(known) + f"; ignored: {', '.join(map(str, classes.ignore)) or 'none'}"


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images with their masks, read from files and transformed.

    An item is a dictionary: ``image`` uint8 (3, H, W), ``mask`` uint8 (H, W) of class ids with `IGNORE_INDEX`, both
    tv_tensors unless the transform returns something else, and ``name``.

    Args:
        split: The samples and classes.
        transform: Called with (image, mask), returns both; any transform of torchvision.transforms.v2 will do.
        reduction: Read images at a half (2), a fourth (4) or an eighth (8) of their size, and masks at the same size;
            for transforms that would make them as small as that anyway.

    The key of an item is its index or (index, seed). With a seed, torch's random numbers are seeded during the
    transform and restored afterwards, so that the item is a function of the key, whichever process reads it.

    Raises:
        ValueError: the split has no masks.
    """

    def __init__(self, split: Split, transform: Transform | None = None, reduction: int = 1) -> None:
        if not split.labeled:
            raise ValueError(f"split {split.name} has no masks")
        if reduction not in (1, 2, 4, 8):
            raise ValueError(f"reduction must be 1, 2, 4 or 8, not {reduction}")
        self.samples = split.samples
        self.classes = split.classes
        self.transform = transform
        self.reduction = reduction

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Read one item.

        Raises:
            FileNotFoundError: a file has gone.
            ValueError: a file is damaged, the mask holds an unknown value, or its size is not that of the image.
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        sample = self.samples[index]
        pixels, ids = read_image(sample.image, self.reduction), read_mask(sample.mask, self.classes)
        rows, columns = (_centers(side, self.reduction) for side in ids.shape)
        if pixels.shape[:2] != (len(rows), len(columns)):
            raise ValueError(size_mismatch(sample, read_image(sample.image).shape[1::-1], ids.shape[::-1]))
        if self.reduction > 1:
            ids = ids[np.ix_(rows, columns)]
        # The view (3, H, W) of (H, W, 3) memory is what torchvision resizes fastest.
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.from_numpy(ids))
        if self.transform is not None and seed is None:
            image, mask = self.transform(image, mask)
        elif self.transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed takes as long as the transform
                image, mask = self.transform(image, mask)
        return {"image": image, "mask": mask, "name": sample.name}


def _centers(length: int, reduction: int) -> np.ndarray:
    """The middle one of every so many positions."""
    return np.minimum(np.arange(0, length, reduction) + reduction // 2, length - 1)


def size_mismatch(sample: Sample, image_size: tuple[int, ...], mask_size: tuple[int, ...]) -> str:
    """Say that image and mask differ in size (width, height), and why that may be."""
    text = (
        f"image {sample.image} is {image_size[0]} x {image_size[1]} pixels, "
        f"but its mask {sample.mask} is {mask_size[0]} x {mask_size[1]}"
    )
    if image_size[0] != image_size[1] and image_size == mask_size[::-1]:
        text += "; is the mask of the image before it was turned by its EXIF orientation?"
    return text
