"""One optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rmiseg.data import Batch
from rmiseg.data.transforms import normalize
from rmiseg.evaluation.metrics import confusion_matrix
from rmiseg.models import SegmentationModel
from rmiseg.runtime.distributed import add_up, average_buffers, gather, gradients_stay, world_size
from rmiseg.training.criterion import Criterion


class StepOutcome(NamedTuple):
    """The outcome of a step, the same in all processes.

    Attributes:
        parts: The loss with its parts.
        confusion: (C, C) int64, at the model's stride.
        skipped: Whether the step was not taken, because loss or gradient is not finite.
        suspects: Names of the images of the batches whose loss is not finite, if it was skipped.
    """

    parts: dict[str, float]
    confusion: Tensor
    skipped: bool
    suspects: list[str]


@dataclass
class TrainStep:
    """A function that takes one optimizer step, and the things that it works with.

    Attributes:
        model: The bare model.
        network: Called in its place: the same, wrapped for several processes and compiled as configured.
        criterion: The loss.
        optimizer: The optimizer over the model's parameters.
        scaler: The gradient scaler; it does nothing but with float16.
        dtype: Type of the network's arithmetic under autocast; None without autocast.
        device: Where to compute.
        clip_norm: Longest gradient, by its norm over all parameters; None for any.
    """

    model: SegmentationModel
    network: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    dtype: torch.dtype | None
    device: torch.device
    clip_norm: float | None = None

    def __call__(self, batches: list[Batch], step: int) -> StepOutcome:
        """Take step number `step`, on one or several batches in each process."""
        targets = [batch["mask"].to(self.device, non_blocking=True) for batch in batches]
        # The loss is divided by the counts of all batches in all processes together, however many of their pixels do
        # not count. With sums that are already divided, gradients add up: hence world_size, against the mean that
        # follows.
        counts = [torch.stack(each).sum(dim=0) for each in zip(*map(self.criterion.counts, targets))]
        add_up(*counts)
        buffers = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        buffers_before = [buffer.clone() for buffer in buffers]
        self.optimizer.zero_grad(set_to_none=True)
        totals, confusion, suspects = self._backward(batches, targets, counts, step)
        finite = math.isfinite(totals["loss"]) and (self.scaler.is_enabled() or _gradient_is_finite(self.model))
        if finite or self.scaler.is_enabled():  # which looks at the gradients itself, and scales less the next time
            if self.clip_norm is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if finite:
            average_buffers(self.model)
        else:
            for buffer, before in zip(buffers, buffers_before):
                buffer.copy_(before)  # batch norm's statistics may be spoiled, too
            suspects = [name for names in gather(suspects) for name in names]
        return StepOutcome(totals, confusion, not finite, suspects)

    def _backward(
        self, batches: list[Batch], targets: list[Tensor], counts: list[Tensor], step: int
    ) -> tuple[dict[str, float], Tensor, list[str]]:
        """Add up the gradients of all batches; the loss with its parts, the confusion, and names of suspects."""
        model, device = self.model, self.device
        share = 1 / (len(batches) * world_size())
        totals: dict[str, float] = {}
        confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=device)
        suspects: list[str] = []
        for number, (batch, target) in enumerate(zip(batches, targets), start=1):
            images = normalize(batch["image"].to(device, non_blocking=True), model.image_mean, model.image_std)
            with gradients_stay(self.network, number < len(batches)):
                with torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                    output = self.network(images.contiguous(memory_format=torch.channels_last))
                logits, auxiliary_logits = output if isinstance(output, tuple) else (output, None)
                loss, parts = self.criterion(logits, auxiliary_logits, target, counts, step, share)
                self.scaler.scale(loss * world_size()).backward()  # type: ignore[no-untyped-call]
            if not math.isfinite(parts["loss"]):
                suspects += batch["name"]
            confusion += _coarse_confusion(logits.detach(), target, len(confusion))
            for name, part in parts.items():
                totals[name] = totals.get(name, 0.0) + (part if name == "loss" else share * part)  # or a batch's mean
        values = torch.tensor(list(totals.values()), dtype=torch.float64)
        if device.type == "cuda":
            values = values.to(device)
        add_up(values, confusion)
        return dict(zip(totals, values.tolist())), confusion, suspects


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _gradient_is_finite(model: nn.Module) -> bool:
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return bool(norm.isfinite())


def _coarse_confusion(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Training accuracy at the model's stride, which costs next to nothing; validation scores are at full size."""
    # "nearest-exact" takes the label at the center of a logit's cell, plain "nearest" the one at its corner.
    labels = F.interpolate(target.unsqueeze(1), logits.shape[-2:], mode="nearest-exact").squeeze(1)
    return confusion_matrix(logits.argmax(dim=1), labels, num_classes)
