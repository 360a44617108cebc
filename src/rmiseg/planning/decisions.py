"""Decisions on options: what the rules return, and the table of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from rmiseg.config import OpenConfig, TrainConfig
from rmiseg.config.recipes import shortened

C = TypeVar("C", bound=TrainConfig)


@dataclass(frozen=True)
class Decision:
    """The value of one option, and why.

    Attributes:
        option: Its dotted name.
        value: Its value.
        because: The reason, with the facts that it follows from.
    """

    option: str
    value: Any
    because: str

    @property
    def text(self) -> str:
        """The value as on the command line."""
        if isinstance(self.value, list | tuple):
            return ",".join(_plain(each) for each in self.value)
        return _plain(self.value)


@dataclass(frozen=True)
class Plan:
    """A training whose options are all decided.

    Attributes:
        config: The options.
        decisions: Those that nobody gave.
        notes: Things that a person should know of the data, one line each.
    """

    config: TrainConfig
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()

    def show(self, console: Console) -> None:
        """Print the table of decisions, and the notes."""
        if self.decisions:
            table = Table("option", "value", "because", title="Decided from the data and the machine")
            for each in self.decisions:
                table.add_row(each.option, shortened(each.text, 60), each.because)
            console.print(table)
        for note in self.notes:
            console.print(f"note: {note}", markup=False, soft_wrap=True)


def with_value(config: C, option: str, value: Any) -> C:
    """The options with another value of one, by its dotted name."""
    changed: C = _replaced(config, option.split("."), value)
    return changed


def closed(config: TrainConfig) -> TrainConfig:
    """The options with nothing open any more."""
    return TrainConfig(**{each.name: getattr(config, each.name) for each in fields(TrainConfig)})


def is_given(config: OpenConfig, option: str) -> bool:
    """Tell whether somebody gave an option, the section that it belongs to, or a part of it."""
    return any(
        option == each or option.startswith(f"{each}.") or each.startswith(f"{option}.") for each in config.given
    )


def options(decisions: Iterable[Decision]) -> dict[str, Any]:
    """The values of decisions by the dotted names of their options."""
    return {each.option: each.value for each in decisions}


def _replaced(section: Any, names: list[str], value: Any) -> Any:
    name, *rest = names
    return replace(section, **{name: _replaced(getattr(section, name), rest, value) if rest else value})


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
