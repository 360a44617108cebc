"""Anybody's own torch data set as `LabeledImages`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from rmiseg.data.bands import RGB, Bands
from rmiseg.data.classes import IGNORE_INDEX, ClassTable, class_ids, describe_classes
from rmiseg.data.image_files.masks import raw_values
from rmiseg.data.image_files.reading import reduced, rgb_pixels
from rmiseg.data.images import LabeledImages, every_nth, size_mismatch
from rmiseg.data.seeding import seeded
from rmiseg.runtime.words import some

READING = 0x5DEECE66D1CE4E5B
"""Number that seeds are combined with for reading, so that a data set and a transform draw different random numbers."""


class OwnImages(LabeledImages):
    """A torch data set of images and masks, read item by item.

    An item is (image, mask), or a dictionary with the keys image and mask:

    - images: PIL images of any mode, arrays (H, W, 3) or (H, W), or tensors (3, H, W) or (1, H, W); uint8, or floats
      from 0 to 1, which become uint8 again. Nothing that is normalized already. Of B bands other than three, arrays
      (H, W, B) or tensors (B, H, W).
    - masks: PIL images of single values or with a palette, arrays (H, W), or tensors (H, W) or (1, H, W), of integers
      or bool: class ids 0 .. C-1, and 255 where ignored.

    An item is taken as it is: a PIL image is not turned by its EXIF orientation.

    The random numbers of torch, Python and NumPy are seeded while an item is read, and restored afterwards, so that
    each item of a data set that augments by itself is a function of its index and of the seed of the epoch; read
    without a seed, to be scored or shown, it is the same every time.

    Args:
        dataset: A map-style data set: it has __len__ and __getitem__, and the same items in every process.
        classes: Names of the classes, in the order of their ids; or names and colors.
        name: What to call it in messages and results, such as train.
        bands: Bands of the images.

    Attributes:
        names: Those in an attribute `names` of the data set, if it is a sequence of as many strings as it has items;
            else the indices.

    Raises:
        TypeError: the data set is no map-style data set.
        ValueError: the classes are not as they should be, or a name is given to two images.
    """

    def __init__(
        self, dataset: Any, classes: ClassTable | Sequence[str], name: str = "data", bands: Bands = RGB
    ) -> None:
        if isinstance(dataset, IterableDataset):
            raise TypeError(
                f"the data set {name} is an IterableDataset, {type(dataset).__name__}, whose items cannot be read by "
                f"index: exact resumption and several processes need a data set with __len__ and __getitem__"
            )
        if isinstance(dataset, str | os.PathLike):
            raise TypeError(
                f"{name} must be a data set of (image, mask), not {dataset!r}; a folder belongs into the options, as "
                f"data.root"
            )
        if missing := [method for method in ("__len__", "__getitem__") if not hasattr(type(dataset), method)]:
            raise TypeError(
                f"the data set {name}, {type(dataset).__name__}, has no {' and no '.join(missing)}: give a data set "
                f"of (image, mask), as torch.utils.data.Dataset describes them"
            )
        self.dataset = dataset
        self.classes = classes if isinstance(classes, ClassTable) else class_ids(classes)
        self.name = name
        self.bands = bands
        self.names = _names(dataset, name)

    @property
    def origin(self) -> object:
        """The data set."""
        return self.dataset

    def read_image(self, index: int, reduction: int = 1) -> NDArray[np.uint8]:
        """See `LabeledImages.read_image`."""
        return reduced(self._pixels(index, self._item(index)[0]), reduction)

    def read_mask(self, index: int) -> NDArray[np.uint8]:
        """See `LabeledImages.read_mask`."""
        return self._ids(index, self._item(index)[1])

    def read(
        self, index: int, reduction: int = 1, seed: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """See `LabeledImages.read`; the data set is asked for the item once."""
        image, mask = self._item(index, seed)
        pixels, ids = self._pixels(index, image), self._ids(index, mask)
        if pixels.shape[:2] != ids.shape:
            raise ValueError(size_mismatch(self.describe(index), pixels.shape[1::-1], ids.shape[::-1]))
        return reduced(pixels, reduction), every_nth(ids, reduction)

    def describe(self, index: int) -> tuple[str, str]:
        """Return what to call an image and its mask in messages."""
        return f"the image of item {index} of the data set {self.name}", "its mask"

    def _item(self, index: int, seed: int | None = None) -> tuple[Any, Any]:
        with seeded((index if seed is None else seed) ^ READING):
            try:
                item = self.dataset[index]
            except Exception as error:
                error.add_note(f"raised by item {index} of the data set {self.name}")
                raise
        if isinstance(item, Mapping):
            if "image" in item and "mask" in item:
                return item["image"], item["mask"]
            found = f"a dictionary with the keys {', '.join(map(str, item)) or 'none'}"
        elif isinstance(item, tuple | list):
            if len(item) == 2:
                return item[0], item[1]
            found = f"a {type(item).__name__} of {len(item)}"
        else:
            found = f"a {type(item).__name__}"
        raise ValueError(
            f"item {index} of the data set {self.name} is {found}; it must be (image, mask), or a dictionary with the "
            f"keys image and mask"
        )

    def _pixels(self, index: int, image: Any) -> NDArray[np.uint8]:
        try:
            return image_pixels(image, self.bands.count)
        except ValueError as error:
            raise ValueError(f"{self.describe(index)[0]}: {error}") from error

    def _ids(self, index: int, mask: Any) -> NDArray[np.uint8]:
        try:
            return mask_ids(mask, self.classes)
        except ValueError as error:
            raise ValueError(f"the mask of item {index} of the data set {self.name}: {error}") from error


def _names(dataset: Any, title: str) -> tuple[str, ...]:
    count = len(dataset)
    given = getattr(dataset, "names", None)
    if isinstance(given, list | tuple | np.ndarray) and len(given) == count and all(isinstance(n, str) for n in given):
        names = tuple(map(str, given))
        if len(set(names)) < count:
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise ValueError(f"the data set {title} calls two images {twice!r} in its attribute names")
        return names
    return tuple(f"{index:0{len(str(count - 1))}d}" for index in range(count))


def image_pixels(image: Any, bands: int = 3) -> NDArray[np.uint8]:
    """Return the pixels of a PIL image, array or tensor, as `OwnImages` describes them.

    Args:
        image: The image.
        bands: Number of bands B.

    Returns:
        (H, W, B) uint8, with memory of its own.

    Raises:
        ValueError: it is nothing of that kind, or its values have another range.
    """
    if isinstance(image, Image.Image):
        if bands != 3:
            raise ValueError(f"a PIL image of mode {image.mode}; images of {bands} bands are arrays or tensors")
        return rgb_pixels(image, turn=False)
    allowed = (1, 3) if bands == 3 else (bands,)
    shape = tuple(image.shape) if isinstance(image, np.ndarray | Tensor) else ()
    if isinstance(image, Tensor):
        if len(shape) != 3 or shape[0] not in allowed:
            hint = "; put the channels first" if len(shape) == 3 and shape[-1] in allowed else ""
            wanted = "(3, H, W) or (1, H, W)" if bands == 3 else f"({bands}, H, W)"
            raise ValueError(f"a tensor {shape}, not {wanted}{hint}")
        array = _to_numpy(image).transpose(1, 2, 0)
    elif isinstance(image, np.ndarray):
        if (len(shape) != 2 or 1 not in allowed) and (len(shape) != 3 or shape[-1] not in allowed):
            hint = "; put the channels last, or make it a tensor" if len(shape) == 3 and shape[0] in allowed else ""
            wanted = "(H, W, 3) or (H, W)" if bands == 3 else f"(H, W, {bands})"
            raise ValueError(f"an array {shape}, not {wanted}{hint}")
        array = image[..., None] if len(shape) == 2 else image
    else:
        raise ValueError(f"a {type(image).__name__}, not a PIL image, a NumPy array or a tensor")
    if 0 in array.shape:
        raise ValueError(f"it has the shape {shape}, and so no pixels")
    if array.dtype != np.uint8:
        array = _from_floats(array)
    return np.array(np.broadcast_to(array, (*array.shape[:2], bands)), order="C")


def _from_floats(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Make floats from 0 to 1 uint8."""
    low, high = array.min(), array.max()
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{array.dtype} with values from {low} to {high}: images must be uint8 with values 0 .. 255, or floats "
            f"from 0 to 1; convert it, by the range that its values can have"
        )
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{array.dtype} with values from {low:.4g} to {high:.4g}, and not from 0 to 1. If it is normalized "
            f"already, leave that out: images are normalized later, with the network's mean and standard deviation"
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def mask_ids(mask: Any, classes: ClassTable) -> NDArray[np.uint8]:
    """Return the class ids of a PIL image, array or tensor, as `OwnImages` describes them.

    Args:
        mask: The mask.
        classes: The classes; the mask holds their ids, not their raw values.

    Returns:
        (H, W) uint8, with memory of its own.

    Raises:
        ValueError: it is nothing of that kind, or holds a value that is neither a class id nor `IGNORE_INDEX`.
    """
    if isinstance(mask, Image.Image):
        array = raw_values(mask)
    elif isinstance(mask, Tensor):
        array = _to_numpy(mask[0] if mask.ndim == 3 and len(mask) == 1 else mask)
    elif isinstance(mask, np.ndarray):
        array = mask
    else:
        raise ValueError(f"a {type(mask).__name__}, not a PIL image, a NumPy array or a tensor")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"it has the shape {tuple(mask.shape)}, not (H, W), of class ids")
    if array.dtype != np.bool_ and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{array.dtype} with values from {array.min():.4g} to {array.max():.4g}; class ids are integers. "
            f"Transforms that make floats of images, such as ToTensor, are not for masks"
        )
    strange = array[((array < 0) | (array >= len(classes))) & (array != IGNORE_INDEX)]
    if strange.size:
        values, counts = np.unique(strange, return_counts=True)
        found = some((f"{value} ({count} pixels)" for value, count in zip(values.tolist(), counts.tolist())), 5)
        raise ValueError(
            f"it holds values that are neither a class nor ignored: {found}. Class ids are "
            f"{describe_classes(class_ids(classes.names))}"
        )
    return array.astype(np.uint8)


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    plain = tensor.detach().as_subclass(Tensor).cpu()
    return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
