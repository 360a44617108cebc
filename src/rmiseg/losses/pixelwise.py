"""Losses that see lone pixels: softmax cross entropy and one-vs-rest sigmoid cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.functional import cross_entropy_counts
from rmiseg.kernels import operators
from rmiseg.kernels.backends import check_implementation
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss, spread_non_finite
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, Target


def pixel_mean(name: str, total: Tensor, count: Tensor) -> Tensor:
    """The mean that "ce" and "bce" take of their sums; 0 if no pixel is valid."""
    return (total / pixel_divisor(name, count)).to(total.dtype)  # weighted counts are float64


def pixel_divisor(name: str, count: Tensor) -> Tensor:
    """The number of valid pixels that "ce" and "bce" divide by; the original takes one more for "bce"."""
    return count.where(count > 0, 1) if name == "ce" else count + 1


class _PixelLoss(SegmentationLoss):
    """Arguments: those of `SegmentationLoss`, and `implementation`, see `RMILoss`."""

    name: str

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        *,
        implementation: str = "auto",
        **loss_options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, **loss_options)
        check_implementation(implementation)
        self.implementation = implementation

    def sample_terms(self, batch: Batch) -> LossTerms:
        target, weights = batch.target, batch.class_weights
        sums = operators.pixel_sums(
            self._logits(batch, softmax=self.name == "ce"),
            target.values,
            target.valid,
            weights if self.mode == "multiclass" else None,
            self.name,
            self.align_corners,
            self.implementation,
        )
        sums = self._by_sample(sums if batch.doubt is None else sums * batch.doubt, batch).unsqueeze(1)
        counts = self.sample_counts(target, weights)
        if not batch.with_parts:
            return LossTerms(sums, counts, {})
        return LossTerms(sums, counts, {"pixel": pixel_mean(self.name, sums.sum(), counts.sum()).detach()})

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        if self.name == "ce" and class_weights is not None:
            return cross_entropy_counts(target.values, target.valid, class_weights).unsqueeze(1)
        return self._pixel_counts(target).unsqueeze(1)

    def from_sums(self, sums: Tensor, counts: Tensor) -> Tensor:
        return spread_non_finite(pixel_mean(self.name, sums[..., 0], counts[..., 0]))


@register("loss", "ce")
class CELoss(_PixelLoss):
    """Softmax cross entropy, mean over valid pixels; over their weights, if there are class weights.

    Unlike `torch.nn.CrossEntropyLoss` it takes logits below label resolution and any label dtype, and is 0 instead of
    NaN if no pixel is valid; full-size copies of the logits are never made. Class weights count alike for class ids
    and for probabilities, whose mean torch does not weight.

    Arguments: see `SegmentationLoss`; mode "multiclass" alone; `implementation` as in `RMILoss`. Shapes: see
    `SegmentationLoss.forward`.
    """

    name = "ce"
    modes = ("multiclass",)


@register("loss", "bce")
class BCELoss(_PixelLoss):
    """One-vs-rest sigmoid cross entropy: sum over valid pixels and all classes / (number of valid pixels + 1).

    Arguments: see `SegmentationLoss`; `implementation` as in `RMILoss`. Shapes: see `SegmentationLoss.forward`.
    """

    name = "bce"
