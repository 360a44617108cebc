"""The progress display of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmiseg.data.loader import Batch, Loader
from rmiseg.engine.evaluate import Evaluation
from rmiseg.progress import RateColumn


class TrainingProgress:
    """One bar over all steps, and one line for every epoch."""

    def __init__(self, progress: Progress, console: Console, total_steps: int) -> None:
        self.progress = progress
        self.console = console
        self.task = progress.add_task("epoch 1", total=total_steps, loss="-", train="-", val="-")
        self.recent_losses: list[float] = []

    def advance(self, epoch: int, loss: float, train_mean_iou: float) -> None:
        """One step is done."""
        self.recent_losses = [*self.recent_losses[-19:], loss]
        self.progress.update(
            self.task,
            advance=1,
            description=f"epoch {epoch + 1}",
            loss=f"{self.mean_loss:.2f}",
            train=f"{train_mean_iou:.1%}",
        )

    def validating(self, batches: Loader) -> Iterator[Batch]:
        """The validation batches; the bar's description counts them."""
        for done, batch in enumerate(batches):
            self.progress.update(self.task, description=f"val {done}/{len(batches)}")
            yield batch

    def end_epoch(self, epoch: int, evaluation: Evaluation | None) -> None:
        """One epoch is done, and perhaps was evaluated."""
        line = f"epoch {epoch + 1:3d}  loss {self.mean_loss:7.3f}"
        if evaluation is not None:
            scores = evaluation.everywhere
            self.progress.update(self.task, description=f"epoch {epoch + 1}", val=f"{scores.mean_iou:.1%}")
            line += f"  val mIoU {scores.mean_iou:6.2%}  pixel accuracy {scores.pixel_accuracy:6.2%}"
        self.console.print(line)

    @property
    def mean_loss(self) -> float:
        """Mean of the last 20 steps."""
        return sum(self.recent_losses) / len(self.recent_losses)


@contextmanager
def training_progress(console: Console, total_steps: int, batch_size: int) -> Iterator[TrainingProgress]:
    """The progress display of a training run."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("mIoU {task.fields[train]} val {task.fields[val]}"),
        RateColumn(batch_size),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield TrainingProgress(progress, console, total_steps)
