"""One optimizer step, after which nothing waits for the device until somebody asks for its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rmiseg.data import Batch
from rmiseg.data.transforms.pipeline import normalize
from rmiseg.evaluation.metrics import confusion_matrix
from rmiseg.models import SegmentationModel
from rmiseg.runtime.distributed import add_up, average_buffers, gather, gradients_stay, world_size
from rmiseg.training.criterion import Criterion
from rmiseg.training.depthwise import FastDepthwise


class StepOutcome(NamedTuple):
    """The outcome of a step, the same in all processes.

    Attributes:
        parts: The loss with its parts.
        confusion: (C, C) int64 on the CPU, at the model's stride.
        skipped: Whether the step was not taken, because loss or gradient is not finite.
        suspects: Names of the images of the batches whose loss is not finite, if it was skipped.
        stop: Whether a process was asked to end.
    """

    parts: dict[str, float]
    confusion: Tensor
    skipped: bool
    suspects: list[str]
    stop: bool = False


class StepInFlight(NamedTuple):
    """A step that the device may not have finished yet.

    Attributes:
        names: Names of the loss and its parts.
        num_classes: Number of classes C.
        numbers: float64 on the CPU, once they have arrived: the parts, the confusion, how many processes were asked to
            end, whether the step was skipped, and of each batch of this process whether its loss is finite.
        arrived: Event of a GPU after which they have; None if they are there.
        images: Names of the images of each batch.
    """

    names: list[str]
    num_classes: int
    numbers: Tensor
    arrived: torch.cuda.Event | None
    images: list[list[str]]

    def outcome(self) -> StepOutcome:
        """Wait for the device. Called in all processes, in the order of the steps."""
        if self.arrived is not None:
            self.arrived.synchronize()
        sizes = [len(self.names), self.num_classes**2, 2, len(self.images)]
        parts, confusion, (stop, skipped), finite = torch.split(self.numbers, sizes)
        suspects = [name for names, is_finite in zip(self.images, finite.tolist()) if not is_finite for name in names]
        return StepOutcome(
            dict(zip(self.names, parts.tolist())),
            confusion.long().view(self.num_classes, self.num_classes),
            bool(skipped),
            [name for names in gather(suspects) for name in names] if skipped else [],
            bool(stop),
        )


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
        """Take step number `step`, on one or several batches in each process, and wait for its outcome."""
        return self.launch(batches, step).outcome()

    def launch(self, batches: list[Batch], step: int, stop: Callable[[], bool] = lambda: False) -> StepInFlight:
        """Take step number `step`, on one or several batches in each process.

        Args:
            batches: The batches of this process.
            step: Number of the step.
            stop: Returns whether this process was asked to end, for all to hear of.
        """
        targets = [batch["mask"].to(self.device, non_blocking=True) for batch in batches]
        # The loss is divided by the counts of all batches in all processes together, however many of their pixels do
        # not count. With sums that are already divided, gradients add up: hence world_size, against the mean that
        # follows.
        counts = [torch.stack(each).sum(dim=0) for each in zip(*map(self.criterion.counts, targets))]
        add_up(*counts)
        buffers = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        before = _flat(buffers)
        self.optimizer.zero_grad(set_to_none=True)
        parts, losses, confusion = self._backward(batches, targets, counts, step)

        place = self.device if self.device.type == "cuda" else torch.device("cpu")  # others have no float64
        numbers = [*parts.values(), confusion, torch.full((), float(stop()), device=place)]
        reduced = torch.cat([each.to(place, torch.float64, non_blocking=True).flatten() for each in numbers])
        add_up(reduced)
        bad = ~reduced[0].isfinite().to(self.device)  # the loss comes first
        if not self.scaler.is_enabled():  # which looks at the gradients itself, and scales less the next time
            bad = bad | ~_gradient_norm(self.model).isfinite()
        self._optimize(bad)
        average_buffers(self.model)
        if buffers:  # batch norm's statistics may be spoiled, too
            chosen = torch.split(torch.where(bad, before, _flat(buffers)), [buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [each.view_as(buffer) for each, buffer in zip(chosen, buffers)])
        finite = torch.stack(losses).isfinite()
        together = torch.cat([reduced, bad.to(reduced).view(1), finite.to(reduced)])
        arrived = None
        if place.type == "cuda":
            together = together.to("cpu", non_blocking=True)  # into pinned memory
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        images = [batch["name"] for batch in batches]
        return StepInFlight(list(parts), self.model.num_classes, together, arrived, images)

    def _backward(
        self, batches: list[Batch], targets: list[Tensor], counts: list[Tensor], step: int
    ) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        """Add up the gradients of all batches; the loss with its parts, the loss of each batch, and the confusion."""
        model, device = self.model, self.device
        share = 1 / (len(batches) * world_size())
        totals: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=device)
        exact = torch.float32 if device.type == "mps" else torch.float64
        for number, (batch, target) in enumerate(zip(batches, targets), start=1):
            images = normalize(batch["image"].to(device, non_blocking=True), model.image_mean, model.image_std)
            with gradients_stay(self.network, number < len(batches)):
                fast = FastDepthwise() if device.type == "cpu" else nullcontext()
                with fast, torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                    output = self.network(images.contiguous(memory_format=torch.channels_last))
                logits, auxiliary_logits = output if isinstance(output, tuple) else (output, None)
                loss, parts = self.criterion(logits, auxiliary_logits, target, counts, step, share)
                self.scaler.scale(loss * world_size()).backward()  # type: ignore[no-untyped-call]
            losses.append(parts["loss"])
            confusion += _coarse_confusion(logits.detach(), target, len(confusion))
            for name, part in parts.items():
                own = part.to(exact) if name == "loss" else share * part.to(exact)  # or a batch's mean
                totals[name] = totals[name] + own if name in totals else own
        return totals, losses, confusion

    def _optimize(self, bad: Tensor) -> None:
        """Let the optimizer take its step, unless loss or gradient is not finite."""
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif all(group.get("fused") for group in self.optimizer.param_groups):
            skipping: Any = self.optimizer  # without asking the device, as a gradient scaler has it
            skipping.found_inf = bad.float()
            self.optimizer.step()
            del skipping.found_inf
        elif not bad:
            self.optimizer.step()


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else torch.empty(0)


def _gradient_norm(model: nn.Module) -> Tensor:
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _coarse_confusion(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Training accuracy at the model's stride, which costs next to nothing; validation scores are at full size."""
    # "nearest-exact" takes the label at the center of a logit's cell, plain "nearest" the one at its corner.
    labels = F.interpolate(target.unsqueeze(1), logits.shape[-2:], mode="nearest-exact").squeeze(1)
    return confusion_matrix(logits.argmax(dim=1), labels, num_classes)
