"""Options that do nothing beside some values of others: whoever gives one meant something, and is told."""

from __future__ import annotations

from collections.abc import Iterable

from rmiseg.config.options import OpenConfig, TrainConfig
from rmiseg.config.recipes import shortened, value_of

POSITIVE = "more than 0"

NEEDED: dict[str, tuple[str, str]] = {
    "loss.rmi": ("loss.name", "rmi"),
    "loss.pyramid": ("loss.name", "pyramid"),
    "loss.affinity": ("loss.name", "affinity"),
    "optim.poly_power": ("optim.schedule", "poly"),
    "optim.step_milestones": ("optim.schedule", "step"),
    "optim.step_factor": ("optim.schedule", "step"),
    "optim.warmup_lr": ("optim.warmup_steps", POSITIVE),
    "optim.warmup_to": ("optim.warmup_steps", POSITIVE),
}
"""Options, or sections of them, with the option and its value without which they do nothing."""

DISPLACED: dict[str, list[str]] = {
    "train.epochs": ["train.steps", "train.hours"],
    "data.val_split": ["data.held_out", "data.folds"],
}
"""Options with those that take their place wherever they are given."""


def check_effects(config: TrainConfig, given: Iterable[str]) -> None:
    """See that options do something. Those of recipes are not looked at, which may prepare for several losses.

    Args:
        config: All options. Of those that are open it is not known yet, see `check_needed`.
        given: Dotted names of those that somebody gave with this very training in mind.

    Raises:
        ValueError: One has no effect.
    """
    given = list(given)
    for option in given:
        for other in DISPLACED.get(option, ()):
            if (value := value_of(config, other)) is not None:
                raise ValueError(
                    f"{option} has no effect, since {other} is {shortened(str(value), 60)}, which takes its place: "
                    f"leave one of them out. What a recipe says is undone by --{other} null"
                )
    if not isinstance(config, OpenConfig):
        check_needed(config, given)


def check_needed(config: TrainConfig, given: Iterable[str]) -> None:
    """See that options have what they need to do something; see `check_effects`.

    Raises:
        ValueError: One has no effect.
    """
    for option in given:
        for name, (other, needed) in NEEDED.items():
            value = value_of(config, other)
            is_met = value > 0 if needed == POSITIVE else value == needed
            if f"{option}.".startswith(f"{name}.") and not is_met:
                raise ValueError(
                    f"{option} has no effect, since {other} is {shortened(str(value), 60)}: leave it out, or give "
                    f"{other} as {needed}"
                )
