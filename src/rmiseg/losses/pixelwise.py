"""Losses that see lone pixels: softmax cross entropy and one-vs-rest sigmoid cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.functional import cross_entropy_counts, cross_entropy_sums
from rmiseg.kernels.backends import check_implementation
from rmiseg.kernels.pixel import pixel_sums
from rmiseg.kernels.terms import Shares, WholeLoss
from rmiseg.kernels.whole import whole_loss
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, Target

PIXEL_EXTRA = {"ce": 0, "bce": 1}
"""The pixels that "ce" and "bce" divide by beside the valid ones: the original takes one more for "bce"."""


def pixel_mean(name: str, total: Tensor, count: Tensor) -> Tensor:
    """The mean that "ce" and "bce" take of their sums; 0 if no pixel is valid."""
    divisor = count + 1 if PIXEL_EXTRA[name] else count.where(count > 0, 1)
    return (total / divisor).to(total.dtype)  # weighted counts are float64


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

    def _at_once(self, logits: Tensor, target: Tensor) -> Tensor | None:
        if self.from_probabilities or type(self) not in (CELoss, BCELoss):  # another may be another loss
            return None
        loss = WholeLoss(self.inputs.ignored, self.name, self.align_corners, self.shares())
        return whole_loss(logits, target, loss, self.implementation)

    def sample_terms(self, batch: Batch) -> LossTerms:
        target, weights = batch.target, batch.class_weights
        sums = pixel_sums(
            self._logits(batch, softmax=self.name == "ce"),
            target.values,
            target.valid,
            weights if self.mode == "multiclass" else None,
            self.name,
            self.align_corners,
            self.implementation,
        )
        sums = self._by_sample(sums.unsqueeze(1), batch)
        counts = self.sample_counts(target, weights)
        if not batch.with_parts:
            return LossTerms(sums, counts, {})
        return LossTerms(sums, counts, {"pixel": pixel_mean(self.name, sums.sum(), counts.sum()).detach()})

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        if self.name == "ce" and class_weights is not None:
            return cross_entropy_counts(target.values, target.valid, class_weights).unsqueeze(1)
        return self._counts_by_sample(target.counts[:, :1])

    def shares(self) -> Shares:
        return Shares(1.0, PIXEL_EXTRA[self.name])


@dataclass
class CEOptions:
    """Options of softmax cross entropy."""

    label_smoothing: float = 0.0
    """Share of a pixel that is said to be of all classes alike, 0 to 1."""


@register("loss", "ce", options=CEOptions)
class CELoss(_PixelLoss):
    """Softmax cross entropy, mean over valid pixels; over their weights, if there are class weights.

    Unlike `torch.nn.CrossEntropyLoss` it takes logits below label resolution and any label dtype, and is 0 instead of
    NaN if no pixel is valid; full-size copies of the logits are never made. Class weights count alike for class ids
    and for probabilities, whose mean torch does not weight.

    Arguments: see `SegmentationLoss`; mode "multiclass" alone; `implementation` as in `RMILoss`; `label_smoothing`, as
    in torch, with which logits are copied at full size. Shapes: see `SegmentationLoss.forward`.
    """

    name = "ce"
    modes = ("multiclass",)

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        *,
        label_smoothing: float = 0.0,
        implementation: str = "auto",
        **loss_options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes, ignore_index, implementation=implementation, **loss_options)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be a share from 0 to 1, not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def sample_terms(self, batch: Batch) -> LossTerms:
        if not self.label_smoothing:
            return super().sample_terms(batch)
        target, weights = batch.target, batch.class_weights
        logits = self._full_size(batch, softmax=True)
        sums = cross_entropy_sums(logits, target.values, target.valid, weights, self.label_smoothing).unsqueeze(1)
        counts = self.sample_counts(target, weights)
        return LossTerms(sums, counts, {"pixel": pixel_mean(self.name, sums.sum(), counts.sum()).detach()})

    def _at_once(self, logits: Tensor, target: Tensor) -> Tensor | None:
        return None if self.label_smoothing else super()._at_once(logits, target)

    def extra_repr(self) -> str:
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return super().extra_repr() + smoothing


@register("loss", "bce")
class BCELoss(_PixelLoss):
    """One-vs-rest sigmoid cross entropy: sum over valid pixels and all classes / (number of valid pixels + 1).

    Arguments: see `SegmentationLoss`; `implementation` as in `RMILoss`. Shapes: see `SegmentationLoss.forward`.
    """

    name = "bce"
