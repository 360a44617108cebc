"""Inspection of image and mask files, and what is found in those of a split."""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rmiseg.data.bands import RGB, Bands
from rmiseg.data.checking.seams import seams
from rmiseg.data.classes import IGNORE_INDEX, ClassTable, Color, RawValue
from rmiseg.data.image_files.deep import orientation_of
from rmiseg.data.image_files.masks import RawMask, read_raw_mask
from rmiseg.data.image_files.opening import UNREADABLE, decoded, has_deep_values, image_header
from rmiseg.data.image_files.reading import read_image
from rmiseg.data.images import Sample, Split, size_mismatch

FLAT_SHARE = 0.001
"""Least share of the pixels that hold one strange value which is no accident."""


@dataclass
class Inspection:
    """Findings in one pair of files.

    Attributes:
        sample: The pair.
        unreadable: Reasons why a file cannot be read.
        size_mismatch: Sizes of image and mask, where they differ.
        image_size: Width and height.
        content: Hash of the pixels of the image; empty if it was not decoded, or is of one value.
        drawing: Hash of the class ids of the mask; empty if it holds a single one.
        counts: Pixels of each class id, (256,).
        exact: Likewise, of those whose value is that of the class, and not the nearest one to it.
        ignored: Pixels of each ignored raw value.
        unknown: Pixels of each raw value that is neither a class nor ignored.
        flat: A raw value that is read as the nearest one, in a mask that holds but one other, if that is the same
            class or ignored, and the class id.
        palette: Colors of the raw values in the mask, of a file with a palette.
        unique: Those values whose color has no other value in that palette.
        seams: What `rmiseg.data.checking.seams` counts in the mask, of three classes or more.
        transparent: True if the mask has transparent pixels beside others.
        inverted: True if zero is white in the file of the mask, and most of its values are not zero.
        deep: True if the image has more than 8 bits, and no range of values is known.
        orientations: EXIF orientations of image and mask, if they differ, and the sizes do not tell.
    """

    sample: Sample
    unreadable: list[str] = field(default_factory=list)
    size_mismatch: str = ""
    image_size: tuple[int, int] | None = None
    content: bytes = b""
    drawing: bytes = b""
    counts: np.ndarray | None = None
    exact: np.ndarray | None = None
    ignored: dict[RawValue, int] = field(default_factory=dict)
    unknown: dict[RawValue, int] = field(default_factory=dict)
    flat: tuple[RawValue, int] | None = None
    palette: dict[int, Color] = field(default_factory=dict)
    unique: set[int] = field(default_factory=set)
    seams: np.ndarray | None = None
    transparent: bool = False
    inverted: bool = False
    deep: bool = False
    orientations: tuple[int, int] | None = None


@dataclass
class UnknownValue:
    """A raw mask value that is neither a class nor ignored: how many pixels hold it, and in which masks."""

    pixels: int = 0
    files: list[Path] = field(default_factory=list)


