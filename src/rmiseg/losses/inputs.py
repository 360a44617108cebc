"""Reading and checking of logits, targets and masks: every form that a loss takes, brought into one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rmiseg.functional import upsample_logits, valid_pixels, widened
from rmiseg.kernels.labels import Labels, read_labels
from rmiseg.kernels.modes import hides_values
from rmiseg.losses.checks import whole_numbers
from rmiseg.runtime.words import some


class _DefaultLabel(int):
    """A label that nobody has chosen, unlike the same number given explicitly."""


IGNORE_INDEX = _DefaultLabel(255)
"""The label of ignored pixels where none is given."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes of logits."""

PROBABILITY_SLACK = 1e-3
"""The distance from [0, 1] that rounding in half precision may bring probabilities to."""


class Target(NamedTuple):
    """A target in the one form that the losses compute with. Multilabel masks are M = N * C binary ones, else M = N.

    Attributes:
        values: Class ids (M, *size) int64, or soft targets (M, C, *size); see `rmiseg.functional`.
        valid: (M, *size) bool, what counts.
        counts: (M, 2) int64, the pixels that do, and 1 where there is one, else 0.
        unknown: (M,) bool, those with something that neither can be used nor is ignored; or int64, in how many pixels.
        chosen: (N,) bool, the samples that count; None for all M.
    """

    values: Tensor
    valid: Tensor
    counts: Tensor
    unknown: Tensor
    chosen: Tensor | None = None

    @property
    def samples(self) -> Tensor:
        """(N,) bool, the samples that count; (M,) where all do."""
        return self.unknown.new_ones(len(self.valid), dtype=torch.bool) if self.chosen is None else self.chosen

    @property
    def is_soft(self) -> bool:
        """Probabilities, not class ids."""
        return self.values.ndim > self.valid.ndim


class Batch(NamedTuple):
    """Logits and target, checked.

    Attributes:
        scores: Logits (M, K, *low), or probabilities if the loss takes those; K is 1 for multilabel masks.
        target: See `Target`.
        is_checked: All labels are known to be classes. Where they could not be looked at, which would wait for the
            device, the loss must be `doubted`: a label that is no class raises no exception then, but is no secret
            either.
        class_weights: (C,) or None, on the device of the scores.
        with_parts: The parts of the loss are asked for, see `LossTerms`.
    """

    scores: Tensor
    target: Target
    is_checked: bool
    class_weights: Tensor | None
    with_parts: bool = True

    @property
    def unknown(self) -> Tensor | None:
        """(M,), not 0 where labels are no classes; None if they have been checked."""
        return None if self.is_checked else self.target.unknown

    def doubted(self, value: Tensor) -> Tensor:
        """The value, or NaN if labels that could not be looked at are no classes."""
        if self.is_checked:
            return value
        one = torch.ones((), dtype=torch.float32, device=value.device)
        return value * one.masked_fill(self.target.unknown.any(), math.nan)


