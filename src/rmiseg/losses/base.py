"""What all losses share: the dialects of their input, its checks, and sums and counts that add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from rmiseg.functional import upsample_logits, valid_pixels, widened, widest

MODES = ("multiclass", "binary", "multilabel")
REDUCTIONS = ("mean", "sum", "none")

PROBABILITY_SLACK = 1e-3
"""How far from [0, 1] probabilities may be by the rounding of half precision."""


class LossTerms(NamedTuple):
    """A loss before its divisions.

    Sums and counts of several micro-batches or processes add up: `loss.combine(sums, counts)` of the totals is the loss
    of the whole batch, exactly.

    Attributes:
        sums: (K,) differentiable sums, one a term of the loss.
        counts: (K,), over how much each was summed (valid pixels, samples, ...); depends on the target alone. int64;
            float64 where class weights or single entries of multilabel masks count.
        parts: Detached scalars for logging.
    """

    sums: Tensor
    counts: Tensor
    parts: dict[str, Tensor]


class Target(NamedTuple):
    """A target in the one form that the losses compute with. Multilabel masks are M = N * C binary ones, else M = N.

    Attributes:
        values: Class ids (M, *size) int64, or maps (M, C, *size); see `rmiseg.functional`.
        valid: (M, *size) bool, what counts.
        unknown: (M, *size) bool, what neither can be used nor is ignored.
        samples: (N,) bool, the samples that count.
    """

    values: Tensor
    valid: Tensor
    unknown: Tensor
    samples: Tensor

    @property
    def is_maps(self) -> bool:
        """Whether the target is probabilities, not class ids."""
        return self.values.ndim > self.valid.ndim


class Batch(NamedTuple):
    """Logits and target, checked.

    Attributes:
        scores: Logits (M, K, *low), or probabilities if the loss takes those; K is 1 for multilabel masks.
        target: See `Target`.
        doubt: Where labels could not be checked, a scalar that the loss must be multiplied by, 1 or NaN: a label that
            is no class raises no exception then, which would wait for the device, but is no secret either.
        class_weights: (C,) or None, on the device of the scores.
    """

    scores: Tensor
    target: Target
    doubt: Tensor | None
    class_weights: Tensor | None


class Dialect(TypedDict, total=False):
    """Options that all losses have; see `SegmentationLoss`."""

    mode: str
    class_weights: Sequence[float] | Tensor | None
    reduction: str
    from_probabilities: bool
    align_corners: bool
    check_target: bool | None


class SegmentationLoss(nn.Module):
    """Base of all losses: a scalar from logits at any resolution and a target at full resolution.

    A subclass defines `sample_terms`, `sample_counts` and `combine`.

    Args:
        num_classes: Number of classes C; 1 in mode "binary".
        ignore_index: Label of pixels that do not count, or several; None if there is none. In multilabel masks it
            stands for a class that is not known there.
        mode: "multiclass": every pixel is of one class. "binary": one logit, which says how likely class 1 is rather
            than 0. "multilabel": a mask for every class, which may overlap.
        class_weights: (C,) weights of the classes, at least 0. In cross entropy as in torch: the mean is over the
            weights of the pixels' classes. In binary cross entropy and RMI each class's term is multiplied by its
            weight, and the divisor stays as it is; weights with mean 1 keep the scale.
        reduction: "mean": the mean over the batch as each loss defines it, over all valid pixels of all samples alike.
            "none": (N,), the loss of every sample as if it were alone. "sum": the sum of those.
        from_probabilities: Take probabilities instead of logits. Smaller ones are interpolated at full size, in memory.
        align_corners: Corner convention of the interpolation of logits that are smaller than the target.
        check_target: Whether a label that is neither a class nor ignored raises a ValueError. By default that is so on
            the CPU; on other devices, where looking at the labels would wait for the device, it makes the loss NaN
            instead, unless True asks for the exception.
    """

    modes: ClassVar[tuple[str, ...]] = MODES
    takes_any_target: ClassVar[bool] = True
    """Whether volumes, and targets that are probabilities, can be used."""

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | Sequence[int] | None = 255,
        mode: str = "multiclass",
        class_weights: Sequence[float] | Tensor | None = None,
        reduction: str = "mean",
        from_probabilities: bool = False,
        align_corners: bool = False,
        check_target: bool | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("mode", mode, MODES)
        if mode not in self.modes:
            raise ValueError(
                f"{type(self).__name__} has no mode {mode!r}: it compares the classes of a pixel with each other; "
                "use RMILoss with pixel_loss='bce', or BCELoss"
            )
        if mode == "binary" and num_classes != 1:
            raise ValueError(f"mode='binary' has one logit a pixel, so num_classes must be 1; got {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.mode = mode
        self.reduction = reduction
        self.from_probabilities = from_probabilities
        self.align_corners = align_corners
        self.check_target = check_target
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32).detach()
        if weights is not None and (weights.shape != (num_classes,) or not ((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(
                f"class_weights must be {num_classes} finite numbers, one a class, none below 0; got {class_weights}"
            )
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def sample_terms(self, batch: Batch) -> LossTerms:
        """`terms` of every sample: sums (N, K) and counts (N, K)."""
        raise NotImplementedError

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        """`counts` of every sample: (N, K)."""
        raise NotImplementedError

    def combine(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The loss (...), from sums (..., K) and counts (..., K), of one batch or added up over several."""
        raise NotImplementedError

    def terms(self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> LossTerms:
        """The sums and counts that `combine` makes the loss of. Shapes as in `forward`."""
        terms = self.sample_terms(self._read(logits, target, mask))
        return terms._replace(sums=terms.sums.sum(dim=0), counts=terms.counts.sum(dim=0))

    def counts(self, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The counts of `terms`, which depend on the target alone: (K,).

        Those of several micro-batches or processes, added up before the first backward pass, are what `combine` divides
        by.
        """
        return self.sample_counts(self._read_target(target, mask), self._weights_on(target.device)).sum(dim=0)

    def forward(
        self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None, return_parts: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss.

        Args:
            logits: (N, C, *low), float16, bfloat16, float32 or float64, for images (h, w) or volumes (d, h, w), each
                side at most that of the target. In mode "binary" also (N, h, w).
            target: With size (H, W), or (D, H, W) of volumes:

                - "multiclass": (N, *size) class ids of any integer dtype (of images also integers stored as floats);
                  or (N, C, *size) floating probabilities of the classes (mixup, label smoothing, pseudo-labels). A
                  pixel with `ignore_index` in any class does not count.
                - "binary": (N, *size) or (N, 1, *size), integers 0 and 1 or bool; or floating probabilities of 1.
                - "multilabel": (N, C, *size), likewise.
            mask: (N, *size) or (N, 1, *size) bool, the pixels that count, beside `ignore_index`; or (N,) bool, the
                samples that do: the others are as if they were not there.
            return_parts: Also return what the loss is made of, as detached scalars for logging.

        Returns:
            A scalar ((N,) with reduction "none") in float32 (float64 for float64 logits), or `(loss, parts)`. It is
            zero, with zero gradient, if no pixel is valid; non-finite logits give a non-finite loss and gradient.

        Raises:
            ValueError: Shapes that do not fit, or (see `check_target`) labels that are not classes.
        """
        terms = self.sample_terms(self._read(logits, target, mask))
        return self._result(terms, return_parts)

    def _result(
        self, terms: LossTerms, return_parts: bool, **schedule: int
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        if self.reduction == "mean":
            loss = self.combine(terms.sums.sum(dim=0), terms.counts.sum(dim=0), **schedule)
        else:
            loss = self.combine(terms.sums, terms.counts, **schedule)
            loss = loss.sum() if self.reduction == "sum" else loss
        return (loss, terms.parts) if return_parts else loss

    def _weights_on(self, device: torch.device) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(device)

    @property
    def _ignored(self) -> tuple[int, ...]:
        if self.ignore_index is None:
            return ()
        return (self.ignore_index,) if isinstance(self.ignore_index, int) else tuple(self.ignore_index)

    def _read(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> Batch:
        """Check the input and bring it into one form."""
        if not logits.is_floating_point():
            raise ValueError(f"logits must be floating point, got {logits.dtype}")
        if self.mode == "binary" and logits.ndim == 3:
            logits = logits.unsqueeze(1)
        shape = tuple(logits.shape)
        if logits.ndim not in ((4, 5) if self.takes_any_target else (4,)):
            raise ValueError(
                f"logits must have shape (N, C, H, W){' or (N, C, D, H, W)' if self.takes_any_target else ''}, "
                f"got {shape}"
            )
        if shape[1] != self.num_classes:
            raise ValueError(
                f"logits of shape {shape} have {shape[1]} classes, "
                f"but the loss was built with num_classes={self.num_classes}"
            )
        maps = self.mode == "multilabel" or (target.is_floating_point() and target.ndim == logits.ndim)
        expected = ("N", "C", "D", "H", "W") if logits.ndim == 5 else ("N", "C", "H", "W")
        wanted = expected if maps else expected[:1] + expected[2:]
        wrong_ndim = target.ndim != len(wanted) and not (self.mode == "binary" and target.ndim == logits.ndim)
        if wrong_ndim or target.shape[0] != shape[0]:
            raise ValueError(
                f"target must have shape ({', '.join(wanted)}) with N = {shape[0]} as in the logits, "
                f"got {tuple(target.shape)}" + self._advice(target, logits)
            )
        if self.mode == "multiclass" and not maps and target.is_floating_point() and target.ndim == 4:
            raise ValueError("class ids of volumes must be integers: use target.long()")
        size = tuple(target.shape[2 - logits.ndim :])
        if min(shape[2:]) == 0:
            raise ValueError(f"logits of shape {shape} have no pixels")
        if any(low > full for low, full in zip(shape[2:], size)):
            raise ValueError(
                f"logits of size {shape[2:]} are larger than the target of size {size}; "
                "they may be smaller (they are interpolated) or equal"
            )
        read = self._read_target(target, mask)
        doubt = self._doubt(read, target)
        if self.mode == "multilabel":
            logits = logits.flatten(0, 1).unsqueeze(1)
        return Batch(logits, read, doubt, self._weights_on(logits.device))

    def _advice(self, target: Tensor, logits: Tensor) -> str:
        if target.ndim != logits.ndim:
            return ""
        if target.shape[1] == 1 and self.mode == "multiclass":
            return " (use target.squeeze(1))"
        return " (one-hot targets must be floating point; class ids, target.argmax(1), are faster)"

    def _read_target(self, target: Tensor, mask: Tensor | None) -> Target:
        """The target in the form that losses compute with."""
        if target.requires_grad:
            raise ValueError("the loss has no gradient in the target: use target.detach()")
        count = target.shape[0]
        # Images have class ids of 3 dimensions; volumes of 4, which floating maps have too.
        is_maps = target.is_floating_point() and target.ndim >= 4 and self.mode == "multiclass"
        if (is_maps or self.mode == "multilabel") and (target.ndim < 4 or target.shape[1] != self.num_classes):
            raise ValueError(
                f"target of shape {tuple(target.shape)} must have num_classes={self.num_classes} maps in dimension 1"
            )
        if is_maps and not self.takes_any_target:
            raise ValueError(f"{type(self).__name__} takes class ids, not probabilities: use target.argmax(1)")
        if self.mode == "multilabel":
            target = target.flatten(0, 1)
        elif self.mode == "binary" and target.ndim >= 4 and target.shape[1] == 1:
            target = target.squeeze(1)

        ignored = torch.zeros_like(target, dtype=torch.bool)
        for value in self._ignored:
            ignored = ignored | (target == value)
        is_mask, is_soft = self.mode != "multiclass", is_maps
        if is_mask:  # of two classes, of which only 1 has a map: number 0; the other is none
            is_one = target == 1
            known = is_one | (target == 0)
            # Floats of 0 and 1 are integers, where one may look.
            is_soft = target.is_floating_point() and not (self._looks(target) and bool((known | ignored).all()))
        if is_soft:
            wrong = ~((target >= 0) & (target <= 1) | ignored)  # NaN too
            if is_maps:
                ignored, wrong = ignored.any(dim=1), wrong.any(dim=1)
            values, valid = target if is_maps else target.unsqueeze(1), ~(ignored | wrong)
            unknown = wrong & ~ignored
        elif is_mask:
            values, valid, unknown = (~is_one).long(), known & ~ignored, ~(known | ignored)
        else:
            values = target.long()
            valid = valid_pixels(values, self.num_classes, self._ignored)
            unknown = ~(valid | ignored)
            if target.is_floating_point():
                unknown = unknown | (target != values)
        samples = torch.ones(count, dtype=torch.bool, device=target.device)
        if mask is not None:
            samples, pixels = self._read_mask(mask, count, tuple(valid.shape[1:]))
            pixels = pixels.repeat_interleave(len(valid) // max(count, 1), dim=0)
            valid, unknown = valid & pixels, unknown & pixels
        return Target(values, valid, unknown, samples)

    def _read_mask(self, mask: Tensor, count: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The samples (N,) and the pixels (N, *size), or (N, 1, ...), that a mask keeps."""
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, True where pixels or samples count; got {mask.dtype}")
        shape = tuple(mask.shape)
        if shape == (count,):
            return mask, mask.view(-1, *(1,) * len(size))
        if shape not in ((count, *size), (count, 1, *size)):
            raise ValueError(f"mask must have shape {(count, *size)} or ({count},), got {shape}")
        return torch.ones(count, dtype=torch.bool, device=mask.device), mask.view(count, *size)

    def _doubt(self, read: Target, target: Tensor) -> Tensor | None:
        """Raise on labels that are neither a class nor ignored, or return a doubt if that is deferred."""
        if not self._looks(target):
            return torch.where(read.unknown.any(), math.nan, 1.0)
        if read.unknown.any():
            raise ValueError(self._complaint(read, target))
        return None

    def _looks(self, target: Tensor) -> bool:
        """Whether the values of a target may be looked at, for which a device must be waited for."""
        check = target.device.type == "cpu" if self.check_target is None else self.check_target
        return check and not torch.compiler.is_compiling()

    def _complaint(self, read: Target, target: Tensor) -> str:
        place = read.unknown.nonzero()[0].tolist()
        names = ["slice", "row", "column"][4 - len(place) :]
        if self.mode == "multilabel":
            names.insert(0, "class")
            place[:1] = divmod(place[0], self.num_classes)
            target = target.flatten(0, 1)
        elif target.ndim == read.unknown.ndim + 1:
            target = target.movedim(1, -1)
        values = sorted(set(target.view(*read.unknown.shape, -1)[read.unknown].flatten().tolist()))
        shown = ", ".join(str(v) for v in values[:8]) + (", ..." if len(values) > 8 else "")
        where = ", ".join(f"{name} {index}" for name, index in zip(["sample", *names], place))
        if read.is_maps:
            allowed = "probabilities must be from 0 to 1"
        else:
            allowed = f"labels must be 0 to {self.num_classes - 1 if self.mode == 'multiclass' else 1}"
        return (
            f"target holds {shown} in {int(read.unknown.sum())} pixels, first at {where}; {allowed} "
            f"or ignore_index={self.ignore_index}"
        )

    def _logits(self, batch: Batch, *, softmax: bool = False) -> Tensor:
        """Logits whose sigmoid (or softmax) is the probabilities: the caller's, or made of the caller's."""
        if not self.from_probabilities:
            return batch.scores
        probabilities = upsample_logits(widened(batch.scores), batch.target.valid.shape[1:], self.align_corners)
        least = torch.finfo(probabilities.dtype).eps
        wrong = (probabilities < -PROBABILITY_SLACK) | (probabilities > 1 + PROBABILITY_SLACK)
        if batch.doubt is None and wrong.any():
            low, high = batch.scores.min().item(), batch.scores.max().item()
            raise ValueError(f"from_probabilities=True takes values from 0 to 1, got {low:.4g} to {high:.4g}")
        kept = probabilities.clamp(least, 1 - least).masked_fill(wrong, math.nan)
        return kept.log() if softmax else kept.logit()

    def _full_size(self, batch: Batch, *, softmax: bool) -> Tensor:
        """`_logits` at the size of the target, in the dtype of the computation, times the doubt."""
        logits = widened(self._logits(batch, softmax=softmax))
        full = upsample_logits(logits, batch.target.valid.shape[1:], self.align_corners)
        return full if batch.doubt is None else full * batch.doubt

    def _by_sample(self, values: Tensor, batch: Batch) -> Tensor:
        """Sums (N,) of values (M,): of multilabel masks, weighted over the classes."""
        if self.mode != "multilabel":
            return values
        values = values.view(-1, self.num_classes)
        return (values if batch.class_weights is None else values * batch.class_weights.to(values.dtype)).sum(dim=1)

    def _pixel_counts(self, target: Target) -> Tensor:
        """Valid pixels of every sample: (N,); of multilabel masks the mean over the classes."""
        counts = target.valid.flatten(1).sum(dim=1)
        return (
            counts
            if self.mode != "multilabel"
            else counts.view(-1, self.num_classes).to(widest(counts.device)).mean(dim=1)
        )

    def extra_repr(self) -> str:
        text = f"num_classes={self.num_classes}, ignore_index={self.ignore_index}"
        if self.mode != "multiclass":
            text += f", mode={self.mode!r}"
        if self.class_weights is not None:
            text += f", class_weights={[round(w, 6) for w in self.class_weights.tolist()]}"
        if self.reduction != "mean":
            text += f", reduction={self.reduction!r}"
        return text + (", from_probabilities=True" if self.from_probabilities else "")


def check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    """Raises a ValueError if `choice` is none of the choices."""
    if choice not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {choice!r}")


def spread_non_finite(loss: Tensor) -> Tensor:
    """The loss itself; but if it is not finite, so is its whole gradient, and a gradient scaler skips the step.

    The derivative of the sigmoid cross entropy at an infinite logit, for one, would be finite.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)
