"""Places of each class in the training images, and crops centred on rare ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch.utils.data import DataLoader, Dataset

from rmiseg.data.images import LabeledImages
from rmiseg.data.spread import spread
from rmiseg.runtime.device import made_on_cpu
from rmiseg.runtime.progress import track

KEPT = 64
"""Places kept of each class in each image, spread evenly over its pixels."""


@dataclass(frozen=True)
class Focus:
    """The pixel that a crop is to be centred on, in the image as it was read."""

    row: int
    column: int

    def reduced(self, reduction: int) -> Focus:
        """The same in an image that is read at a fraction of its size."""
        return Focus(self.row // reduction, self.column // reduction)


@dataclass(frozen=True)
class Place:
    """A pixel of a class.

    Attributes:
        image: Number of the image.
        class_id: The class.
        focus: The pixel.
    """

    image: int
    class_id: int
    focus: Focus


class ClassPlaces:
    """Places where each class is to be found: a sample of its pixels in each image.

    Args:
        pixels: (C,) pixels of each class in all images.
        places: (K, 4) image, class, row and column of each place, ordered by class and image.
    """

    def __init__(self, pixels: NDArray[np.int64], places: NDArray[np.int32]) -> None:
        self.places = places
        shares = pixels / max(pixels.sum(), 1)
        inverse = np.divide(1, shares, where=pixels > 0, out=np.zeros(len(pixels)))
        self.probabilities = inverse / max(inverse.sum(), 1e-300)
        # Bounds of the places of each image in each class: first the class is drawn, then an image that shows it.
        groups, starts = np.unique(places[:, :2][:, ::-1], axis=0, return_index=True)
        ends = np.append(starts[1:], len(places))
        self.bounds = [np.stack([starts, ends], axis=1)[groups[:, 0] == c] for c in range(len(pixels))]

    def draw(self, rng: np.random.Generator) -> Place:
        """Draw a class by its inverse frequency, then an image that shows it, then a place there; each alike."""
        class_id = int(rng.choice(len(self.probabilities), p=self.probabilities))
        start, end = self.bounds[class_id][rng.integers(len(self.bounds[class_id]))]
        image, _, row, column = self.places[rng.integers(start, end)].tolist()
        return Place(image, class_id, Focus(row, column))


def find_places(
    images: LabeledImages, workers: int = 0, console: Console | None = None, on_error: str = "fail"
) -> ClassPlaces:
    """Read all masks once, and note where each class is.

    Args:
        images: The images, with masks.
        workers: Processes that read masks; 0 reads in the main process.
        console: Where to show progress; by default nowhere.
        on_error: fail, or skip masks that cannot be read.

    Raises:
        ValueError: No pixel of any class, or (unless skipped) a mask that cannot be read.
        OSError: Likewise.
    """
    # With a generator of its own: this process alone reads masks, and would draw a number that others do not.
    loader = DataLoader(_Places(images), batch_size=None, num_workers=workers, generator=torch.Generator())
    pixels = np.zeros(len(images.classes), np.int64)
    found = []
    for item in track(made_on_cpu(loader), "finding classes", console, total=len(images)):
        if isinstance(item, Exception):
            if on_error == "fail":
                raise item
            continue
        pixels += item[0].numpy()
        found.append(item[1].numpy())
    places = np.concatenate(found) if found else np.zeros((0, 4), np.int32)
    if not len(places):
        raise ValueError(f"no mask of split {images.name} shows a class, so that no crop can be centred on one")
    return ClassPlaces(pixels, places[np.lexsort((places[:, 0], places[:, 1]))])


class _Places(Dataset[object]):
    """Pixels of each class in each mask, (C,) int64, and places, (K, 4) int32; or why it cannot be read."""

    def __init__(self, images: LabeledImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | Exception:
        try:
            ids = self.images.read_mask(index)
        except (ValueError, OSError) as error:
            return error
        counts = np.bincount(ids.ravel(), minlength=256)[: len(self.images.classes)]
        places = []
        for class_id in np.flatnonzero(counts):
            where = np.flatnonzero(ids.ravel() == class_id)
            kept = where[spread(len(where), KEPT)]
            rows, columns = np.divmod(kept, ids.shape[1])
            places.append(np.stack([np.full_like(rows, index), np.full_like(rows, class_id), rows, columns], axis=1))
        joined = np.concatenate(places) if places else np.zeros((0, 4), np.int64)
        return torch.from_numpy(counts.astype(np.int64)), torch.from_numpy(joined.astype(np.int32))
