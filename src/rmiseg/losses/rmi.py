"""The Region Mutual Information loss of Zhao et al., NeurIPS 2019 (arXiv:1910.12037)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from rmiseg.config.options import RMIConfig
from rmiseg.config.registry import register
from rmiseg.functional import PIXEL_SUMS, RMI_ALPHA, RMIOptions, cross_entropy_counts, pooled_size, widest
from rmiseg.kernels.backends import check_implementation
from rmiseg.kernels.pixel import pixel_sums
from rmiseg.kernels.rmi import RMISums, rmi_sums
from rmiseg.kernels.terms import Shares, WholeLoss
from rmiseg.kernels.whole import whole_loss
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss
from rmiseg.losses.checks import check_choice, whole_number
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, Target
from rmiseg.losses.pixelwise import PIXEL_EXTRA, pixel_mean

POOLS = ("avg", "max", "interp")
COMBINES = ("convex", "additive")
COVARIANCES = ("sum", "mean", "batch")


@register("loss", "rmi", options=RMIConfig)
class RMILoss(SegmentationLoss):
    """Region Mutual Information plus a pixel loss (Zhao et al. 2019, equation 20).

    Around each pixel of the downsampled one-hot label and probability maps, the R x R values form a vector. The loss
    is small if the vectors of the labels are well predicted, in the least-squares sense, by those of the probabilities:
    it is the log-determinant of what stays unexplained. So it rewards the right structure, not only the right pixels.

    **The value can be negative; only its gradient matters.** A class that is absent from an image contributes the least
    possible value, 1/2 ln alpha = -3.80 (`functional.RMI_FLOOR`), and no gradient, whatever is predicted: its labels
    have no variance to explain, and pixels wrongly given to it are left to the pixel loss, unless `covariance` is
    "batch". A class that is present and perfectly predicted contributes up to 1/2 ln 2 more. With `subtract_floor=True`
    the loss counts from what a perfect prediction reaches: the same gradients, and 0 for that. It is no bound:
    predictions with more contrast than the pooled labels have, as of a whole pooling window for a single pixel, can
    come a little below.

    Args:
        num_classes: Number of classes C.
        region_size: Side R of the square regions, in pooled pixels.
        pool: Downsampling of labels and probabilities: "avg" or "max" pooling, or "interp" (labels nearest,
            probabilities bilinear).
        pool_size: Downsampling factor; 1 for none.
        weight_lambda: The weight lambda in the combination.
        combine: Combination of both; "convex": lambda * pixel + (1 - lambda) * rmi; "additive": pixel + lambda * rmi.
        pixel_loss: "bce" (as in the paper) or "ce".
        ignore_index: Labels of pixels that do not count, see `SegmentationLoss`.
        alpha: Added to the diagonal of region covariances, the a of the paper: how much of the labels' variance counts
            as noise.
        covariance: "sum": over all positions of a region, as in the paper; "mean": divided by their number, so that
            `alpha` means the same for images of any size. Sums are thousands of times larger. "batch": sums over the
            positions in all samples, so that a class has one RMI for the batch, and a gradient in the samples that do
            not show it too; not in the paper. Each micro-batch, and each process, has a batch of its own;
            where `reduction` is not "mean", each sample is one.
        subtract_floor: Count the RMI of each class from that of a perfect prediction of the same target.
        implementation: "native" (CPU, compiled), "triton" (CUDA), "chunked" (any device, in ordinary operations),
            "plain" (the readable definition, slow), or "auto": the fastest that there is for the device of the logits
            ("chunked" on AMD's GPUs, where Triton is not tested). Values and gradients are the same. "triton" is for
            images with class ids. Inside of the transforms of `torch.func` and of forward-mode differentiation, all
            are "plain"; only that can be differentiated twice by autograd.
        loss_options: What all losses have: `mode` ("multiclass", "binary", "multilabel"), `class_weights`, `reduction`,
            `from_probabilities`, `align_corners`, `check_target`; see `SegmentationLoss`.

    Shape:
        logits (N, C, h, w) at any resolution up to (H, W); target (N, H, W); output scalar. For volumes, binary and
        multilabel masks and targets that are probabilities see `SegmentationLoss.forward`. `return_parts=True` adds
        "pixel", the pixel loss, and "rmi", the mean RMI of the classes present in each image, counted from that of a
        perfect prediction, which has 0. Samples without a valid pixel do not count.

    Examples:
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
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        *,
        alpha: float = RMI_ALPHA,
        covariance: str = "sum",
        subtract_floor: bool = False,
        implementation: str = "auto",
        **loss_options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, **loss_options)
        check_choice("pool", pool, POOLS)
        check_choice("combine", combine, COMBINES)
        check_choice("covariance", covariance, COVARIANCES)
        check_choice("pixel_loss", pixel_loss, tuple(PIXEL_SUMS))
        if pixel_loss == "ce" and self.mode != "multiclass":
            raise ValueError(f"pixel_loss='ce' compares the classes of a pixel; with mode={self.mode!r} use 'bce'")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        check_implementation(implementation)
        if not 0 <= weight_lambda < math.inf or (combine == "convex" and weight_lambda > 1):
            raise ValueError(f"weight_lambda must be at least 0, and at most 1 if convex, got {weight_lambda}")
        self.region_size = whole_number("region_size", region_size)
        self.pool = pool
        self.pool_size = whole_number("pool_size", pool_size)
        self.weight_lambda = weight_lambda
        self.combination = combine
        self.pixel_loss = pixel_loss
        self.alpha = alpha
        self.covariance = covariance
        self.subtract_floor = subtract_floor
        self.implementation = implementation

    def _options(self, size: Sequence[int]) -> tuple[RMIOptions, float | None]:
        """The options for targets of a size, and what RMI counts from; None for perfect predictions."""
        positions = self._positions(size)
        count = positions if self.covariance == "mean" else 1
        # Dividing covariances by their number of positions is multiplying alpha by it, but for a constant.
        settings = self.region_size, self.pool, self.pool_size, self.pixel_loss, self.align_corners
        together = self.covariance == "batch" and self.reduction == "mean"  # otherwise each sample is as if alone
        options = RMIOptions(*settings, self.alpha * count, self.num_classes if together else 0)
        return options, None if self.subtract_floor else 0.5 * math.log(count)

    def _at_once(self, logits: Tensor, target: Tensor) -> Tensor | None:
        is_other = type(self) is not RMILoss  # which may be another loss
        if self.from_probabilities or is_other:
            return None
        options, floor = self._options(target.shape[1:])
        loss = WholeLoss(self.inputs.ignored, self.pixel_loss, self.align_corners, self.shares(), options, floor)
        return whole_loss(logits, target, loss, self.implementation)

    def sample_terms(self, batch: Batch) -> LossTerms:
        """Sums of the pixel loss, over valid pixels, and of RMI, over classes: (N, 2), and their counts."""
        target, weights = batch.target, batch.class_weights
        options, floor = self._options(target.valid.shape[1:])
        pixel_weights = weights if self.mode == "multiclass" else None
        logits = self._logits(batch)
        inputs = (logits, target.values, target.valid, pixel_weights)
        map_weights = self._counted(target)[:, 1:]
        if weights is None or self.mode == "multilabel":  # whose maps are of one class each, see `_by_sample`
            map_weights = map_weights.expand(-1, logits.shape[1])
        else:
            map_weights = map_weights * weights.to(widest(weights.device))
        found = rmi_sums(*inputs, map_weights, options, self.implementation, floor, batch.with_parts)
        sums = found.sums
        if self.from_probabilities and self.pixel_loss == "ce":  # whose logits are not those of a sigmoid
            inputs = (self._logits(batch, softmax=True), *inputs[1:])
            own = pixel_sums(*inputs, "ce", self.align_corners, self.implementation)
            sums = torch.stack([own, sums[:, 1]], dim=1)
        sums = self._by_sample(sums, batch)
        counts = self.sample_counts(target, weights)
        parts = self._parts(sums, counts, found, self._counted(target)[:, 1:] > 0) if batch.with_parts else {}
        return LossTerms(sums, counts, parts)

    def _parts(self, sums: Tensor, counts: Tensor, found: RMISums, counted: Tensor) -> dict[str, Tensor]:
        assert found.rmi is not None
        assert found.present is not None
        assert found.perfect is not None
        shown = found.present & counted
        above_perfect = (found.rmi - found.perfect).masked_fill(~shown, 0).sum() / shown.sum().clamp(min=1)
        pixel = pixel_mean(self.pixel_loss, sums[:, 0].sum(), counts[:, 0].sum()).detach()
        return {"pixel": pixel, "rmi": above_perfect.to(pixel.dtype)}

    def _counted(self, target: Target) -> Tensor:
        """Valid pixels of every map, and 1 if it counts in the mean of RMI, else 0: (M, 2)."""
        return target.counts

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        """Valid pixels, and samples of which RMI counts: (N, 2); for multilabel masks, means over the classes."""
        counts = self._counts_by_sample(self._counted(target))
        if self.pixel_loss != "ce" or class_weights is None:
            return counts
        pixel_counts = cross_entropy_counts(target.values, target.valid, class_weights)
        return torch.stack([pixel_counts, counts[:, 1].to(pixel_counts.dtype)], dim=1)

    def shares(self) -> Shares:
        weight, extra = float(self.weight_lambda), PIXEL_EXTRA[self.pixel_loss]
        return Shares(1.0, extra, weight) if self.combination == "additive" else Shares(weight, extra, 1 - weight)

    def _positions(self, size: Sequence[int]) -> int:
        """Number of regions in targets of a size, which must not be too small for one."""
        pooled = pooled_size(size, self.pool, self.pool_size)
        thin = len(size) == 3 and min(size) < self.pool_size  # which torch does not pool
        if min(pooled) < self.region_size or thin:
            raise ValueError(
                f"target of size {tuple(size)} is {pooled} after pooling by {self.pool_size}, "
                f"too small for regions of {' x '.join([str(self.region_size)] * len(size))}; use larger crops, "
                "a smaller pool_size or a smaller region_size"
            )
        return math.prod([side - self.region_size + 1 for side in pooled])

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, region_size={self.region_size}, pool={self.pool!r}, pool_size={self.pool_size}, "
            f"weight_lambda={self.weight_lambda}, combine={self.combination!r}, pixel_loss={self.pixel_loss!r}, "
            f"alpha={self.alpha}, covariance={self.covariance!r}"
        )
