"""Options that do nothing beside some values of others: whoever gives one meant something, and is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rmiseg.config.commands import PREDICTION_FORMATS, EvaluateConfig, ExportConfig, PredictConfig, TilingConfig
from rmiseg.config.options import ModelConfig, OpenConfig, TrainConfig
from rmiseg.config.recipes import shortened, value_of


class Need(NamedTuple):
    """A condition under which an option does something.

    Attributes:
        option: The option that decides, or a section of them.
        is_met: Whether its value lets the other do something.
        remedy: What it should be, after "give it".
    """

    option: str
    is_met: Callable[[Any], bool]
    remedy: str


def _is(option: str, value: str) -> Need:
    return Need(option, lambda now: bool(now == value), f"as {value}")


def _some(option: str) -> Need:
    """A need of something that is given, or more than 0."""
    return Need(option, bool, "too")


def _has(option: str, value: str) -> Need:
    return Need(option, lambda now: value in now, f"with {value} in it")


def _has_auxiliary_head(model: ModelConfig) -> bool:
    """Tell whether a network has a second classifier in training; True where its name and options do not say."""
    if model.name in ("deeplabv3", "deeplabv3plus", "upernet"):
        return bool(model.options.get("auxiliary", False))
    return model.name not in ("unet", "linear") and not model.name.startswith(("smp:", "hf:", "torchvision:lraspp"))


_AUXILIARY = Need("model", _has_auxiliary_head, "an auxiliary head, with model.options.auxiliary where it can have one")
_WITHOUT_OUTLINES = {*PREDICTION_FORMATS, "kaggle-columns", "kaggle-rows"}

NEEDED: dict[type, dict[str, Need]] = {
    TrainConfig: {
        "loss.rmi": _is("loss.name", "rmi"),
        "loss.pyramid": _is("loss.name", "pyramid"),
        "loss.affinity": _is("loss.name", "affinity"),
        "loss.aux_weight": _AUXILIARY,
        "loss.aux_loss": _AUXILIARY,
        "optim.poly_power": _is("optim.schedule", "poly"),
        "optim.step_milestones": _is("optim.schedule", "step"),
        "optim.step_factor": _is("optim.schedule", "step"),
        "optim.warmup_lr": _some("optim.warmup_steps"),
        "optim.warmup_to": _some("optim.warmup_steps"),
        "train.panels": _some("train.loggers"),
    },
    TilingConfig: {"overlap": _some("window")},
    EvaluateConfig: {"dense_crf": _some("crf")},
    PredictConfig: {
        "dense_crf": _some("crf"),
        "root": _some("split"),
        "opacity": _has("write", "overlay"),
        "tolerance": Need("write", lambda now: not _WITHOUT_OUTLINES.issuperset(now), "with labels that are outlines"),
    },
    ExportConfig: {
        "images": _has("format", "onnx-int8"),
        "root": _has("format", "onnx-int8"),
        "private": _some("push"),
    },
}
"""Options of each command, or sections of them, with what they need to do something."""

DISPLACED: dict[str, list[str]] = {
    "train.epochs": ["train.steps", "train.hours"],
    "data.val_split": ["data.held_out", "data.folds"],
}
"""Options of a training with those that take their place wherever they are given."""


def check_effects(config: Any, given: Iterable[str]) -> None:
    """See that options do something. Those of recipes are not looked at, which may prepare for several losses.

    Args:
        config: All options of a command. Of those that are open it is not known yet, see `check_needed`.
        given: Dotted names of those that somebody gave with this very call in mind.

    Raises:
        ValueError: One has no effect.
    """
    given = list(given)
    for option in given if isinstance(config, TrainConfig) else ():
        for other in DISPLACED.get(option, ()):
            if (value := value_of(config, other)) is not None:
                raise ValueError(
                    f"{option} has no effect, since {other} is {shortened(str(value), 60)}, which takes its place: "
                    f"leave one of them out. What a recipe says is undone by --{other} null"
                )
    if not isinstance(config, OpenConfig):
        check_needed(config, given)


def check_needed(config: Any, given: Iterable[str]) -> None:
    """See that options have what they need to do something; see `check_effects`.

    Raises:
        ValueError: One has no effect.
    """
    needed = {name: need for kind in type(config).__mro__ for name, need in NEEDED.get(kind, {}).items()}
    for option in given:
        for name, need in needed.items():
            value = value_of(config, need.option)
            if f"{option}.".startswith(f"{name}.") and not need.is_met(value):
                said = ", ".join(value) if isinstance(value, list) else str(value)
                now = f"{need.option} is {shortened(said, 60)}" if value else f"there is no {need.option}"
                raise ValueError(
                    f"{option} has no effect, since {now}: leave it out, or give {need.option} {need.remedy}"
                )
