"""Progress bars, for everything that takes longer than a few seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


class RateColumn(ProgressColumn):
    """Images per second, over the last half minute, or over the whole time at the end."""

    def render(self, task: Task) -> Text:
        if task.finished_time:  # rich's own speed begins after the first image, most of a short time
            return Text(f"{task.completed / task.finished_time:.1f} img/s")
        return Text(f"{task.speed or 0.0:.1f} img/s")


def track(items: Iterable[T], description: str, console: Console | None, total: int | None) -> Iterator[T]:
    """The items, one an image, with a progress bar on `console`; without one if that is None."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        yield from progress.track(items, total=total, description=description)
