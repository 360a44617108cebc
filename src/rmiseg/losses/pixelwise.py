"""Losses that see lone pixels: softmax cross entropy and one-vs-rest sigmoid cross entropy."""

from __future__ import annotations

from torch import Tensor

from rmiseg.kernels import dispatch
from rmiseg.losses.base import LossTerms, SegmentationLoss, spread_non_finite


def pixel_mean(name: str, total: Tensor, valid_count: Tensor) -> Tensor:
    """The mean that "ce" and "bce" take of their sums; 0 if no pixel is valid.

    The original divides the sum of "bce" by one more than the number of valid pixels.
    """
    return total / (valid_count.clamp(min=1) if name == "ce" else valid_count + 1)


class _PixelLoss(SegmentationLoss):
    """Arguments: those of `SegmentationLoss`, and `implementation`, see `RMILoss`."""

    name: str

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        align_corners: bool = False,
        check_target: bool | None = None,
        implementation: str = "auto",
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, align_corners=align_corners, check_target=check_target)
        dispatch.check_implementation(implementation)
        self.implementation = implementation

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        labels, valid, doubt = self._check(logits, target)
        total = dispatch.pixel_sum(logits, labels, valid, self.name, self.align_corners, self.implementation)
        total, count = (total if doubt is None else total * doubt), valid.sum()
        return LossTerms(total[None], count[None], {"pixel": pixel_mean(self.name, total, count).detach()})

    def counts(self, target: Tensor) -> Tensor:
        return self._valid_count(target)[None]

    def combine(self, sums: Tensor, counts: Tensor) -> Tensor:
        return spread_non_finite(pixel_mean(self.name, sums[0], counts[0]))


class CELoss(_PixelLoss):
    """Softmax cross entropy, mean over valid pixels.

    Unlike `torch.nn.CrossEntropyLoss` it takes logits below label resolution and any label dtype, and is 0 instead of
    NaN if no pixel is valid; full-size copies of the logits are never made.

    Arguments: see `SegmentationLoss`; `implementation` as in `RMILoss`. Shapes: see `SegmentationLoss.forward`.
    """

    name = "ce"


class BCELoss(_PixelLoss):
    """One-vs-rest sigmoid cross entropy: sum over valid pixels and all classes / (number of valid pixels + 1).

    Arguments: see `SegmentationLoss`; `implementation` as in `RMILoss`. Shapes: see `SegmentationLoss.forward`.
    """

    name = "bce"
