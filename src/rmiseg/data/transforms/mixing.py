"""Augmentations of a training crop with another one: CutMix, and copying rare objects."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.config import DataConfig
from rmiseg.config.registry import register
from rmiseg.data.transforms.augmentations import ChanceOptions, random_box

Crop = tuple[Tensor, Tensor]
"""An image (3, H, W) uint8 and its mask (H, W) uint8."""


class Mixing:
    """Base of augmentations that take a second crop.

    Args:
        p: Probability.

    Attributes:
        of_rare: The second crop is one of a class that was drawn by its inverse frequency, and is centred on it.

    Raises:
        ValueError: p is no probability.
    """

    of_rare = False

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability from 0 to 1, not {p}")
        self.p = p

    def __call__(self, crop: Crop, other: Callable[[], tuple[Crop, int]]) -> Crop:
        """The crop, with this probability mixed with another; `other` draws one, and the class that it is of."""
        if torch.rand(()).item() >= self.p:
            return crop
        second, class_id = other()
        return self.mix(crop, second, class_id) if crop[0].shape == second[0].shape else crop

    def mix(self, crop: Crop, second: Crop, class_id: int) -> Crop:
        """Mix two crops of one size."""
        raise NotImplementedError


@register("augmentation", "cutmix", options=ChanceOptions)
def cutmix(config: DataConfig, p: float) -> CutMix:
    """CutMix: a rectangle of another crop takes the place of what was there."""
    return CutMix(p)


class CutMix(Mixing):
    """CutMix (Yun et al., ICCV 2019, arXiv:1905.04899), with the labels of pixels, as French et al. (BMVC 2020) do it.

    The rectangle has the shape of the crop, any size up to it, and the same place in both.
    """

    def mix(self, crop: Crop, second: Crop, class_id: int) -> Crop:
        """See `Mixing.mix`."""
        image, mask = crop[0].clone(), crop[1].clone()
        height, width = mask.shape
        rows, columns = random_box((height, width), torch.rand(()).item(), 1.0)
        image[:, rows, columns], mask[rows, columns] = second[0][:, rows, columns], second[1][rows, columns]
        return image, mask


@register("augmentation", "copy-paste", options=ChanceOptions)
def copy_paste(config: DataConfig, p: float) -> CopyPaste:
    """Copy the pixels of a rare class from another crop."""
    return CopyPaste(p)


class CopyPaste(Mixing):
    """Copy-paste (Ghiasi et al., CVPR 2021, arXiv:2012.07177) of classes that are drawn by their inverse frequency.

    All pixels of the class in a crop that is centred on it are pasted, shifted at random by up to a third of a side.
    """

    of_rare = True

    def mix(self, crop: Crop, second: Crop, class_id: int) -> Crop:
        """See `Mixing.mix`."""
        shifts = [int(torch.randint(-(side // 3), side // 3 + 1, ())) for side in second[1].shape]
        image, mask = (_shifted(part, *shifts) for part in second)
        pasted = mask == class_id
        pasted &= _shifted(torch.ones_like(second[1]), *shifts).bool()  # not what was shifted in
        return torch.where(pasted, image, crop[0]), torch.where(pasted, mask, crop[1])


def _shifted(part: Tensor, down: int, right: int) -> Tensor:
    """An image or mask moved by so many pixels; zeros come in."""
    plain = part.as_subclass(Tensor)
    return F.pad(plain, (right, -right, down, -down))
