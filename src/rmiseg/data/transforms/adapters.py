"""Transforms of other libraries, and what every transform must return."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from rmiseg.data.classes import IGNORE_INDEX

Transform: TypeAlias = Callable[..., Any]
"""A transform: called with an image (B, H, W) uint8 and a mask (H, W) uint8, it returns both."""


def adapt_transform(transform: Transform) -> Transform:
    """Make a transform of torchvision.transforms.v2, albumentations or anybody's own fit for `SegmentationDataset`.

    Args:
        transform: Called with a tv_tensors.Image (3, H, W) uint8 and a tv_tensors.Mask (H, W) uint8, returns both; or
            one of albumentations, called with NumPy's image=(H, W, 3) and mask=(H, W).

    Returns:
        The transform, called with the two tensors. One of albumentations is seeded by torch's generator.

    Raises:
        TypeError: it cannot be called, or not with a mask.
    """
    if not callable(transform):
        raise TypeError(f"a transform must be callable with (image, mask), and {transform!r} is not")
    if type(transform).__module__ == "torchvision.transforms.transforms":
        raise TypeError(
            f"{type(transform).__name__} of torchvision.transforms changes images without their masks; take the one of "
            f"torchvision.transforms.v2"
        )
    if any(base.__module__.startswith("albumentations") for base in type(transform).__mro__):
        return _Albumentations(transform)
    return transform


class _Albumentations:
    """A transform of albumentations, called with tensors."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Any, Any]:
        # Version 2 draws from generators of its own, earlier ones from Python's and NumPy's. Not `set_random_seed`, by
        # which every part of a composition draws the same numbers.
        if hasattr(self.transform, "set_random_state"):
            seed = int(torch.randint(2**62, ()))
            self.transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        made = self.transform(image=image.permute(1, 2, 0).numpy(), mask=mask.numpy())
        pixels, ids = made["image"], made["mask"]
        if isinstance(pixels, np.ndarray) and pixels.ndim == 3:
            pixels = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        if isinstance(ids, np.ndarray):
            ids = torch.from_numpy(np.ascontiguousarray(ids))
        return (
            tv_tensors.Image(pixels) if isinstance(pixels, Tensor) else pixels,
            tv_tensors.Mask(ids) if isinstance(ids, Tensor) else ids,
        )


def checked_output(
    returned: Any, mask: Tensor, num_classes: int, bands: int = 3, one_size: bool = True
) -> tuple[Tensor, Tensor]:
    """Make sure that a transform returned an image and a mask.

    Args:
        returned: What it returned.
        mask: The mask that it was given, (H, W) uint8.
        num_classes: Number of classes C.
        bands: Number of bands B of the image.
        one_size: Image and mask must have one height and width.

    Returns:
        The image (B, h, w) uint8, and the mask (h, w) uint8 with values 0 .. C-1 and `IGNORE_INDEX`.

    Raises:
        ValueError: it returned something else.
    """
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(f"the transform returned {_describe(returned)}, not an image and a mask")
    image, new_mask = returned
    if isinstance(image, Tensor) and image.is_floating_point():
        raise ValueError(
            f"the transform returned {_describe(image)} as image: leave out its normalization and its conversion to "
            f"floats; images stay uint8, and are normalized on the device with the network's mean and standard "
            f"deviation"
        )
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != bands:
        raise ValueError(f"the transform returned {_describe(image)} as image, not a tensor ({bands}, H, W) uint8")
    if not isinstance(new_mask, Tensor) or new_mask.ndim != 2 or new_mask.is_floating_point():
        raise ValueError(f"the transform returned {_describe(new_mask)} as mask, not a tensor (H, W) of class ids")
    if one_size and image.shape[1:] != new_mask.shape:
        raise ValueError(
            f"the transform returned {_describe(image)} as image and {_describe(new_mask)} as mask: both must have one "
            f"height and width"
        )
    if new_mask is mask:
        return image, mask
    if (strange := _strange_value(new_mask.as_subclass(Tensor), num_classes)) is not None:
        raise ValueError(
            f"the transform made the value {strange} in a mask, which is neither one of {num_classes} classes nor "
            f"{IGNORE_INDEX}, ignored: masks take the nearest value, and are padded with {IGNORE_INDEX}"
        )
    return image, new_mask if new_mask.dtype == torch.uint8 else new_mask.to(torch.uint8)


def _strange_value(mask: Tensor, num_classes: int) -> int | None:
    """Return a value that is neither 0 .. num_classes - 1 nor `IGNORE_INDEX`."""
    if mask.numel() == 0 or (mask.dtype == torch.uint8 and (mask.numpy() + np.uint8(1)).max() <= num_classes):
        return None  # in uint8, 255 + 1 is 0: a hundredth of the time of what follows
    ids = mask.long()
    strange = ids[((ids < 0) | (ids >= num_classes)) & (ids != IGNORE_INDEX)]
    return int(strange[0]) if strange.numel() else None


def _describe(value: Any) -> str:
    """Say what something is: its kind, shape and, of floats, its range."""
    kind = type(value).__name__
    if not hasattr(value, "shape"):
        return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind
    text = f"{kind} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64) and value.numel():
        text += f" with values from {value.min().item():.3g} to {value.max().item():.3g}"
    return text
