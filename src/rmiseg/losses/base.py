"""The base of all losses: their options, and sums and counts that add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypedDict

import torch
from torch import Tensor, nn

from rmiseg.functional import upsample_logits, widened, widest
from rmiseg.kernels.means import is_fused, loss_of_sums, mean_loss
from rmiseg.kernels.terms import Shares
from rmiseg.losses.checks import check_choice, check_tensors, whole_number
from rmiseg.losses.inputs import IGNORE_INDEX, Batch, InputReader, Target, logits_of_probabilities

MODES = ("multiclass", "binary", "multilabel")
REDUCTIONS = ("mean", "sum", "none")


class LossTerms(NamedTuple):
    """A loss before its divisions.

    Sums and counts of several micro-batches or processes add up: `loss.from_sums(sums, counts)` of the totals is the
    loss of the whole batch, exactly; of RMI with one covariance for each batch, it is the mean over them.

    Attributes:
        sums: (K,) differentiable sums, one a term of the loss.
        counts: (K,), over how much each was summed (valid pixels, samples, ...); depends on the target alone. int64;
            float64 where class weights or single entries of multilabel masks count.
        parts: Detached scalars for logging; none where nobody asked for them.
    """

    sums: Tensor
    counts: Tensor
    parts: dict[str, Tensor]


class LossOptions(TypedDict, total=False):
    """Options that all losses have; see `SegmentationLoss`."""

    mode: str
    class_weights: Sequence[float] | Tensor | None
    reduction: str
    from_probabilities: bool
    align_corners: bool
    check_target: bool | None


class SegmentationLoss(nn.Module):
    """Base of all losses: a scalar from logits at any resolution and a target at full resolution.

    A subclass defines `sample_terms`, `sample_counts`, and `shares` or else `from_sums`.

    Args:
        num_classes: Number of classes C; 1 in mode "binary".
        ignore_index: Label of pixels that do not count, or several; None if there is none. In multilabel masks it
            stands for a class that is not known there. By default 255, which must not be one of the classes; given
            explicitly, it may.
        mode: "multiclass": every pixel is of one class. "binary": one logit, which says how likely class 1 is rather
            than 0. "multilabel": a mask for every class, which may overlap.
        class_weights: (C,) weights of the classes, at least 0. In cross entropy as in torch: the mean is over the
            weights of the pixels' classes. In binary cross entropy and RMI each class's term is multiplied by its
            weight, and the divisor stays as it is; weights with mean 1 keep the scale.
        reduction: "mean": the mean over the batch as each loss defines it, over all valid pixels of all samples alike.
            "none": (N,), the loss of every sample as if it were alone. "sum": the sum of those.
        from_probabilities: Take probabilities instead of logits. Smaller ones are interpolated at full size, in memory.
        align_corners: Corner convention of the interpolation of logits that are smaller than the target.
        check_target: Raise a ValueError on a label that is neither a class nor ignored. By default that is so on the
            CPU; on other devices, where looking at the labels would wait for the device, it makes the loss NaN instead,
            unless True asks for the exception. Likewise, whatever is asked for, where no branch may depend on labels:
            inside of `torch.compile`, `torch.export`, `torch.jit.trace` and the transforms of `torch.func`.
    """

    modes: ClassVar[tuple[str, ...]] = MODES
    takes_any_target: ClassVar[bool] = True
    """True if volumes and soft targets can be used."""

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        mode: str = "multiclass",
        class_weights: Sequence[float] | Tensor | None = None,
        reduction: str = "mean",
        from_probabilities: bool = False,
        align_corners: bool = False,
        check_target: bool | None = None,
    ) -> None:
        super().__init__()
        num_classes = whole_number("num_classes", num_classes)
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("mode", mode, MODES)
        if mode not in self.modes:
            raise ValueError(
                f"{type(self).__name__} has no mode {mode!r}: it compares the classes of a pixel with each other; "
                "use RMILoss with pixel_loss='bce', or BCELoss"
            )
        if mode == "binary" and num_classes != 1:
            raise ValueError(f"mode='binary' has one logit a pixel, so num_classes must be 1; got {num_classes}")
        self.reduction = reduction
        self.from_probabilities = from_probabilities
        self.align_corners = align_corners
        self.inputs = InputReader(
            type(self).__name__, num_classes, ignore_index, mode, self.takes_any_target, check_target
        )
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", None, persistent=False)
        self.class_weights = class_weights  # type: ignore[assignment]  # see `__setattr__`

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.inputs.num_classes

    @property
    def ignore_index(self) -> int | Sequence[int] | None:
        """Labels of pixels that do not count. They are chosen once, as `num_classes` and `mode` are."""
        return self.inputs.ignore_index

    @property
    def mode(self) -> str:
        """ "multiclass", "binary" or "multilabel"."""
        return self.inputs.mode

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an option; new class weights, as numbers or as a tensor, are checked as the first were."""
        if name == "class_weights":
            self._given_weights = _checked_weights(value, self.num_classes)
            value = self._own_weights(value)
        super().__setattr__(name, value)

    def _own_weights(self, like: Any) -> Tensor | None:
        """The class weights as they were given, on the device of a tensor; else on the CPU, under any default."""
        if self._given_weights is None:
            return None
        device = like.device if isinstance(like, Tensor) else "cpu"
        return torch.tensor(self._given_weights, dtype=torch.float32, device=device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch does not annotate it
        # `to_empty` leaves any values, and `half` fewer digits.
        self._buffers["class_weights"] = self._own_weights(self.class_weights)
        return self

    def sample_terms(self, batch: Batch) -> LossTerms:
        """`terms` of every sample: sums (N, K) and counts (N, K). Labels that are no classes are left to the caller."""
        raise NotImplementedError

    def sample_counts(self, target: Target, class_weights: Tensor | None) -> Tensor:
        """`counts` of every sample: (N, K)."""
        raise NotImplementedError

    def from_sums(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The loss (...), from sums (..., K) and counts (..., K), of one batch or added up over several."""
        return loss_of_sums(sums, counts, self.shares())

    def shares(self) -> Shares:
        """The weights of the means that the loss is made of, for `from_sums`."""
        raise NotImplementedError

    def combine(self, sums: Tensor, counts: Tensor, **schedule: Any) -> Tensor:
        """`from_sums`, under its name in rmiseg 0.1."""
        return self.from_sums(sums, counts, **schedule)

    def terms(self, logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> LossTerms:
        """The sums and counts that `from_sums` makes the loss of. Shapes as in `forward`."""
        batch = self._read(logits, target, mask)
        sums, counts, parts = self.sample_terms(batch)
        parts = {name: batch.doubted(part) for name, part in parts.items()}
        return LossTerms(batch.doubted(sums).sum(dim=0), counts.sum(dim=0), parts)

    def counts(self, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The counts of `terms`, which depend on the target alone: (K,).

        Those of several micro-batches or processes, added up before the first backward pass, are what `from_sums`
        divides by.
        """
        check_tensors(target=target, mask=mask)
        return self.sample_counts(self.inputs.read_target(target, mask), self._weights_on(target.device)).sum(dim=0)

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
            ValueError: Shapes or devices that do not fit, or (see `check_target`) labels that are not classes.
            TypeError: Something that is no tensor, such as a model's dictionary.
        """
        if mask is None and not return_parts and self.reduction == "mean" and self._given_weights is None:
            loss = self._at_once(logits, target) if self.inputs.is_whole(logits, target) else None
            if loss is not None:
                return loss
        return self._result(self._read(logits, target, mask, return_parts))

    def _at_once(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """The mean of a batch for which `InputReader.is_whole`, without class weights, if it can be had in one call."""
        return None

    def _result(self, batch: Batch, **schedule: int) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        sums, counts, parts = self.sample_terms(batch)
        has_shares = type(self).from_sums is SegmentationLoss.from_sums
        if self.reduction == "mean" and has_shares and is_fused(sums):
            loss = mean_loss(sums, counts, batch.unknown, self.shares())
        elif self.reduction == "mean":
            loss = self.from_sums(batch.doubted(sums).sum(dim=0), counts.sum(dim=0), **schedule)
        else:
            loss = self.from_sums(batch.doubted(sums), counts, **schedule)
            loss = loss.sum() if self.reduction == "sum" else loss
        return (loss, {name: batch.doubted(part) for name, part in parts.items()}) if batch.with_parts else loss

    def _weights_on(self, device: torch.device) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(device)

    def _read(self, logits: Tensor, target: Tensor, mask: Tensor | None, with_parts: bool = True) -> Batch:
        check_tensors(logits=logits, target=target, mask=mask)
        return self.inputs.read(logits, target, mask, self._weights_on(logits.device), with_parts)

    def _logits(self, batch: Batch, *, softmax: bool = False) -> Tensor:
        """Logits whose sigmoid (or softmax) is the probabilities: the caller's, or made of the caller's."""
        if not self.from_probabilities:
            return batch.scores
        return logits_of_probabilities(batch, self.align_corners, softmax=softmax)

    def _full_size(self, batch: Batch, *, softmax: bool) -> Tensor:
        """`_logits` at the size of the target, in the dtype of the computation."""
        logits = widened(self._logits(batch, softmax=softmax))
        return upsample_logits(logits, batch.target.valid.shape[1:], self.align_corners)

    def _by_sample(self, values: Tensor, batch: Batch) -> Tensor:
        """Sums (N, K) of values (M, K): for multilabel masks, weighted over the classes."""
        if self.mode != "multilabel":
            return values
        values = values.view(-1, self.num_classes, values.shape[1])
        if batch.class_weights is not None:
            values = values * batch.class_weights.to(values.dtype).unsqueeze(1)
        return values.sum(dim=1)

    def _counts_by_sample(self, counts: Tensor) -> Tensor:
        """Counts (N, K) of `Target.counts` (M, K): for multilabel masks, means over the classes."""
        if self.mode != "multilabel":
            return counts
        return counts.view(-1, self.num_classes, counts.shape[1]).to(widest(counts.device)).mean(dim=1)

    def extra_repr(self) -> str:
        text = f"num_classes={self.num_classes}, ignore_index={self.ignore_index}"
        if self.mode != "multiclass":
            text += f", mode={self.mode!r}"
        if self._given_weights is not None:
            text += f", class_weights={[round(w, 6) for w in self._given_weights]}"
        if self.reduction != "mean":
            text += f", reduction={self.reduction!r}"
        return text + (", from_probabilities=True" if self.from_probabilities else "")


def _checked_weights(class_weights: Sequence[float] | Tensor | None, num_classes: int) -> tuple[float, ...] | None:
    """Class weights as numbers."""
    if class_weights is None:
        return None
    values = class_weights.tolist() if isinstance(class_weights, Tensor) else list(class_weights)
    numbers = tuple(float(value) for value in (values if isinstance(values, list) else [values]))
    if len(numbers) != num_classes or not all(0 <= number < math.inf for number in numbers) or not any(numbers):
        raise ValueError(
            f"class_weights must be {num_classes} finite numbers, one a class, none below 0 and not all 0; "
            f"got {class_weights}"
        )
    return numbers
