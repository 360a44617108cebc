"""Items for training and evaluation: images with their masks as tensors, transformed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from rmiseg.data.images import LabeledImages
from rmiseg.data.seeding import seeded
from rmiseg.data.transforms.adapters import Transform, adapt_transform, checked_output
from rmiseg.data.transforms.mixing import Crop, Mixing
from rmiseg.data.transforms.rare import ClassPlaces, Focus


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images with their masks, read and transformed.

    An item is a dictionary: ``image`` uint8 (B, H, W), ``mask`` uint8 (H, W) of class ids with `IGNORE_INDEX`, both
    tv_tensors unless the transform returns something else, and ``name``.

    Args:
        images: The images, masks and classes: a `Split`, or any other `LabeledImages`.
        transform: Called with (image, mask), returns both: any transform of torchvision.transforms.v2 or of
            albumentations will do, see `adapt_transform`.
        rare: Where each class is. Needed by the next two.
        rare_share: Share of the items that are instead a crop of a class drawn by its inverse frequency, centred on it,
            of whichever image shows it; for transforms that take a `Focus`, such as `train_transform`.
        mixing: Augmentations with a second crop, after the transform.
        reduction: Read images at a half (2), a fourth (4) or an eighth (8) of their size, and masks at the same size;
            for transforms that would make them as small as that anyway.

    The key of an item is its index or (index, seed). With a seed, the random numbers of torch, Python and NumPy are
    seeded during reading and the transform and restored afterwards, so that the item is a function of the key,
    whichever process reads it.

    Raises:
        ValueError: there are no masks, or a transform that takes no `Focus`.
    """

    def __init__(
        self,
        images: LabeledImages,
        transform: Transform | None = None,
        reduction: int = 1,
        *,
        rare: ClassPlaces | None = None,
        rare_share: float = 0.0,
        mixing: Sequence[Mixing] = (),
    ) -> None:
        if not images.labeled:
            raise ValueError(f"split {images.name} has no masks")
        if (rare_share or any(each.of_rare for each in mixing)) and not getattr(transform, "takes_focus", False):
            raise ValueError(
                "data.rare_share and copy-paste need a transform that can be told where to crop, such as scale-crop"
            )
        if reduction not in (1, 2, 4, 8):
            raise ValueError(f"reduction must be 1, 2, 4 or 8, not {reduction}")
        self.images = images
        self.transform = None if transform is None else adapt_transform(transform)
        self.reduction = reduction
        self.rare, self.rare_share, self.mixing = rare, rare_share, mixing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Read one item.

        Raises:
            FileNotFoundError: a file has gone.
            ValueError: a file is damaged, the mask holds an unknown value, its size is not that of the image, or the
                transform returns something else than an image and a mask.
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        focus = None
        if self.rare and self.rare_share:
            rng = np.random.default_rng(None if seed is None else [seed, index, 0])
            if rng.random() < self.rare_share:
                place = self.rare.draw(rng)
                index, focus = place.image, place.focus
        image, mask = self._crop(index, seed, focus)
        if self.mixing:
            with nullcontext() if seed is None else seeded(_derived(seed, 1)):
                for each in self.mixing:
                    image, mask = each((image, mask), partial(self._other, each.of_rare))
        return {"image": image, "mask": mask, "name": self.images.names[index]}

    def _other(self, of_rare: bool) -> tuple[Crop, int]:
        """Another crop, any or of a rare class, which is told too; drawn by torch's generator."""
        seed = int(torch.randint(2**62, ()))
        if not of_rare:
            return self._crop(int(torch.randint(len(self), ())), seed, None), 0
        assert self.rare is not None
        place = self.rare.draw(np.random.default_rng(seed))
        return self._crop(place.image, seed, place.focus), place.class_id

    def _crop(self, index: int, seed: int | None, focus: Focus | None) -> Crop:
        """Read an image and its mask, and transform them."""
        pixels, ids = self.images.read(index, self.reduction, seed)
        # The view (B, H, W) of (H, W, B) memory is what torchvision resizes fastest.
        image: torch.Tensor = torch.from_numpy(pixels.transpose(2, 0, 1)).as_subclass(tv_tensors.Image)
        mask: torch.Tensor = torch.from_numpy(ids).as_subclass(tv_tensors.Mask)
        if self.transform is not None:
            with nullcontext() if seed is None else seeded(seed):
                where = () if focus is None else (focus.reduced(self.reduction),)
                returned = self.transform(image, mask, *where)
            one_size = not getattr(self.transform, "keeps_masks", False)
            image, mask = checked_output(returned, mask, len(self.images.classes), pixels.shape[-1], one_size)
        return image, mask


def _derived(seed: int, purpose: int) -> int:
    """A seed for something else of the same item."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0] >> 1)
