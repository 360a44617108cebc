"""What all losses share: checks of their input, and sums and counts that add up over batches and processes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmiseg.losses.functional import upsample_logits, valid_pixels, widened


class LossTerms(NamedTuple):
    """A loss before its divisions.

    Sums and counts of several micro-batches or processes add up: `loss.combine(sums, counts)` of the totals is the loss
    of the whole batch, exactly.

    Attributes:
        sums: (K,) differentiable sums, one a term of the loss.
        counts: (K,) int64, over how much each was summed (valid pixels, samples, ...); depends on the target alone.
        parts: Detached scalars for logging.
    """

    sums: Tensor
    counts: Tensor
    parts: dict[str, Tensor]


class SegmentationLoss(nn.Module):
    """Base of all losses: a scalar from logits at any resolution and labels at full resolution.

    A subclass defines `terms` and `combine`.

    Args:
        num_classes: Number of classes C.
        ignore_index: Label of pixels that do not count; None if there is none.
        align_corners: Corner convention of the bilinear interpolation of logits that are smaller than the target.
        check_target: Whether a label that is neither a class nor `ignore_index` raises a ValueError. By default that is
            so on the CPU; on other devices, where looking at the labels would wait for the device, it makes the loss
            NaN instead, unless True asks for the exception.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = 255,
        align_corners: bool = False,
        check_target: bool | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.align_corners = align_corners
        self.check_target = check_target

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        """The sums and counts that `combine` makes the loss of. Shapes as in `forward`."""
        raise NotImplementedError

    def counts(self, target: Tensor) -> Tensor:
        """The counts of `terms`, which depend on the target alone: (K,) int64.

        Those of several micro-batches or processes, added up before the first backward pass, are what `combine` divides
        by.
        """
        raise NotImplementedError

    def combine(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The loss, a scalar, from (K,) sums and (K,) counts, of one batch or added up over several."""
        raise NotImplementedError

    def forward(
        self, logits: Tensor, target: Tensor, *, return_parts: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss.

        Args:
            logits: (N, C, h, w), float16, bfloat16, float32 or float64; h <= H and w <= W.
            target: (N, H, W) class ids of any integer dtype (or integers stored as floats).
            return_parts: Also return what the loss is made of, as detached scalars for logging.

        Returns:
            A scalar in float32 (float64 for float64 logits), or `(loss, parts)`. It is zero, with zero gradient, if no
            pixel is valid; non-finite logits give a non-finite loss and gradient.

        Raises:
            ValueError: Shapes that do not fit, or (see `check_target`) labels that are not classes.
        """
        terms = self.terms(logits, target)
        loss = self.combine(terms.sums, terms.counts)
        return (loss, terms.parts) if return_parts else loss

    def _valid_count(self, target: Tensor) -> Tensor:
        return valid_pixels(target.long(), self.num_classes, self.ignore_index).sum()

    def _prepare(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Check and unify the input: full-size logits in float32 or float64, int64 target, valid pixels."""
        labels, valid, doubt = self._check(logits, target)
        wide = upsample_logits(widened(logits), (target.shape[-2], target.shape[-1]), self.align_corners)
        return (wide if doubt is None else wide * doubt), labels, valid

    def _check(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Check the input: int64 target, valid pixels, and, where labels could not be checked, a doubt.

        The doubt is a scalar that the loss must be multiplied by, 1 or NaN: a label that is no class raises no
        exception then, which would wait for the device, but is no secret either.
        """
        if not logits.is_floating_point():
            raise ValueError(f"logits must be floating point, got {logits.dtype}")
        if logits.ndim != 4:
            raise ValueError(f"logits must have shape (N, C, H, W), got {tuple(logits.shape)}")
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits of shape {tuple(logits.shape)} have {logits.shape[1]} classes, "
                f"but the loss was built with num_classes={self.num_classes}"
            )
        if target.ndim != 3 or target.shape[0] != logits.shape[0]:
            raise ValueError(
                f"target must have shape (N, H, W) with N = {logits.shape[0]} as in the logits, "
                f"got {tuple(target.shape)}"
                + (" (use target.squeeze(1))" if target.ndim == 4 and target.shape[1] == 1 else "")
            )
        height, width = target.shape[-2:]
        if min(logits.shape[-2:]) == 0:
            raise ValueError(f"logits of shape {tuple(logits.shape)} have no pixels")
        if logits.shape[-2] > height or logits.shape[-1] > width:
            raise ValueError(
                f"logits of size {tuple(logits.shape[-2:])} are larger than the target of size {(height, width)}; "
                "they may be smaller (they are interpolated) or equal"
            )
        labels = target.long()
        valid = valid_pixels(labels, self.num_classes, self.ignore_index)
        unknown = self._unknown_labels(target, labels, valid)
        return labels, valid, None if unknown is None else torch.where(unknown.any(), math.nan, 1.0)

    def _unknown_labels(self, target: Tensor, labels: Tensor, valid: Tensor) -> Tensor | None:
        """Raise on labels that are neither a class nor ignore_index, or return where they are if that is deferred."""
        unknown = ~valid
        if self.ignore_index is not None:
            unknown = unknown & (labels != self.ignore_index)
        if target.is_floating_point():
            unknown = unknown | (target != labels)
        check = target.device.type == "cpu" if self.check_target is None else self.check_target
        if torch.compiler.is_compiling() or not check:
            return unknown
        if unknown.any():
            n, y, x = unknown.nonzero()[0].tolist()
            values = sorted(set(target[unknown].tolist()))
            shown = ", ".join(str(v) for v in values[:8]) + (", ..." if len(values) > 8 else "")
            raise ValueError(
                f"target holds {shown} in {int(unknown.sum())} pixels, first at sample {n}, row {y}, column {x}; "
                f"labels must be 0 to {self.num_classes - 1} or ignore_index={self.ignore_index}"
            )
        return None

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, ignore_index={self.ignore_index}"


def spread_non_finite(loss: Tensor) -> Tensor:
    """The loss itself; but if it is not finite, so is its whole gradient, and a gradient scaler skips the step.

    The derivative of the sigmoid cross entropy at an infinite logit, for one, would be finite.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)
