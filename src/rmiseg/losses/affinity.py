"""The affinity-field loss of Ke et al., ECCV 2018 (arXiv:1803.10335), that Zhao et al. 2019 compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg import functional
from rmiseg.config.options import AffinityConfig
from rmiseg.config.registry import register
from rmiseg.kernels.means import spread_non_finite
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, Target
from rmiseg.losses.pixelwise import pixel_mean

DECAY_BASE = 20.0


@register("loss", "affinity", options=AffinityConfig)
class AffinityLoss(SegmentationLoss):
    """Softmax cross entropy plus 20^(-(step - init_step) / max_steps) times the affinity-field loss.

    Args:
        num_classes: Number of classes C.
        max_steps: Length of training, over which the affinity weight decays from 1 to 1/20.
        downsample: Factor by which labels and logits are resized before neighbors are compared.
        init_step: Step at which the decay starts.
        ignore_index: Labels of pixels that do not count, see `SegmentationLoss`.
        loss_options: See `SegmentationLoss`; mode "multiclass" alone. `class_weights` are for the cross entropy;
            `align_corners` is for the interpolation of small logits to (H, W), the downsampling always aligns corners.

    Shape: see `SegmentationLoss.forward`, images with class ids alone; here it takes the current optimizer `step` too,
    without which the affinity weight does not decay.
    """

    modes = ("multiclass",)
    takes_any_target = False

    def __init__(
        self,
        num_classes: int,
        max_steps: int,
        downsample: int = 8,
        init_step: int = 0,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        **loss_options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, **loss_options)
        for name, value in (("max_steps", max_steps), ("downsample", downsample)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= init_step <= max_steps:
            raise ValueError(f"init_step must be from 0 to max_steps, which is {max_steps}, got {init_step}")
        self.max_steps = max_steps
        self.downsample = downsample
        self.init_step = init_step

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        step: int = 0,
        *,
        mask: Tensor | None = None,
        return_parts: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        return self._result(self._read(logits, target, mask, return_parts), step=step)

    def sample_terms(self, batch: Batch) -> LossTerms:
        """Sums of cross entropy, of affinity across label edges and of affinity elsewhere: (N, 3), and their counts."""
        logits, target = self._full_size(batch, softmax=True), batch.target
        pixel_sums = functional.cross_entropy_sums(logits, target.values, target.valid, batch.class_weights)
        labels, valid, edge = self._edges(target)
        small = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=True)
        pairs = functional.affinity_sums(small, edge, valid).masked_fill(~target.samples.unsqueeze(1), 0)
        sums = torch.cat([pixel_sums.unsqueeze(1), pairs], dim=1)
        counts = self.sample_counts(target, batch.class_weights)
        total, count = sums.sum(dim=0).detach(), counts.sum(dim=0)
        parts = {"pixel": pixel_mean("ce", total[0], count[0]), "affinity": _affinity(total[1:], count[1:])}
        return LossTerms(sums, counts, parts)

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        pixel_counts = functional.cross_entropy_counts(target.values, target.valid, class_weights)
        edge = self._edges(target)[2].flatten(1)
        counts = (pairs.sum(dim=1) * target.samples for pairs in (edge, ~edge))
        return torch.stack([pixel_counts, *(count.to(pixel_counts.dtype) for count in counts)], dim=1)

    def _edges(self, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """Small labels and valid pixels (N, h, w), and `functional.affinity_edges`."""
        height, width = target.valid.shape[1:]
        size = (height // self.downsample, width // self.downsample)
        if min(size) < 1:
            raise ValueError(
                f"target of size {(height, width)} is smaller than downsample={self.downsample}: use larger crops"
            )
        labels, valid = functional.resize_target(target.values, target.valid, size)
        return labels, valid, functional.affinity_edges(labels, valid, self.num_classes)

    def from_sums(self, sums: Tensor, counts: Tensor, step: int = 0) -> Tensor:
        weight = DECAY_BASE ** (-(step - self.init_step) / self.max_steps)
        pixel = pixel_mean("ce", sums[..., 0], counts[..., 0])
        return spread_non_finite(pixel + weight * _affinity(sums[..., 1:], counts[..., 1:]))

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, max_steps={self.max_steps}, downsample={self.downsample}, "
            f"init_step={self.init_step}"
        )


def _affinity(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean over pairs across an edge plus mean over the others; a mean over nothing is 0."""
    return (sums / counts.clamp(min=1)).sum(dim=-1).to(sums.dtype)
