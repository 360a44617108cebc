"""The focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.functional import cross_entropy_counts, focal_sums
from rmiseg.kernels.terms import Shares
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, Target
from rmiseg.losses.pixelwise import PIXEL_EXTRA, pixel_mean


@dataclass
class FocalOptions:
    """Options of the focal loss."""

    gamma: float = 2.0
    """Exponent: the larger, the less do pixels count that are right already; 0 is cross entropy."""


@register("loss", "focal", options=FocalOptions)
class FocalLoss(SegmentationLoss):
    """Focal loss (Lin et al., ICCV 2017, arXiv:1708.02002), of the softmax: mean over valid pixels of
    -(1 - p)^gamma log p of the right class, over their weights if there are class weights (the paper's alpha).

    Args:
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count, see `SegmentationLoss`.
        gamma: The exponent, at least 0.
        loss_options: See `SegmentationLoss`; mode "multiclass" alone.

    Shape: see `SegmentationLoss.forward`; class ids alone.

    Raises:
        ValueError: A negative `gamma`.
    """

    modes = ("multiclass",)
    takes_any_target = False

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        *,
        gamma: float = 2.0,
        **loss_options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, **loss_options)
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more, not {gamma}")
        self.gamma = gamma

    def sample_terms(self, batch: Batch) -> LossTerms:
        logits = self._full_size(batch, softmax=True)
        target = batch.target
        sums = focal_sums(logits, target.values, target.valid, self.gamma, batch.class_weights).unsqueeze(1)
        counts = self.sample_counts(target, batch.class_weights)
        return LossTerms(sums, counts, {"pixel": pixel_mean("ce", sums.sum(), counts.sum()).detach()})

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        return cross_entropy_counts(target.values, target.valid, class_weights).unsqueeze(1)

    def shares(self) -> Shares:
        return Shares(1.0, PIXEL_EXTRA["ce"])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gamma={self.gamma}"