@dataclass
class SplitReport:
    """Findings in one split. Sizes are (width, height).

    Args:
        name: Name of the split.
        images: Image files that the split refers to and that exist.
        masks: Mask files of these images, and masks without image.
        images_without_mask: A problem each.
        masks_without_image: A warning each.
        problems: Other problems of lists and file names, one line each.
        class_pixels: Pixels of each class, (C,) int64, over the readable masks.
        class_images: Masks in which each class occurs, (C,) int64.
        exact_pixels: Pixels of each class whose value is that of the class, and not the nearest one to it, (C,) int64.
        seams: What `rmiseg.data.checking.seams` counts, (3, C) int64.
        drawings: Masks of two classes or more by their pixels: how many are equal, and the first of them.
        class_files: A mask in which each class occurs that does.
        ignored_images: Masks in which an ignored value occurs.
        ignored_file: The first of them.
        ignored_with: Those of them in which each class occurs, too, (C,) int64.
        notes: Decisions on files and values, one line each.
        warnings: Things that seldom are intended, one line each.
        unreadable: Image or mask files that cannot be read, with the reason, one line each.
        size_mismatches: Pairs whose sizes differ, one line each.
        unknown_values: Raw mask values that are neither a class nor ignored.
        ignored_values: Pixels of each ignored raw value.
        ignored_pixels: Ignored pixels.
        flat_values: Such raw values, see `Inspection.flat`, each with the class id and the first such mask.
        colors: Colors that palettes give each raw value, each with the first file that does.
        values: Raw values that palettes give each color, likewise.
        transparent: Masks that have transparent pixels beside others.
        inverted: Masks whose zero is white, and most of whose values are not zero.
        deep: Images of more than 8 bits whose range of values is not known, since most others have 8.
        turned_alone: Pairs of which the image is turned by its EXIF orientation, and the mask is not.
        turned_otherwise: Pairs of which the mask is turned by its EXIF orientation, and the image not, or otherwise.
        smallest: Smallest width and smallest height of the readable images; None if there is none.
        largest: Likewise the largest.
    """

    name: str
    images: int
    masks: int
    images_without_mask: list[Path]
    masks_without_image: list[Path]
    problems: list[str]
    class_pixels: np.ndarray
    class_images: np.ndarray
    exact_pixels: np.ndarray
    ignored_with: np.ndarray
    seams: np.ndarray
    drawings: dict[bytes, tuple[int, Path]] = field(default_factory=dict)
    class_files: dict[int, Path] = field(default_factory=dict)
    ignored_images: int = 0
    ignored_file: Path | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    size_mismatches: list[str] = field(default_factory=list)
    unknown_values: dict[RawValue, UnknownValue] = field(default_factory=dict)
    ignored_values: dict[RawValue, int] = field(default_factory=dict)
    ignored_pixels: int = 0
    flat_values: dict[RawValue, tuple[int, Path]] = field(default_factory=dict)
    colors: dict[int, dict[Color, Path]] = field(default_factory=dict)
    values: dict[Color, dict[int, Path]] = field(default_factory=dict)
    transparent: list[Path] = field(default_factory=list)
    inverted: list[Path] = field(default_factory=list)
    deep: list[Path] = field(default_factory=list)
    turned_alone: list[Sample] = field(default_factory=list)
    turned_otherwise: list[Sample] = field(default_factory=list)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None

    @classmethod
    def of(cls, split: Split) -> SplitReport:
        """Return what is known of a split before any file of it is read."""
        return cls(
            name=split.name,
            images=len(split.samples) + len(split.images_without_mask),
            masks=sum(sample.mask is not None for sample in split.samples) + len(split.masks_without_image),
            images_without_mask=list(split.images_without_mask),
            masks_without_image=list(split.masks_without_image),
            problems=list(split.problems),
            class_pixels=np.zeros(len(split.classes), np.int64),
            class_images=np.zeros(len(split.classes), np.int64),
            exact_pixels=np.zeros(len(split.classes), np.int64),
            ignored_with=np.zeros(len(split.classes), np.int64),
            seams=np.zeros((3, len(split.classes)), np.int64),
            notes=list(split.notes),
            warnings=list(split.warnings),
        )

    @property
    def problem_count(self) -> int:
        """Number of problems; an unknown mask value counts once for each mask that holds it."""
        return (
            (self.images == 0)
            + len(self.images_without_mask)
            + len(self.problems)
            + len(self.unreadable)
            + len(self.size_mismatches)
            + sum(len(unknown.files) for unknown in self.unknown_values.values())
        )

    def add(self, found: Inspection) -> None:
        """Add the findings in one pair."""
        self.unreadable += found.unreadable
        if found.size_mismatch:
            self.size_mismatches.append(found.size_mismatch)
        for value, pixels in found.unknown.items():
            unknown = self.unknown_values.setdefault(value, UnknownValue())
            unknown.pixels += pixels
            if found.sample.mask is not None:
                unknown.files.append(found.sample.mask)
        if found.counts is not None:
            counts = found.counts[: len(self.class_pixels)]
            self.class_pixels += counts
            self.class_images += counts > 0
            self.exact_pixels += (found.counts if found.exact is None else found.exact)[: len(counts)]
            for index in np.flatnonzero(counts).tolist():
                self.class_files.setdefault(index, found.sample.mask or found.sample.image)
            if found.drawing and found.sample.mask:
                count, first = self.drawings.get(found.drawing, (0, found.sample.mask))
                self.drawings[found.drawing] = count + 1, first
            if found.ignored:
                self.ignored_images += 1
                self.ignored_file = self.ignored_file or found.sample.mask
                self.ignored_with += counts > 0
            self.ignored_pixels += int(found.counts[-1])
        if found.seams is not None:
            self.seams += found.seams
        for value, pixels in found.ignored.items():
            self.ignored_values[value] = self.ignored_values.get(value, 0) + pixels
        if found.flat and found.sample.mask:
            self.flat_values.setdefault(found.flat[0], (found.flat[1], found.sample.mask))
        for index, color in found.palette.items():
            assert found.sample.mask is not None
            self.colors.setdefault(index, {}).setdefault(color, found.sample.mask)
            if index in found.unique:
                self.values.setdefault(color, {}).setdefault(index, found.sample.mask)
        if found.transparent and found.sample.mask is not None:
            self.transparent.append(found.sample.mask)
        if found.inverted and found.sample.mask is not None:
            self.inverted.append(found.sample.mask)
        if found.deep:
            self.deep.append(found.sample.image)
        if found.orientations:
            (self.turned_alone if found.orientations[1] == 1 else self.turned_otherwise).append(found.sample)
        if size := found.image_size:
            small, large = self.smallest or size, self.largest or size
            self.smallest = (min(small[0], size[0]), min(small[1], size[1]))
            self.largest = (max(large[0], size[0]), max(large[1], size[1]))


