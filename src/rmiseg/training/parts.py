"""The parts of a training that can be given as objects."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rmiseg.config import TrainConfig
from rmiseg.data import LabeledImages
from rmiseg.training.callbacks import Callback
from rmiseg.training.criterion import LossFunction
from rmiseg.training.loggers import Logger


@dataclass(frozen=True)
class Parts:
    """Objects that a training is made of; None or nothing where the options say it.

    Attributes:
        train: Images to train on.
        val: Images to score on.
        model: The network.
        loss: The loss.
        transform: Augmentation.
        callbacks: Called as the training goes on.
        loggers: Where curves go, beside those that the options name.
    """

    train: LabeledImages
    val: LabeledImages
    model: nn.Module | None = None
    loss: LossFunction | None = None
    transform: Any = None
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()


REPLACED = {
    "data": ("data.root", "data.options"),
    "transform": (
        *("data.crop_size", "data.scale_range", "data.scale_step", "data.flip", "data.color_jitter"),
        *("data.augment", "data.rare_share"),
    ),
    "model": ("model.backbone", "model.output_stride", "model.options"),
    "loss": ("loss.options", "loss.class_weights"),
}
"""Options that mean nothing any more where a part is given as an object."""


def check_unused(config: TrainConfig, part: str) -> None:
    """Refuse options for a part that is given as an object.

    Args:
        config: The options.
        part: A key of `REPLACED`.

    Raises:
        ValueError: One of them is not as it is by default.
    """
    usual = TrainConfig()
    for option in REPLACED[part]:
        section, _, name = option.partition(".")
        if getattr(getattr(config, section), name) != getattr(getattr(usual, section), name):
            raise ValueError(f"{option} would have no effect: the {part} is given as an object; leave the option out")


def check_parts(model: Any, loss: Any, callbacks: Any, loggers: Any) -> None:
    """See that parts are of the right kind, before any work.

    Raises:
        TypeError: One is not.
    """
    if model is not None and not isinstance(model, nn.Module):
        hint = "; a name belongs into the options, as model.name" if isinstance(model, str) else ""
        raise TypeError(f"model must be an nn.Module, not {model!r}{hint}")
    if loss is not None and (inspect.isclass(loss) or not callable(loss)):
        hint = "; a name belongs into the options, as loss.name" if isinstance(loss, str) else ""
        hint = f"; give an object, such as {loss.__name__}(num_classes)" if inspect.isclass(loss) else hint
        raise TypeError(f"loss must be callable with (logits, target), not {loss!r}{hint}")
    if isinstance(loss, nn.Module):
        trained = [name for name, weight in loss.named_parameters() if weight.requires_grad]
        if trained:
            raise ValueError(
                f"the loss has weights of its own, {', '.join(trained)}, which would not be trained: the optimizer has "
                "those of the model; compute the loss of fixed numbers, or set their requires_grad to False"
            )
    for name, given, kind in (("callbacks", callbacks, Callback), ("loggers", loggers, Logger)):
        if not isinstance(given, list | tuple):
            raise TypeError(f"{name} must be a list, not {given!r}")
        if wrong := [each for each in given if not isinstance(each, kind)]:
            raise TypeError(f"{name} must be objects of subclasses of rmiseg.{kind.__name__}, not {wrong[0]!r}")


def never_called(callbacks: Sequence[Callback]) -> list[str]:
    """Say which methods of callbacks look like those that are called as a training goes on, and are none of them."""
    hooks = [name for name in dir(Callback) if name.startswith("on_")]
    return [
        f"{type(callback).__name__}.{name} is not called by the training; what is called: {', '.join(hooks)}"
        for callback in callbacks
        for name, member in inspect.getmembers(type(callback), callable)
        if name.startswith("on_") and name not in hooks
    ]