class InputReader:
    """Checks the input of a loss and brings it into one form.

    Args:
        owner: Name of the loss, for messages.
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        mode: "multiclass", "binary" or "multilabel", see `SegmentationLoss`.
        takes_any_target: Take volumes and soft targets too.
        check_target: Look at the labels and raise; None for on the CPU alone.

    Raises:
        ValueError: The default of `ignore_index` is one of the classes.
    """

    def __init__(
        self,
        owner: str,
        num_classes: int,
        ignore_index: int | Sequence[int] | None,
        mode: str,
        takes_any_target: bool,
        check_target: bool | None,
    ) -> None:
        if isinstance(ignore_index, _DefaultLabel) and num_classes > ignore_index and mode == "multiclass":
            raise ValueError(
                f"with num_classes={num_classes}, label {ignore_index} is a class, but by default it is the label of "
                f"ignored pixels: write ignore_index=None if every label counts, or the label that is to be ignored, "
                f"ignore_index={num_classes} for one; ignore_index={ignore_index} leaves class {ignore_index} out"
            )
        self.owner = owner
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.ignored = whole_numbers("ignore_index", ignore_index)
        self.mode = mode
        self.takes_any_target = takes_any_target
        self.check_target = check_target
        asked = isinstance(ignore_index, _DefaultLabel) and check_target is not False
        self.doubts_default = asked and (mode != "multiclass" or num_classes > 1)

    def read(
        self,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None,
        class_weights: Tensor | None,
        with_parts: bool = True,
    ) -> Batch:
        """Check the input and bring it into one form.

        Args:
            logits, target, mask: See `SegmentationLoss.forward`.
            class_weights: (C,) or None, on the device of the logits.
            with_parts: See `Batch`.

        Raises:
            ValueError: Shapes or dtypes that do not fit, or labels that are no classes where these are looked at.
        """
        if logits.dtype not in DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise ValueError(f"logits must be floating point ({known}), got {logits.dtype}")
        if self.mode == "binary" and logits.ndim == 3:
            logits = logits.unsqueeze(1)
        self._check_logits(logits)
        self._check_shapes(logits, target)
        read = self.read_target(target, mask)
        is_checked = self._check_labels(read, target, mask)
        if self.mode == "multilabel":
            logits = logits.flatten(0, 1).unsqueeze(1)
        return Batch(logits, read, is_checked, class_weights, with_parts)

    def is_whole(self, logits: Tensor, target: Tensor) -> bool:
        """True if these are images and class ids of fitting shapes, of which nothing but labels is left to check.

        Those are looked at on the CPU, and nowhere else.
        """
        if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
            return False
        self._doubt_default(target)
        if logits.ndim != 4 or target.ndim != 3 or self.mode != "multiclass" or target.requires_grad:
            return False
        (n, classes, h, w), (samples, height, width) = logits.shape, target.shape
        return (
            (n == samples and classes == self.num_classes and n > 0 and 0 < h <= height and 0 < w <= width)
            and (logits.dtype in DTYPES and not target.is_floating_point() and logits.device == target.device)
            and (self.check_target is not True or logits.device.type == "cpu")
        )

    def _check_logits(self, logits: Tensor) -> None:
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

    def _check_shapes(self, logits: Tensor, target: Tensor) -> None:
        shape = tuple(logits.shape)
        is_soft = self.mode == "multilabel" or (target.is_floating_point() and target.ndim == logits.ndim)
        expected = ("N", "C", "D", "H", "W") if logits.ndim == 5 else ("N", "C", "H", "W")
        wanted = expected if is_soft else expected[:1] + expected[2:]
        wrong_ndim = target.ndim != len(wanted) and not (self.mode == "binary" and target.ndim == logits.ndim)
        if wrong_ndim or target.shape[0] != shape[0]:
            raise ValueError(
                f"target must have shape ({', '.join(wanted)}) with N = {shape[0]} as in the logits, "
                f"got {tuple(target.shape)}" + self._advice(target, logits)
            )
        if self.mode == "multiclass" and not is_soft and target.is_floating_point() and target.ndim == 4:
            raise ValueError("class ids of volumes must be integers: use target.long()")
        size = tuple(target.shape[2 - logits.ndim :])
        if min(shape[2:]) == 0:
            raise ValueError(f"logits of shape {shape} have no pixels")
        if any(low > full for low, full in zip(shape[2:], size)):
            raise ValueError(
                f"logits of size {shape[2:]} are larger than the target of size {size}; "
                "they may be smaller (they are interpolated) or equal"
            )

    def _advice(self, target: Tensor, logits: Tensor) -> str:
        if target.ndim != logits.ndim:
            return ""
        if target.shape[1] == 1 and self.mode == "multiclass":
            return " (use target.squeeze(1))"
        return " (one-hot targets must be floating point; class ids, target.argmax(1), are faster)"

    def read_target(self, target: Tensor, mask: Tensor | None) -> Target:
        """The target in the form that losses compute with. Arguments as in `SegmentationLoss.forward`."""
        if target.requires_grad:
            raise ValueError("the loss has no gradient in the target: use target.detach()")
        self._doubt_default(target)
        # Images have class ids of 3 dimensions; volumes of 4, which soft targets of images have too.
        is_soft = target.is_floating_point() and target.ndim >= 4 and self.mode == "multiclass"
        if (is_soft or self.mode == "multilabel") and (target.ndim < 4 or target.shape[1] != self.num_classes):
            raise ValueError(
                f"target of shape {tuple(target.shape)} must have num_classes={self.num_classes} maps in dimension 1"
                + (" (class ids have none: use target.squeeze(1).long())" if is_soft and target.shape[1] == 1 else "")
            )
        if is_soft and not self.takes_any_target:
            raise ValueError(f"{self.owner} takes class ids, not probabilities: use target.argmax(1)")
        if mask is None and (labels := self._read_at_once(target, is_soft)) is not None:
            return Target(*labels)
        values, valid, unknown, samples = self._read_pixels(target, mask, is_soft)
        counts = valid.flatten(1).sum(dim=1, keepdim=True)
        counts = torch.cat([counts, counts.clamp(max=1)], dim=1)
        return Target(values, valid, counts, unknown.flatten(1).any(dim=1), samples)

    def _doubt_default(self, target: Tensor) -> None:
        """Warn of masks of 0 and 255, if nobody said that 255 is to be ignored; looks at the first target alone."""
        if not self.doubts_default or hides_values() or target.is_meta:
            return
        if target.is_cuda and torch.cuda.is_current_stream_capturing():  # which could not wait for an answer
            return
        self.doubts_default = False
        ignored, zero = target == IGNORE_INDEX, target == 0
        if ignored.any() and zero.any() and (ignored | zero).all():
            warnings.warn(
                f"{self.owner}: the first target holds 0 and {IGNORE_INDEX} alone, and {IGNORE_INDEX} is ignored. If "
                f"that is the foreground, give (target == {IGNORE_INDEX}).long(); if not, ignore_index={IGNORE_INDEX} "
                "says so",
                stacklevel=2,
            )

    def _read_at_once(self, target: Tensor, is_soft: bool) -> Labels | None:
        if self.mode == "multiclass":
            if not is_soft and target.is_floating_point():
                return None
            return read_labels(target, "soft" if is_soft else "classes", self.num_classes, self.ignored)
        if not self.takes_any_target:
            return None
        masks = self._masks(target)
        if target.is_floating_point():
            return read_labels(masks.unsqueeze(1), "soft", 1, self.ignored)
        return read_labels(masks, "masks", 2, self.ignored)

    def _masks(self, target: Tensor) -> Tensor:
        """Masks (M, *size) in modes "binary" and "multilabel"."""
        if self.mode == "multilabel":
            return target.flatten(0, 1)
        return target.squeeze(1) if target.ndim >= 4 and target.shape[1] == 1 else target

    def _read_pixels(
        self, target: Tensor, mask: Tensor | None, is_soft: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Values, valid and chosen as in `Target`, and third the pixels (M, *size) that are unknown."""
        whole = target
        if self.mode != "multiclass":
            target = self._masks(target)
        ignored = torch.zeros_like(target, dtype=torch.bool)
        for value in self.ignored:
            ignored = ignored | (target == value)
        if self.mode != "multiclass":
            values, valid, unknown = self._read_binary(target, ignored)
        elif is_soft:
            values, valid, unknown = self._read_soft(target, ignored)
        else:
            values = target.long()
            valid = valid_pixels(values, self.num_classes, self.ignored)
            unknown = ~(valid | ignored)
            if target.is_floating_point():
                unknown = unknown | (target != values)
        if mask is None:
            return values, valid, unknown, None
        samples, pixels = self._read_mask(mask, whole.shape[0], tuple(valid.shape[1:]))
        if self.mode == "multilabel":
            pixels = pixels.unsqueeze(1).expand(-1, whole.shape[1], *pixels.shape[1:]).flatten(0, 1)
        return values, valid & pixels, unknown & pixels, samples

    def _read_binary(self, target: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, valid and unknown of masks (M, *size): of two classes, of which only 1 has a logit, number 0."""
        is_one = target == 1
        known = is_one | (target == 0)
        # Floats of 0 and 1 are integers, where one may look.
        if target.is_floating_point() and not (self._looks(target) and bool((known | ignored).all())):
            return self._read_soft(target.unsqueeze(1), ignored.unsqueeze(1))
        return (~is_one).long(), known & ~ignored, ~(known | ignored)

    def _read_soft(self, target: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values, valid and unknown of soft targets (M, C, *size)."""
        wrong = ~((target >= 0) & (target <= 1) | ignored)  # NaN too
        ignored, wrong = ignored.any(dim=1), wrong.any(dim=1)
        return target, ~(ignored | wrong), wrong & ~ignored

    def _read_mask(self, mask: Tensor, count: int, size: tuple[int, ...]) -> tuple[Tensor | None, Tensor]:
        """The samples (N,), None for all, and the pixels (N, *size), or (N, 1, ...), that a mask keeps."""
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, True where pixels or samples count; got {mask.dtype}")
        shape = tuple(mask.shape)
        if shape == (count,):
            return mask, mask.view(-1, *(1,) * len(size))
        if shape not in ((count, *size), (count, 1, *size)):
            raise ValueError(f"mask must have shape {(count, *size)} or ({count},), got {shape}")
        return None, mask.squeeze(1) if mask.ndim > 1 + len(size) else mask

    def _check_labels(self, read: Target, target: Tensor, mask: Tensor | None) -> bool:
        """Raise on labels that are neither a class nor ignored; False if they may not be looked at."""
        if not self._looks(target):
            return False
        if any(read.unknown.tolist()):
            unknown = self._read_pixels(target, mask, read.is_soft)[2]
            raise ValueError(self._complaint(read, target, unknown))
        return True

    def _looks(self, target: Tensor) -> bool:
        """True if the values of a target may be looked at, for which a device must be waited for."""
        check = target.device.type == "cpu" if self.check_target is None else self.check_target
        return check and not hides_values()

    def _complaint(self, read: Target, target: Tensor, unknown: Tensor) -> str:
        place = unknown.nonzero()[0].tolist()
        names = ["slice", "row", "column"][4 - len(place) :]
        if self.mode == "multilabel":
            names.insert(0, "class")
            place[:1] = divmod(place[0], self.num_classes)
            target = target.flatten(0, 1)
        elif target.ndim == unknown.ndim + 1:
            target = target.movedim(1, -1)
        values = sorted(set(target.view(*unknown.shape, -1)[unknown].flatten().tolist()))
        shown = some(values, 8)
        where = ", ".join(f"{name} {index}" for name, index in zip(["sample", *names], place))
        if read.is_soft and target.is_floating_point():
            allowed = "probabilities must be from 0 to 1"
        else:
            allowed = f"labels must be 0 to {self.num_classes - 1 if self.mode == 'multiclass' else 1}"
        return (
            f"target holds {shown} in {int(unknown.sum())} pixels, first at {where}; {allowed} "
            f"or ignore_index={self.ignore_index}"
        )


def logits_of_probabilities(batch: Batch, align_corners: bool, *, softmax: bool) -> Tensor:
    """Logits (M, K, *size) whose sigmoid, or softmax, is the probabilities in the scores of a batch.

    Raises:
        ValueError: Values outside of [0, 1]; where labels are not looked at, NaN takes their place.
    """
    probabilities = upsample_logits(widened(batch.scores), batch.target.valid.shape[1:], align_corners)
    least = torch.finfo(probabilities.dtype).eps
    wrong = (probabilities < -PROBABILITY_SLACK) | (probabilities > 1 + PROBABILITY_SLACK)
    if batch.is_checked and wrong.any():
        low, high = batch.scores.min().item(), batch.scores.max().item()
        raise ValueError(f"from_probabilities=True takes values from 0 to 1, got {low:.4g} to {high:.4g}")
    kept = probabilities.clamp(least, 1 - least).masked_fill(wrong, math.nan)
    return kept.log() if softmax else kept.logit()
