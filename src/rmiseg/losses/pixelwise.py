"""Losses that see lone pixels: softmax cross entropy and one-vs-rest sigmoid cross entropy."""

from __future__ import annotations

from torch import Tensor

from rmiseg.losses.base import LossTerms, SegmentationLoss, spread_non_finite
from rmiseg.losses.functional import PIXEL_SUMS


def pixel_mean(name: str, total: Tensor, valid_count: Tensor) -> Tensor:
    """The mean that "ce" and "bce" take of their sums; 0 if no pixel is valid.

    The original divides the sum of "bce" by one more than the number of valid pixels.
    """
    return total / (valid_count.clamp(min=1) if name == "ce" else valid_count + 1)


class _PixelLoss(SegmentationLoss):
    name: str

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        logits, target, valid = self._prepare(logits, target)
        total, count = PIXEL_SUMS[self.name](logits, target, valid), valid.sum()
        return LossTerms(total[None], count[None], {"pixel": pixel_mean(self.name, total, count).detach()})

    def combine(self, sums: Tensor, counts: Tensor) -> Tensor:
        return spread_non_finite(pixel_mean(self.name, sums[0], counts[0]))


class CELoss(_PixelLoss):
    """Softmax cross entropy, mean over valid pixels.

    Unlike `torch.nn.CrossEntropyLoss` it takes logits below label resolution and any label dtype, and is 0 instead of
    NaN if no pixel is valid. Arguments: see `SegmentationLoss`; shapes: see its `forward`.
    """

    name = "ce"


class BCELoss(_PixelLoss):
    """One-vs-rest sigmoid cross entropy: sum over valid pixels and all classes / (number of valid pixels + 1).

    Arguments: see `SegmentationLoss`; shapes: see its `forward`.
    """

    name = "bce"
