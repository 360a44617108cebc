"""The profile of a data set: all that the rules of a plan know of it (nnU-Net's dataset fingerprint)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from rmiseg.data import Split
from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.data.image_files.opening import image_header, of_any_size
from rmiseg.data.spread import spread
from rmiseg.runtime.progress import track

HEADERS, MASKS = 1000, 200
"""Images whose size is looked at, and masks that are read, spread evenly over the training split: they are read in
seconds, of however many images, and the share of a class that all of them show is known to about a tenth of itself."""
PIXELS = 10**9
"""Pixels of masks after which no more are read, of images so large that 200 would take minutes."""


@dataclass(frozen=True)
class ClassProfile:
    """One class in the masks that were read.

    Attributes:
        name: Its name.
        share: Its share of the pixels that are not ignored.
        images: Number of the masks that show it.
        width: Mean width of its parts in pixels, twice their area over their border: of a line its width, of a disc two
            fifths of its diameter. 0 for a class that no mask shows, infinite for one without a border.
    """

    name: str
    share: float
    images: int
    width: float


@dataclass(frozen=True)
class DataProfile:
    """Facts of a data set.

    Attributes:
        images: Number of images to train on.
        val_images: Number of images to score on.
        size: Median height and width of the images to train on, in pixels.
        largest: Largest height and width.
        masks: Number of masks that were read.
        ignored: Share of their pixels that is ignored.
        upright: Share of their pixels by which upper halves of images differ from lower ones in what they show: 0 where
            classes are as often above as below, 1 where none is in both.
        classes: The classes, in order.
    """

    images: int
    val_images: int
    size: tuple[int, int]
    largest: tuple[int, int]
    masks: int
    ignored: float
    upright: float
    classes: tuple[ClassProfile, ...]

    @property
    def shown(self) -> tuple[ClassProfile, ...]:
        """The classes that some mask shows."""
        return tuple(each for each in self.classes if each.images)

    @property
    def thinnest(self) -> ClassProfile:
        """The class whose parts are the thinnest."""
        return min(self.shown, key=lambda each: each.width)

    @property
    def rarest(self) -> ClassProfile:
        """The class with the fewest pixels, of those that some mask shows."""
        return min(self.shown, key=lambda each: each.share)


def profile_data(train: Split, val: Split, console: Console | None = None) -> DataProfile:
    """Look at a sample of the images and masks of a data set.

    Args:
        train: The images to train on.
        val: The images to score on.
        console: Where to show progress; by default nowhere.

    Raises:
        ValueError: No mask shows a class: all pixels are ignored, or no mask can be read; or an image is so large that
            none is read like it.
    """
    sizes = _sizes(train, spread(len(train), HEADERS))
    counted = _Counts(len(train.classes))
    looked = spread(len(train), MASKS)
    for index in track(looked, "looking at masks", console, total=len(looked)):
        try:
            mask = train.read_mask(index)
        except (ValueError, OSError):
            continue  # that it cannot be read is said when it is needed
        counted.add(mask)
        if counted.pixels > PIXELS:
            break
    if not counted.valid:
        what = f"all pixels of the {counted.masks} masks that were looked at are ignored"
        raise ValueError(
            f"the training split {train.name} holds nothing to learn: "
            f"{what if counted.masks else 'no mask of it can be read'}. `rmiseg data check` says what its masks hold"
        )
    sizes = sizes or counted.sizes
    return DataProfile(
        images=len(train),
        val_images=len(val),
        size=_median(sizes),
        largest=(max(size[0] for size in sizes), max(size[1] for size in sizes)),
        masks=counted.masks,
        ignored=1 - counted.valid / counted.pixels,
        upright=counted.upright,
        classes=counted.classes(train.classes.names),
    )


class _Counts:
    """Counts of masks, as they are read."""

    def __init__(self, num_classes: int) -> None:
        self.area, self.border, self.images, self.above = (np.zeros(num_classes, np.int64) for _ in range(4))
        self.masks = self.pixels = self.valid = 0
        self.sizes: list[tuple[int, int]] = []

    def add(self, mask: NDArray[np.uint8]) -> None:
        """Count a mask of class ids (H, W)."""
        area = np.bincount(mask.ravel(), minlength=256)[: len(self.area)]
        self.area += area
        self.images += area > 0
        half = mask.shape[0] // 2
        for sign, part in ((1, mask[:half]), (-1, mask[mask.shape[0] - half :])):
            self.above += sign * np.bincount(part.ravel(), minlength=256)[: len(self.area)]
        for first, second in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            different = first != second
            for side in (first[different], second[different]):
                self.border += np.bincount(side, minlength=256)[: len(self.area)]
        self.masks += 1
        self.pixels += mask.size
        self.valid += int((mask != IGNORE_INDEX).sum())
        self.sizes.append((mask.shape[0], mask.shape[1]))

    @property
    def upright(self) -> float:
        """Share of the pixels by which upper halves differ from lower ones."""
        return float(np.abs(self.above).sum() / max(int(self.area.sum()), 1))

    def classes(self, names: Iterable[str]) -> tuple[ClassProfile, ...]:
        total = max(int(self.area.sum()), 1)
        width = np.where(self.area > 0, np.inf, 0.0)
        np.divide(2.0 * self.area, self.border, out=width, where=self.border > 0)
        facts = zip(names, self.area.tolist(), self.images.tolist(), width.tolist())
        return tuple(ClassProfile(name, area / total, images, wide) for name, area, images, wide in facts)


def _sizes(split: Split, indices: list[int]) -> list[tuple[int, int]]:
    """Heights and widths of images by their headers, of those that have one that can be read.

    Raises:
        ValueError: One has more pixels than Pillow reads of one file, twice its limit.
    """
    sizes, known = list[tuple[int, int]](), list[int]()
    with of_any_size():
        for index in indices:
            try:
                sizes.append(image_header(split.samples[index].image, split.bands.pages).size)
                known.append(index)
            except Exception:  # what is wrong with it, reading says
                continue
    limit = Image.MAX_IMAGE_PIXELS
    for (height, width), index in zip(sizes, known):
        if limit is not None and height * width > 2 * limit:
            raise ValueError(
                f"{split.samples[index].image} is {width} x {height} pixels; images of more than {2 * limit / 1e6:.0f} "
                "million pixels are not read at once. Cut it and its mask into tiles, such as 2048 x 2048"
            )
    return sizes


def _median(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    height, width = np.median(np.array(sizes), axis=0)
    return int(height), int(width)
