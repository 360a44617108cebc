"""Labeled images, wherever they come from: the base of all, and the one of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.bands import RGB, Bands
from rmiseg.data.classes import ClassTable
from rmiseg.data.description import Description
from rmiseg.data.image_files.masks import read_mask
from rmiseg.data.image_files.reading import read_image


class LabeledImages(ABC):
    """Images with their masks, and the classes: what training, evaluation and reports read.

    Attributes:
        name: What to call them, such as train.
        classes: The classes, whose ids the masks hold.
        names: Names of the images, in order; no two are the same.
        bands: Their bands B.
    """

    name: str
    classes: ClassTable
    names: Sequence[str]
    bands: Bands = RGB

    @property
    def labeled(self) -> bool:
        """True if there are masks; without, images are for prediction only."""
        return True

    @property
    def origin(self) -> object:
        """The object that they come from, after which the files of a run call them."""
        return self

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read_image(self, index: int, reduction: int = 1) -> NDArray[np.uint8]:
        """Read an image.

        Args:
            index: Its number.
            reduction: 1, 2, 4 or 8: average squares of so many pixels.

        Returns:
            (H / reduction, W / reduction, B) uint8, rounded up.

        Raises:
            ValueError, OSError: it cannot be read.
        """

    @abstractmethod
    def read_mask(self, index: int) -> NDArray[np.uint8]:
        """Read a mask as class ids (H, W) uint8, with `IGNORE_INDEX` where ignored.

        Raises:
            ValueError, OSError: it cannot be read, or holds something else.
        """

    def read(
        self, index: int, reduction: int = 1, seed: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read an image and its mask.

        Args:
            index: Their number.
            reduction: 1, 2, 4 or 8: the image as for `read_image`, of the mask the middle one of every so many pixels.
            seed: Seed of what is random in reading, if anything is.

        Returns:
            Pixels (h, w, B) uint8, and class ids (h, w) uint8 with `IGNORE_INDEX` where ignored.

        Raises:
            ValueError, OSError: one cannot be read, or they differ in size.
        """
        pixels, ids = self.read_image(index, reduction), self.read_mask(index)
        smaller = every_nth(ids, reduction)
        if pixels.shape[:2] != smaller.shape:
            whole = self.read_image(index)
            raise ValueError(size_mismatch(self.describe(index), whole.shape[1::-1], ids.shape[::-1]))
        return pixels, smaller

    def describe(self, index: int) -> tuple[str, str]:
        """Return what to call an image and its mask in messages."""
        return f"image {self.names[index]} of {self.name}", "its mask"


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

    def describe(self) -> tuple[str, str]:
        """Return what to call the image and the mask in messages."""
        return f"image {self.image}", f"its mask {self.mask}"


@dataclass(frozen=True)
class Split(LabeledImages):
    """The samples of one split, which are files, the classes, and what did not fit together.

    Args:
        name: Name of the split.
        samples: Complete pairs of image and mask, in a fixed order; or all images of a split without masks.
        classes: The classes.
        images_without_mask: Images that cannot be used.
        masks_without_image: Masks that nothing refers to; harmless, but seldom intended.
        problems: Anything else that is wrong with the files, one line each.
        notes: Decisions on which files belong together, where their names leave room, one line each.
        warnings: What is not wrong, but seldom is intended, one line each.
        description: What somebody's own dataset.yaml says.
        bands: Bands of the images, and which of their values become 0 and 255; see `read_image`.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: ClassTable
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    description: Description | None = None
    bands: Bands = RGB

    def with_bands(self, bands: Bands) -> Split:
        """Return the same split, read in another way."""
        return replace(self, bands=bands)

    @cached_property
    def names(self) -> Sequence[str]:  # type: ignore[override]  # read-only, as all of a split is
        """Names of the samples."""
        return tuple(sample.name for sample in self.samples)

    @property
    def labeled(self) -> bool:
        """True if there are masks; without, a split is for prediction only."""
        return all(sample.mask is not None for sample in self.samples)

    def read_image(self, index: int, reduction: int = 1) -> NDArray[np.uint8]:
        """See `rmiseg.data.read_image`."""
        return read_image(self.samples[index].image, reduction, self.bands)

    def read_mask(self, index: int) -> NDArray[np.uint8]:
        """See `rmiseg.data.read_mask`.

        Raises:
            ValueError: there is none, or as there.
        """
        path = self.samples[index].mask
        if path is None:
            raise ValueError(f"image {self.samples[index].image} of split {self.name} has no mask")
        return read_mask(path, self.classes)

    def describe(self, index: int) -> tuple[str, str]:
        """See `Sample.describe`."""
        return self.samples[index].describe()


def size_mismatch(titles: tuple[str, str], image_size: tuple[int, ...], mask_size: tuple[int, ...]) -> str:
    """Say that an image and its mask, called by their titles, differ in size (width, height), and why that may be."""
    text = (
        f"{titles[0]} is {image_size[0]} x {image_size[1]} pixels, but {titles[1]} is {mask_size[0]} x {mask_size[1]}"
    )
    if image_size[0] != image_size[1] and image_size == mask_size[::-1]:
        return f"{text}; is the mask of the image before it was turned by its EXIF orientation?"
    return f"{text}: save one in the size of the other, masks without interpolation (nearest neighbor)"


def every_nth(ids: NDArray[np.uint8], reduction: int) -> NDArray[np.uint8]:
    """Return the middle one of every so many rows and columns (H, W): (H / reduction, W / reduction) rounded up."""
    if reduction == 1:
        return ids
    centers = (np.minimum(np.arange(0, side, reduction) + reduction // 2, side - 1) for side in ids.shape)
    return ids[np.ix_(*centers)]
