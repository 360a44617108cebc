"""The Region Mutual Information loss of Zhao et al., NeurIPS 2019 (arXiv:1910.12037)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rmiseg.kernels import dispatch
from rmiseg.losses.base import LossTerms, SegmentationLoss, spread_non_finite
from rmiseg.losses.functional import PIXEL_SUMS, RMI_FLOOR, RMIOptions, pooled_size
from rmiseg.losses.pixelwise import pixel_mean

POOLS = ("avg", "max", "interp")
COMBINES = ("convex", "additive")


class RMILoss(SegmentationLoss):
    """Region Mutual Information plus a pixel loss (Zhao et al. 2019, equation 20).

    Around each pixel of the downsampled one-hot label and probability maps, the R x R values form a vector. The loss
    is small if the vectors of the labels are well predicted, in the least-squares sense, by those of the probabilities:
    it is the log-determinant of what stays unexplained. So it rewards the right structure, not only the right pixels.

    **The value can be negative; only its gradient matters.** A class that is absent from an image, and predicted
    absent, contributes the least possible value, 1/2 ln 5e-4 = -3.80 (`functional.RMI_FLOOR`), and no gradient. With
    `subtract_floor=True` the loss counts from there: the same gradients, never below zero.

    Args:
        num_classes: Number of classes C.
        region_size: Side R of the square regions, in pooled pixels.
        pool: How labels and probabilities are downsampled: "avg" or "max" pooling, or "interp" (labels nearest,
            probabilities bilinear).
        pool_size: Downsampling factor; 1 for none.
        weight_lambda: The weight lambda, see `combine`.
        combine: "convex": lambda * pixel + (1 - lambda) * rmi; "additive": pixel + lambda * rmi.
        pixel_loss: "bce" (as in the paper) or "ce".
        ignore_index: Label of pixels that do not count; None if there is none.
        align_corners: See `SegmentationLoss`.
        check_target: See `SegmentationLoss`.
        subtract_floor: Count the RMI of each class from its floor.
        implementation: "native" (CPU, compiled), "triton" (CUDA), "chunked" (any device, in ordinary operations),
            "plain" (the readable definition, slow), or "auto": the fastest that there is for the device of the logits.
            Values and gradients are the same.

    Shape:
        logits (N, C, h, w) at any resolution up to (H, W); target (N, H, W); output scalar. See
        `SegmentationLoss.forward`. `return_parts=True` adds "pixel", the pixel loss, and "rmi", the mean RMI above the
        floor of the classes present in each image: 0 is perfect.

    Example:
        >>> loss = RMILoss(num_classes=21)
        >>> loss(model(images), labels).backward()
    """

    def __init__(
        self,
        num_classes: int,
        region_size: int = 3,
        pool: str = "avg",
        pool_size: int = 4,
        weight_lambda: float = 0.5,
        combine: str = "convex",
        pixel_loss: str = "bce",
        ignore_index: int | None = 255,
        *,
        align_corners: bool = False,
        check_target: bool | None = None,
        subtract_floor: bool = False,
        implementation: str = "auto",
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, align_corners=align_corners, check_target=check_target)
        for name, size in (("region_size", region_size), ("pool_size", pool_size)):
            if not isinstance(size, int):
                raise ValueError(f"{name} must be an integer, got {size!r}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        for name, choice, choices in (
            ("pool", pool, POOLS),
            ("combine", combine, COMBINES),
            ("pixel_loss", pixel_loss, tuple(PIXEL_SUMS)),
        ):
            if choice not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}; got {choice!r}")
        dispatch.check_implementation(implementation)
        if not 0 <= weight_lambda < math.inf or (combine == "convex" and weight_lambda > 1):
            raise ValueError(f"weight_lambda must be at least 0, and at most 1 if convex, got {weight_lambda}")
        self.region_size = region_size
        self.pool = pool
        self.pool_size = pool_size
        self.weight_lambda = weight_lambda
        self.combination = combine
        self.pixel_loss = pixel_loss
        self.subtract_floor = subtract_floor
        self.implementation = implementation

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        """Sums of the pixel loss over valid pixels and of RMI over samples and classes, each with its count."""
        labels, valid, doubt = self._check(logits, target)
        self._check_size(target)
        options = RMIOptions(self.region_size, self.pool, self.pool_size, self.pixel_loss, self.align_corners)
        pixel_sum, rmi, present = dispatch.rmi_sums(logits, labels, valid, options, self.implementation)
        if doubt is not None:
            pixel_sum = pixel_sum * doubt
        pixel_count = valid.sum()
        above_floor = rmi - RMI_FLOOR
        rmi_sum = (above_floor if self.subtract_floor else rmi).sum()
        return LossTerms(
            sums=torch.stack([pixel_sum, rmi_sum.to(pixel_sum.dtype)]),
            counts=torch.stack([pixel_count, torch.full_like(pixel_count, target.shape[0])]),
            parts={
                "pixel": pixel_mean(self.pixel_loss, pixel_sum, pixel_count).detach(),
                "rmi": ((above_floor.detach() * present).sum() / present.sum().clamp(min=1)).to(pixel_sum.dtype),
            },
        )

    def counts(self, target: Tensor) -> Tensor:
        pixel_count = self._valid_count(target)
        return torch.stack([pixel_count, torch.full_like(pixel_count, target.shape[0])])

    def combine(self, sums: Tensor, counts: Tensor) -> Tensor:
        pixel = pixel_mean(self.pixel_loss, sums[0], counts[0])
        rmi = sums[1] / counts[1].clamp(min=1) * (counts[0] > 0)
        if self.combination == "convex":
            return spread_non_finite(self.weight_lambda * pixel + (1 - self.weight_lambda) * rmi)
        return spread_non_finite(pixel + self.weight_lambda * rmi)

    def _check_size(self, target: Tensor) -> None:
        size = (target.shape[-2], target.shape[-1])
        pooled = pooled_size(size, self.pool, self.pool_size)
        if min(pooled) < self.region_size:
            raise ValueError(
                f"target of size {size} is {pooled} after pooling by {self.pool_size}, "
                f"too small for regions of {self.region_size} x {self.region_size}; use larger crops, "
                "a smaller pool_size or a smaller region_size"
            )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, region_size={self.region_size}, pool={self.pool!r}, pool_size={self.pool_size}, "
            f"weight_lambda={self.weight_lambda}, combine={self.combination!r}, pixel_loss={self.pixel_loss!r}"
        )
