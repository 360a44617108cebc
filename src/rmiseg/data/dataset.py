"""Items for training and evaluation: images with their masks as tensors, transformed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from rmiseg.data.adapters import Transform, adapt_transform, checked_output
from rmiseg.data.images import LabeledImages
from rmiseg.data.seeding import seeded


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images with their masks, read and transformed.

    An item is a dictionary: ``image`` uint8 (B, H, W), ``mask`` uint8 (H, W) of class ids with `IGNORE_INDEX`, both
    tv_tensors unless the transform returns something else, and ``name``.

    Args:
        images: The images, masks and classes: a `Split`, or any other `LabeledImages`.
        transform: Called with (image, mask), returns both: any transform of torchvision.transforms.v2 or of
            albumentations will do, see `adapt_transform`.
        reduction: Read images at a half (2), a fourth (4) or an eighth (8) of their size, and masks at the same size;
            for transforms that would make them as small as that anyway.

    The key of an item is its index or (index, seed). With a seed, the random numbers of torch, Python and NumPy are
    seeded during reading and the transform and restored afterwards, so that the item is a function of the key,
    whichever process reads it.

    Raises:
        ValueError: there are no masks.
    """

    def __init__(self, images: LabeledImages, transform: Transform | None = None, reduction: int = 1) -> None:
        if not images.labeled:
            raise ValueError(f"split {images.name} has no masks")
        if reduction not in (1, 2, 4, 8):
            raise ValueError(f"reduction must be 1, 2, 4 or 8, not {reduction}")
        self.images = images
        self.transform = None if transform is None else adapt_transform(transform)
        self.reduction = reduction

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
        pixels, ids = self.images.read(index, self.reduction, seed)
        # The view (B, H, W) of (H, W, B) memory is what torchvision resizes fastest.
        image: torch.Tensor = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        mask: torch.Tensor = tv_tensors.Mask(torch.from_numpy(ids))
        if self.transform is not None:
            with nullcontext() if seed is None else seeded(seed):
                returned = self.transform(image, mask)
            image, mask = checked_output(returned, mask, len(self.images.classes), pixels.shape[-1])
        return {"image": image, "mask": mask, "name": self.images.names[index]}
