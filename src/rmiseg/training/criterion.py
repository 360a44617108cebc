"""The loss of a training run: the one that was chosen, those that are added, and that of an auxiliary head."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmiseg.config import LossConfig
from rmiseg.config.parser import checked_options
from rmiseg.config.registry import find
from rmiseg.functional import upsample_logits, widened
from rmiseg.losses import SegmentationLoss, build_loss
from rmiseg.losses.inputs import InputReader

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""A loss of somebody's own: logits (N, C, H, W) at the size of the target, and class ids (N, H, W) int64 in which 255
does not count, to a scalar."""


class Criterion:
    """The loss of a training run.

    Args:
        config: Which loss, what is added to it, and their options.
        num_classes: Number of classes C.
        total_steps: Length of the training, in optimizer steps.
        loss: Takes the place of the loss that `config` names.

    Raises:
        ValueError: There is no such loss, or a value that it refuses.
    """

    def __init__(
        self, config: LossConfig, num_classes: int, total_steps: int, loss: LossFunction | None = None
    ) -> None:
        align_corners = bool(config.align_corners)
        chosen = loss if loss is not None else named_loss(config, num_classes, total_steps)
        self.terms = [_term("", 1.0, chosen, align_corners)]
        for name, chosen_plus in config.plus.items():
            weight, options = _weight_and_options(name, chosen_plus)
            further = _make(name, options, config, num_classes, total_steps)
            self.terms.append(_term(f"plus {name}", weight, further, align_corners))
        beside = config.aux_loss or "ce"
        if beside == config.name:  # which has its options there too
            auxiliary = named_loss(config, num_classes, total_steps)
        else:
            auxiliary = _make(beside, {}, config, num_classes, total_steps)
        self.auxiliary = _term("auxiliary", config.aux_weight, auxiliary, align_corners)

    def to(self, device: torch.device) -> None:
        """Move the losses, which may have buffers."""
        for term in (*self.terms, self.auxiliary):
            if isinstance(term.loss, nn.Module):
                term.loss.to(device)

    def compile(self) -> None:
        """Let torch.compile make the loss faster."""
        for term in self.terms:
            term.compile()

    def counts(self, target: Tensor) -> list[Tensor]:
        """Counts that the losses are divided by, each (K,); those of several batches add up.

        Args:
            target: (N, H, W) class ids.
        """
        return [term.counts(target) for term in (*self.terms, self.auxiliary)]

    def __call__(
        self,
        logits: Tensor,
        auxiliary_logits: Tensor | None,
        target: Tensor,
        counts: Sequence[Tensor],
        step: int,
        share: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the share of one batch in the loss to differentiate.

        Args:
            logits: (N, C, h, w), at the size of the target or below.
            auxiliary_logits: (N, C, h, w) of an auxiliary head, if there is one.
            target: (N, H, W) class ids.
            counts: Those of all batches of the step together, see `counts`.
            step: Number of the optimizer step.
            share: Share of this batch in losses that are means of batches, not of counts.

        Returns:
            The loss, and for logging its value and its parts, detached.
        """
        pairs = [(term, logits) for term in self.terms]
        if auxiliary_logits is not None:
            pairs.append((self.auxiliary, auxiliary_logits))
        loss = torch.zeros((), dtype=torch.float32, device=logits.device)
        parts: dict[str, Tensor] = {}
        for (term, own_logits), own_counts in zip(pairs, counts):
            value, own_parts = term(own_logits, target, own_counts, step, share)
            loss = loss + term.weight * value
            parts |= own_parts
        return loss, {"loss": loss.detach(), **parts}

    def of_image(self, logits: Tensor, target: Tensor, step: int) -> float:
        """Return the loss of a single image, without an auxiliary head; NaN if it is not defined.

        Args:
            logits: (1, C, h, w).
            target: (1, H, W) class ids.
            step: Number of the optimizer step.
        """
        target = target.to(logits.device)
        try:
            _, parts = self(logits, None, target, self.counts(target), step)
        except ValueError:  # such as RMI on an image that is smaller than a region
            return math.nan
        return parts["loss"].item()


def _weight_and_options(name: str, given: float | dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """The weight of a loss in `loss.plus`, and its own options."""
    if not isinstance(given, dict):
        return given, {}
    weight = given.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(
            f"loss.plus: {name} needs a weight beside its options, such as {{weight: 0.5}}, not {weight!r}"
        )
    return weight, {option: value for option, value in given.items() if option != "weight"}


def named_loss(config: LossConfig, num_classes: int, total_steps: int) -> LossFunction:
    """Build the loss that `config` names, with its options."""
    section = getattr(config, config.name, None)
    if section is not None and config.options:
        raise ValueError(f"loss.options is for losses of plugins; the options of {config.name} are loss.{config.name}")
    options = asdict(section) if section is not None else config.options
    return _make(config.name, options, config, num_classes, total_steps)


def _make(name: str, options: dict[str, Any], config: LossConfig, num_classes: int, total_steps: int) -> LossFunction:
    """Build a loss by its name. What it takes of the options that all losses have in common, it gets."""
    component = find("loss", name)
    if inspect.isclass(component.make) and issubclass(component.make, SegmentationLoss):
        length = {"max_steps": total_steps} if "max_steps" in inspect.signature(component.make).parameters else {}
        common = {"align_corners": bool(config.align_corners), "class_weights": config.class_weights}
        own = checked_options(component, options, "loss.options")
        return build_loss(name, num_classes=num_classes, **common, **length, **own)
    if config.class_weights is not None:
        raise ValueError(f"loss.class_weights: the loss {name} takes none; leave them out, or choose rmi, ce or bce")
    return build_loss(name, num_classes=num_classes, **checked_options(component, options, "loss.options"))


def _term(name: str, weight: float, loss: LossFunction, align_corners: bool) -> _Counted | _Averaged:
    if isinstance(inputs := getattr(loss, "inputs", None), InputReader):
        inputs.doubts_default = False  # the masks of a training are checked before it begins
    if isinstance(loss, SegmentationLoss):
        return _Counted(name, weight, loss)
    return _Averaged(name, weight, loss, align_corners)


@dataclass
class _Counted:
    """A loss whose sums and counts of several batches add up.

    Attributes:
        name: Name of its value in curves; empty for the main loss, of which the parts are shown.
        weight: Its weight.
        loss: The loss.
    """

    name: str
    weight: float
    loss: SegmentationLoss

    def __post_init__(self) -> None:
        self.scheduled = "step" in inspect.signature(self.loss.from_sums).parameters

    def compile(self) -> None:
        self.loss.terms = torch.compile(self.loss.terms)  # type: ignore[method-assign]

    def counts(self, target: Tensor) -> Tensor:
        return self.loss.counts(target)

    def __call__(
        self, logits: Tensor, target: Tensor, counts: Tensor, step: int, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.loss.terms(logits, target)
        schedule = {"step": step} if self.scheduled else {}
        value = self.loss.from_sums(terms.sums, counts, **schedule)
        return value, {self.name: terms.parts["pixel"]} if self.name else dict(terms.parts)


@dataclass
class _Averaged:
    """Any other loss: the mean over the batches of a step, whatever of them counts; see `_Counted`."""

    name: str
    weight: float
    loss: LossFunction
    align_corners: bool

    def compile(self) -> None:
        if isinstance(self.loss, nn.Module):
            self.loss.compile()

    def counts(self, target: Tensor) -> Tensor:
        return torch.zeros(1, device=target.device)  # nothing to divide by

    def __call__(
        self, logits: Tensor, target: Tensor, counts: Tensor, step: int, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        full = upsample_logits(widened(logits), target.shape[1:], self.align_corners)
        value = self.loss(full, target.long())
        title = f"the loss {self.name or type(self.loss).__name__}"
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{title} must give one number, not {found}")
        if logits.requires_grad and not value.requires_grad:
            raise ValueError(f"{title} has no gradient in the logits; argmax, comparisons and detach() have none")
        value = value.reshape(())
        return share * value, {self.name: value.detach()} if self.name else {}
