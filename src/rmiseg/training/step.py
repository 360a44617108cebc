"""One training step: what it works with, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rmiseg.config import LossConfig
from rmiseg.data import Batch
from rmiseg.data.transforms import normalize
from rmiseg.evaluation.metrics import confusion_matrix
from rmiseg.losses import AffinityLoss, build_loss
from rmiseg.runtime.distributed import add_up, average_buffers, gather, gradients_stay, world_size


class Criterion:
    """The loss of a training run, and cross entropy beside it for a model with an auxiliary head."""

    def __init__(self, config: LossConfig, num_classes: int, total_steps: int) -> None:
        options: dict[str, dict[str, Any]] = {
            "rmi": asdict(config.rmi),
            "pyramid": asdict(config.pyramid),
            "affinity": {**asdict(config.affinity), "max_steps": total_steps},
        }
        common = {
            "num_classes": num_classes,
            "align_corners": config.align_corners,
            "class_weights": config.class_weights,
        }
        self.loss = build_loss(config.name, **common, **options.get(config.name, {}))
        self.auxiliary_loss = build_loss("ce", **common)
        self.auxiliary_weight = config.aux_weight

    def compile(self) -> None:
        """Let torch.compile make the loss faster."""
        self.loss.terms = torch.compile(self.loss.terms)  # type: ignore[method-assign]

    def counts(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss and the auxiliary loss are divided by; those of several batches add up."""
        return self.loss.counts(target), self.auxiliary_loss.counts(target)

    def __call__(
        self, logits: Tensor, auxiliary_logits: Tensor | None, target: Tensor, counts: Sequence[Tensor], step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """The share of one batch in the loss to differentiate, and for logging its value and what it is made of."""
        schedule = {"step": step} if isinstance(self.loss, AffinityLoss) else {}
        terms = self.loss.terms(logits, target)
        loss, parts = self.loss.from_sums(terms.sums, counts[0], **schedule), dict(terms.parts)
        if auxiliary_logits is not None:
            auxiliary = self.auxiliary_loss.terms(auxiliary_logits, target)
            loss = loss + self.auxiliary_weight * self.auxiliary_loss.from_sums(auxiliary.sums, counts[1])
            parts["auxiliary"] = auxiliary.parts["pixel"]
        return loss, {name: part.item() for name, part in {"loss": loss, **parts}.items()}


@dataclass
class Learner:
    """What a training step works with.

    Attributes:
        model: The bare model.
        network: What to call in its place: the same, wrapped for several processes and compiled as configured.
        criterion: The loss.
        optimizer: The optimizer over the model's parameters.
        scaler: The gradient scaler; it does nothing but with float16.
        dtype: Type of the network's arithmetic under autocast; None without autocast.
        device: Where to compute.
    """

    model: nn.Module
    network: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    dtype: torch.dtype | None
    device: torch.device


class StepOutcome(NamedTuple):
    """What came of a step, the same in all processes.

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


def train_step(learner: Learner, batches: list[Batch], step: int) -> StepOutcome:
    """One optimizer step, on one or several batches in each process."""
    model, device = learner.model, learner.device
    targets = [batch["mask"].to(device, non_blocking=True) for batch in batches]
    # What the loss is divided by is that of all batches in all processes together, however many of their pixels do not
    # count. With sums that are already divided, gradients add up: hence world_size, against the mean that follows.
    counts = [sum(each) for each in zip(*map(learner.criterion.counts, targets))]
    add_up(*counts)
    totals: dict[str, float] = {}
    confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=device)
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    buffers_before = [buffer.clone() for buffer in buffers]
    suspects: list[str] = []
    learner.optimizer.zero_grad(set_to_none=True)
    for number, (batch, target) in enumerate(zip(batches, targets), start=1):
        images = normalize(batch["image"].to(device, non_blocking=True), model.image_mean, model.image_std)
        with gradients_stay(learner.network, number < len(batches)):
            with torch.autocast(device.type, learner.dtype, enabled=learner.dtype is not None):
                output = learner.network(images.contiguous(memory_format=torch.channels_last))
            logits, auxiliary_logits = output if isinstance(output, tuple) else (output, None)
            loss, parts = learner.criterion(logits, auxiliary_logits, target, counts, step)
            learner.scaler.scale(loss * world_size()).backward()
        if not math.isfinite(parts["loss"]):
            suspects += batch["name"]
        confusion += _coarse_confusion(logits.detach(), target, len(confusion))
        for name, part in parts.items():
            share = 1 if name == "loss" else 1 / (len(batches) * world_size())  # the other parts are means of a batch
            totals[name] = totals.get(name, 0.0) + share * part
    values = torch.tensor(list(totals.values()), dtype=torch.float64)
    if device.type == "cuda":
        values = values.to(device)
    add_up(values, confusion)
    totals = dict(zip(totals, values.tolist()))

    finite = math.isfinite(totals["loss"]) and (learner.scaler.is_enabled() or _gradient_is_finite(model))
    if finite or learner.scaler.is_enabled():  # which looks at the gradients itself, and scales less the next time
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
    if finite:
        average_buffers(model)
    else:
        for buffer, before in zip(buffers, buffers_before):
            buffer.copy_(before)  # batch norm's statistics may be spoiled, too
        suspects = [name for names in gather(suspects) for name in names]
    return StepOutcome(totals, confusion, not finite, suspects)


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
