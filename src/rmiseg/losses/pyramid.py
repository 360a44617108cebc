"""Cross entropy at several scales, the pyramid loss that Zhao et al. 2019 compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmiseg.losses import functional
from rmiseg.losses.base import LossTerms, SegmentationLoss, spread_non_finite
from rmiseg.losses.pixelwise import pixel_mean


class PyramidLoss(SegmentationLoss):
    """Mean over scales of the softmax cross entropy of resized logits (bilinear) and labels (nearest).

    Args:
        num_classes: Number of classes C.
        scales: Factors s; at each, logits and labels of size (H, W) are resized to (int(s H), int(s W)).
        ignore_index: Label of pixels that do not count; None if there is none.
        align_corners: Corner convention of the interpolation of small logits to (H, W), see `SegmentationLoss`; the
            resizing to the scales never aligns corners.
        check_target: See `SegmentationLoss`.

    Shape: see `SegmentationLoss.forward`.
    """

    def __init__(
        self,
        num_classes: int,
        scales: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        ignore_index: int | None = 255,
        *,
        align_corners: bool = False,
        check_target: bool | None = None,
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, align_corners=align_corners, check_target=check_target)
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be one or more positive numbers, got {scales!r}")
        self.scales = tuple(scales)

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        logits, target, _ = self._prepare(logits, target)
        sums = []
        for size in self._sizes(target):
            scaled, labels = functional.resize_pair(logits, target, size)
            valid = functional.valid_pixels(labels, self.num_classes, self.ignore_index)
            sums.append(functional.cross_entropy_sum(scaled, labels, valid))
        terms = LossTerms(torch.stack(sums), self.counts(target), {})
        return terms._replace(parts={"pixel": self._mean(terms.sums, terms.counts).detach()})

    def counts(self, target: Tensor) -> Tensor:
        sizes = self._sizes(target)
        return torch.stack([self._valid_count(functional.resize_labels(target.long(), size)) for size in sizes])

    def _sizes(self, target: Tensor) -> list[tuple[int, int]]:
        height, width = target.shape[-2:]
        sizes = [(int(scale * height), int(scale * width)) for scale in self.scales]
        for scale, size in zip(self.scales, sizes):
            if min(size) < 1:
                raise ValueError(f"target of size {(height, width)} is {size} at scale {scale}: use larger crops")
        return sizes

    def combine(self, sums: Tensor, counts: Tensor) -> Tensor:
        return spread_non_finite(self._mean(sums, counts))

    def _mean(self, sums: Tensor, counts: Tensor) -> Tensor:
        return pixel_mean("ce", sums, counts).mean()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scales={self.scales}"