def inspect(sample: Sample, classes: ClassTable, *, decode: bool = True, bands: Bands = RGB) -> Inspection:
    """Read a pair of files, whatever is wrong with them.

    Args:
        sample: The pair.
        classes: The classes.
        decode: True to read the image; else its header alone.
        bands: See `read_image`.
    """
    found = Inspection(sample)
    with _told(found):
        if decode:
            pixels = read_image(sample.image, bands=bands)
            found.image_size = (pixels.shape[1], pixels.shape[0])
            if pixels.min() < pixels.max():
                found.content = _hash(pixels)
        else:
            found.image_size = _size(sample.image, bands)
    found.deep = bands.count == RGB.count and bands.ranges is None and has_deep_values(sample.image)
    if sample.mask is None:
        return found
    mask_size = None
    if _are_same(sample.image, sample.mask):
        found.unreadable.append(
            f"image {sample.image} and mask {sample.mask} are the same file, byte for byte: save what it should "
            f"be in the place of one"
        )
    with _told(found):
        mask = read_raw_mask(sample.mask, classes.rgb, classes.lossy)
        mask_size = (mask.values.shape[1], mask.values.shape[0])
        found.transparent = mask.transparent
        found.inverted = mask.inverted and 2 * int(np.count_nonzero(mask.values)) > mask.values.size
        _count(found, mask, classes)
    if found.image_size and mask_size and found.image_size != mask_size:
        found.size_mismatch = size_mismatch(sample.describe(), found.image_size, mask_size)
    elif mask_size:
        turns = _orientation(sample.image), _orientation(sample.mask)
        keep_size = mask_size[0] == mask_size[1] or (turns[0] > 4) == (turns[1] > 4)
        found.orientations = turns if turns[0] != turns[1] and keep_size else None
    return found


@contextmanager
def _told(found: Inspection) -> Iterator[None]:
    """Keep why a file cannot be read, and go on."""
    try:
        yield
    except UNREADABLE as error:
        found.unreadable.append(str(error))


def _hash(pixels: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=8).digest()


def _are_same(one: Path, other: Path) -> bool:
    try:
        return os.path.getsize(one) == os.path.getsize(other) and filecmp.cmp(one, other, shallow=False)
    except OSError:  # what is wrong with it, reading says
        return False


def _count(found: Inspection, mask: RawMask, classes: ClassTable) -> None:
    ids, found.unknown = classes.encode(mask.values)
    found.counts = np.bincount(ids.ravel(), minlength=256)
    found.counts[-1] -= sum(found.unknown.values())
    found.drawing = _hash(ids) if np.count_nonzero(found.counts) > 1 else b""
    if classes.nearest:
        exact = replace(classes, nearest=False).encode(mask.values)[0]
        found.exact = np.bincount(exact.ravel(), minlength=256)
    if classes.rgb:
        pixels = {value: int((mask.values == value).all(axis=-1).sum()) for value in classes.ignore}
        found.ignored = {value: count for value, count in pixels.items() if count}
        return
    counts = _histogram(mask.values)
    if len(classes) > 2 and not classes.also:
        found.seams = seams(ids, classes)
    if classes.nearest and len(counts) == 2:
        found.flat = _flat(counts, classes)
    found.ignored = {value: counts[value] for value in classes.ignore if isinstance(value, int) and value in counts}
    if mask.palette:
        found.palette = {value: mask.palette[value] for value in counts if value < len(mask.palette)}
        found.unique = {value for value, color in found.palette.items() if mask.palette.count(color) == 1}


def _flat(counts: dict[int, int], classes: ClassTable) -> tuple[RawValue, int] | None:
    """See `Inspection.flat`."""
    strange = counts.keys() - set(classes.known)
    if len(strange) != 1 or counts[min(strange)] < FLAT_SHARE * sum(counts.values()):
        return None
    (value,) = strange
    (other,) = counts.keys() - strange
    near, far = classes.encode(np.array([value, other], np.int64))[0].tolist()
    return (value, near) if near in (far, IGNORE_INDEX) else None


def _histogram(values: NDArray[Any]) -> dict[int, int]:
    """Pixels of each value that occurs."""
    if values.dtype == np.uint8:  # the common case
        pixels = np.bincount(values.ravel(), minlength=256)
        return {value: int(pixels[value]) for value in np.flatnonzero(pixels).tolist()}
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist()))


def _size(path: Path, bands: Bands) -> tuple[int, int]:
    """Width and height of an image, turned as its orientation says, by its header."""
    height, width = image_header(path, bands.pages).size
    return (height, width) if _orientation(path) > 4 else (width, height)


def _orientation(path: Path) -> int:
    """The EXIF orientation of an image file, 1 if it has none, by its header."""
    try:
        with Image.open(path, formats=decoded()) as image:
            return orientation_of(image)
    except Exception:  # what is wrong with it, reading says
        return 1
