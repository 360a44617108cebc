"""The progress display of a training run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmiseg.data.loader import Batch, Loader
from rmiseg.evaluation.evaluate import Evaluation

T = TypeVar("T")

RECENT = 20
"""Steps that losses, speed and waiting times are averaged over."""

WIDE = 120
"""Columns of a terminal that hold everything; on a narrower one some is left out, lest the rest be cut off."""

HOUR = 3600.0
"""Seconds that the remaining time is estimated from: long, for validations are part of it."""


class TrainingProgress:
    """One bar over all steps, and one line for every epoch."""

    def __init__(self, progress: Progress, console: Console, total_steps: int, done: int, images_per_step: int) -> None:
        self.progress = progress
        self.console = console
        self.images_per_step = images_per_step
        unknown: dict[str, Any] = dict.fromkeys(("loss", "train", "val", "rate", "wait"), "-")
        self.task = progress.add_task("", total=total_steps, completed=done, **unknown)
        self.recent_losses: list[float] = []
        self.waits: list[float] = []
        self.times: list[float] = []

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The items, while the bar shows the share of time spent waiting for them."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            waited = time.perf_counter() - started
            yield item
            self.waits = [*self.waits[1 - RECENT :], waited]
            self.times = [*self.times[1 - RECENT :], time.perf_counter() - started]
            # Not rich's own speed: that forgets all steps in a validation of more than half a minute.
            rate = self.images_per_step * len(self.times) / sum(self.times)
            self.progress.update(self.task, rate=f"{rate:.1f}", wait=f"{self.wait_share:.0%}")

    @property
    def wait_share(self) -> float:
        """Share of the time of the last whole steps that was spent waiting for data; NaN before the first."""
        return sum(self.waits) / sum(self.times) if self.times else math.nan

    def advance(self, epoch: int, loss: float, train_mean_iou: float, scope: str = "") -> None:
        """One step is done; `scope` is that of the mean IoU, see `Scores`."""
        self.recent_losses = [*self.recent_losses[1 - RECENT :], loss]
        self.progress.update(
            self.task,
            advance=1,
            description=f"epoch {epoch + 1}",
            loss=f"{self.mean_loss:.2f}",
            train=f"{train_mean_iou:.1%}{scope if self.console.width >= WIDE else ''}",
        )

    def validating(self, batches: Loader) -> Iterator[Batch]:
        """The validation batches; the bar's description counts them."""
        for done, batch in enumerate(batches):
            self.progress.update(self.task, description=f"val {done}/{len(batches)}")
            yield batch

    def end_epoch(self, epoch: int, evaluation: Evaluation | None) -> None:
        """One epoch is done, and perhaps was evaluated."""
        line = f"epoch {epoch + 1:3d}"
        if self.recent_losses:  # none yet after going on at the very end of an epoch
            line += f"  loss {self.mean_loss:7.3f}"
        if evaluation is not None:
            scores = evaluation.everywhere
            val = f"{scores.mean_iou:.1%}{scores.scope}"
            self.progress.update(self.task, description=f"epoch {epoch + 1}", val=val)
            line += f"  val mIoU {scores.mean_iou:6.2%}{scores.scope}  pixel accuracy {scores.pixel_accuracy:6.2%}"
        self.console.print(line)

    @property
    def mean_loss(self) -> float:
        """Mean of the last steps; NaN before the first."""
        return sum(self.recent_losses) / len(self.recent_losses) if self.recent_losses else math.nan


@contextmanager
def training_progress(
    console: Console, total_steps: int, done: int, images_per_step: int
) -> Iterator[TrainingProgress]:
    """The progress display of a training run of which so many steps are done."""
    wide = console.width >= WIDE
    columns = (
        TextColumn("{task.description}"),
        *((BarColumn(bar_width=8),) if wide else ()),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("mIoU {task.fields[train]}"),
        *((TextColumn("val {task.fields[val]}"),) if wide else ()),
        TextColumn("{task.fields[rate]} img/s"),
        TextColumn("data wait {task.fields[wait]}"),
        TimeRemainingColumn(),
    )
    # Ten refreshes a second, which is usual, take a hundredth of a core.
    with Progress(*columns, console=console, speed_estimate_period=HOUR, refresh_per_second=2) as progress:
        yield TrainingProgress(progress, console, total_steps, done, images_per_step)
