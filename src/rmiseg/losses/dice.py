"""The soft Dice loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.losses.inputs import IGNORE_INDEX
from rmiseg.losses.pixel_sets import PixelSetLoss


@dataclass
class DiceOptions:
    """Options of the Dice loss."""

    smooth: float = 1.0
    """Number of pixels added to intersection and sizes, by which tiny classes count less."""


@register("loss", "dice", options=DiceOptions)
class DiceLoss(PixelSetLoss):
    """Soft Dice loss (Milletari et al., 3DV 2016, arXiv:1606.04797), with the softmax p and plain sums as sizes.

    The mean over the classes that the target shows of 1 - (2 sum p y + s) / (sum p + sum y + s), sums over the valid
    pixels of the whole batch.

    Args:
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        smooth: s, at least 0.

    Shape: see `PixelSetLoss.forward`.

    Raises:
        ValueError: A negative `smooth`.
    """

    def __init__(
        self, num_classes: int, ignore_index: int | Sequence[int] | None = IGNORE_INDEX, *, smooth: float = 1.0
    ) -> None:
        super().__init__("dice", num_classes, ignore_index)
        if smooth < 0:
            raise ValueError(f"smooth must be 0 or more, not {smooth}")
        self.smooth = smooth

    def of_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        shares = logits.softmax(dim=0)
        truth = F.one_hot(labels, self.num_classes).T
        sizes = truth.sum(dim=1)
        shared = (shares * truth).sum(dim=1)
        dice = (2 * shared + self.smooth) / (shares.sum(dim=1) + sizes + self.smooth)
        return (1 - dice)[sizes > 0].mean()
