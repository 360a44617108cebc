"""Cross entropy at several scales, the pyramid loss that Zhao et al. 2019 compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from rmiseg import functional
from rmiseg.config.options import PyramidConfig
from rmiseg.config.registry import register
from rmiseg.kernels.means import spread_non_finite
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, Target
from rmiseg.losses.pixelwise import pixel_mean


@register("loss", "pyramid", options=PyramidConfig)
class PyramidLoss(SegmentationLoss):
    """Mean over scales of the softmax cross entropy of resized logits (bilinear) and labels (nearest).

    Args:
        num_classes: Number of classes C.
        scales: Factors s; at each, logits and labels of size (H, W) are resized to (int(s H), int(s W)).
        ignore_index: Labels of pixels that do not count, see `SegmentationLoss`.
        loss_options: See `SegmentationLoss`; mode "multiclass" alone. `align_corners` is for the interpolation of small
            logits to (H, W); the resizing to the scales never aligns corners.

    Shape: see `SegmentationLoss.forward`; images with class ids alone.
    """

    modes = ("multiclass",)
    takes_any_target = False

    def __init__(
        self,
        num_classes: int,
        scales: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        **loss_options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, **loss_options)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be one or more positive numbers, got {scales!r}")
        self.scales = tuple(scales)

    def sample_terms(self, batch: Batch) -> LossTerms:
        logits = self._full_size(batch, softmax=True)
        sums = []
        for labels, valid in self._scaled(batch.target):
            scaled = functional.upsample_logits(logits, labels.shape[1:])
            sums.append(functional.cross_entropy_sums(scaled, labels, valid, batch.class_weights))
        terms = LossTerms(torch.stack(sums, dim=1), self.sample_counts(batch.target, batch.class_weights), {})
        mean = self._mean(terms.sums.sum(dim=0), terms.counts.sum(dim=0))
        return terms._replace(parts={"pixel": mean.detach()})

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        scaled = self._scaled(target)
        return torch.stack([functional.cross_entropy_counts(*pair, class_weights) for pair in scaled], dim=1)

    def _scaled(self, target: Target) -> list[tuple[Tensor, Tensor]]:
        """Labels and valid pixels at every scale."""
        height, width = target.valid.shape[1:]
        scaled = []
        for scale in self.scales:
            size = (int(scale * height), int(scale * width))
            if min(size) < 1:
                raise ValueError(f"target of size {(height, width)} is {size} at scale {scale}: use larger crops")
            scaled.append(functional.resize_target(target.values, target.valid, size))
        return scaled

    def from_sums(self, sums: Tensor, counts: Tensor) -> Tensor:
        return spread_non_finite(self._mean(sums, counts))

    def _mean(self, sums: Tensor, counts: Tensor) -> Tensor:
        return pixel_mean("ce", sums, counts).mean(dim=-1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scales={self.scales}"
