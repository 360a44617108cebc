"""The affinity-field loss of Ke et al., ECCV 2018 (arXiv:1803.10335), that Zhao et al. 2019 compare with."""

from __future__ import annotations

import torch
from torch import Tensor

from rmiseg.losses import functional
from rmiseg.losses.base import LossTerms, SegmentationLoss, spread_non_finite
from rmiseg.losses.pixelwise import pixel_mean

DECAY_BASE = 20.0


class AffinityLoss(SegmentationLoss):
    """Softmax cross entropy plus 20^(-(step - init_step) / max_steps) times the affinity-field loss.

    Args:
        num_classes: Number of classes C.
        max_steps: Length of training, over which the affinity weight decays from 1 to 1/20.
        downsample: Factor by which labels and logits are resized before neighbors are compared.
        init_step: Step at which the decay starts.
        ignore_index: Label of pixels that do not count; None if there is none.
        align_corners: Corner convention of the interpolation of small logits to (H, W), see `SegmentationLoss`; the
            downsampling always aligns corners.
        check_target: See `SegmentationLoss`.

    Shape: see `SegmentationLoss.forward`; here it takes the current optimizer `step` too, without which the affinity
    weight does not decay.
    """

    def __init__(
        self,
        num_classes: int,
        max_steps: int,
        downsample: int = 8,
        init_step: int = 0,
        ignore_index: int | None = 255,
        *,
        align_corners: bool = False,
        check_target: bool | None = None,
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, align_corners=align_corners, check_target=check_target)
        for name, value in (("max_steps", max_steps), ("downsample", downsample)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.max_steps = max_steps
        self.downsample = downsample
        self.init_step = init_step

    def forward(
        self, logits: Tensor, target: Tensor, step: int = 0, *, return_parts: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        terms = self.terms(logits, target)
        loss = self.combine(terms.sums, terms.counts, step)
        return (loss, terms.parts) if return_parts else loss

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        """Sums and counts of cross entropy, of affinity across label edges, and of affinity elsewhere."""
        logits, target, valid = self._prepare(logits, target)
        size = self._size(target)
        small, labels = functional.resize_pair(logits, target, size, align_corners=True)
        small_valid = functional.valid_pixels(labels, self.num_classes, self.ignore_index)
        edge = functional.affinity_edges(labels, small_valid, self.num_classes)
        pixel_sum, pixel_count = functional.cross_entropy_sum(logits, target, valid), valid.sum()
        sums = functional.affinity_sums(small, edge, small_valid)
        counts = torch.stack([pixel_count, edge.sum(), (~edge).sum()])
        return LossTerms(
            sums=torch.cat([pixel_sum[None], sums]),
            counts=counts,
            parts={
                "pixel": pixel_mean("ce", pixel_sum, pixel_count).detach(),
                "affinity": _affinity(sums, counts[1:]).detach(),
            },
        )

    def counts(self, target: Tensor) -> Tensor:
        labels = functional.resize_labels(target.long(), self._size(target))
        valid = functional.valid_pixels(labels, self.num_classes, self.ignore_index)
        edge = functional.affinity_edges(labels, valid, self.num_classes)
        return torch.stack([self._valid_count(target), edge.sum(), (~edge).sum()])

    def _size(self, target: Tensor) -> tuple[int, int]:
        height, width = target.shape[-2:]
        size = (height // self.downsample, width // self.downsample)
        if min(size) < 1:
            raise ValueError(
                f"target of size {(height, width)} is smaller than downsample={self.downsample}: use larger crops"
            )
        return size

    def combine(self, sums: Tensor, counts: Tensor, step: int = 0) -> Tensor:
        weight = DECAY_BASE ** (-(step - self.init_step) / self.max_steps)
        return spread_non_finite(pixel_mean("ce", sums[0], counts[0]) + weight * _affinity(sums[1:], counts[1:]))

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, max_steps={self.max_steps}, downsample={self.downsample}, "
            f"init_step={self.init_step}"
        )


def _affinity(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean over pairs across an edge plus mean over the others; a mean over nothing is 0."""
    return (sums / counts.clamp(min=1)).sum()
