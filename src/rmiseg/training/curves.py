"""The curves of a training run, and pictures of some validation images, for every logger alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from rmiseg.config import TrainConfig
from rmiseg.config.registry import find
from rmiseg.data import Batch, ClassTable
from rmiseg.data.bands import RGB, Bands
from rmiseg.data.spread import spread
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import MEASURES
from rmiseg.inference.pictures import confusion_picture, panel_row
from rmiseg.runtime.files import printable
from rmiseg.training.loggers.base import Logger
from rmiseg.training.loggers.table import CURVES_FILE, Curves, read_table

ALWAYS = "csv"
"""The logger that every run has."""


class RunCurves:
    """Hands curves and pictures to loggers.

    Args:
        loggers: Where they go; none in processes that write nothing.
        classes: The classes, for the colors in the pictures.
        names: Names of the validation images, in their order.
        panels: How many of them to show, spread over the whole split: neighbors in a video or volume look alike.
        bands: Bands of the images.
    """

    def __init__(
        self,
        loggers: Sequence[Logger],
        classes: ClassTable,
        names: Sequence[str],
        panels: int,
        bands: Bands = RGB,
    ) -> None:
        self.loggers = loggers
        self.bands = bands
        self.classes = classes
        self.shown = {names[place] for place in spread(len(names), panels)}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step by their names."""
        for logger in self.loggers if values else ():
            logger.scalars(step, values)

    def add_training(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a training step by their names."""
        self.add(step, {f"train/{name}": value for name, value in values.items()})

    def add_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Log the scores on the validation split, the IoU of each class, and the confusion matrix as a picture."""
        if not self.loggers:
            return
        values = {
            "val/mIoU": evaluation.everywhere.mean_iou,
            "val/pixel_accuracy": evaluation.everywhere.pixel_accuracy,
            **{f"val/{name}_mIoU": evaluation.measures[name].mean_iou for name in MEASURES[1:]},
            **{f"val/{name}": score for name, score in evaluation.further_scores().items()},
        }
        if not math.isnan(evaluation.loss):
            values["val/loss"] = evaluation.loss
        for name, iou in zip(self.classes.names, evaluation.everywhere.iou):
            if not math.isnan(iou):
                values[f"val IoU/{name}"] = iou
        self.add(step, values)
        matrix = confusion_picture(evaluation.confusion, self.classes)
        for logger in self.loggers:
            logger.picture(step, "val/confusion: true classes in rows, predicted in columns", matrix)

    def add_picture(self, step: int, batch: Batch, prediction: Tensor) -> None:
        """Log image, truth and prediction of a validation batch of one, if it is among those to show."""
        (name,) = batch["name"]
        if not self.loggers or name not in self.shown:
            return
        truth = batch["mask"][0].numpy()
        pixels = torch.nn.functional.interpolate(batch["image"], truth.shape)[0].permute(1, 2, 0).numpy()
        row = panel_row(
            self.bands.picture_of(pixels), [truth, prediction[0].to("cpu", torch.uint8).numpy()], self.classes
        )
        for logger in self.loggers:
            logger.picture(step, f"image, truth, prediction/{printable(name)}", row)

    def flush(self) -> None:
        """Write everything that is not written yet."""
        for logger in self.loggers:
            logger.flush()

    def close(self) -> None:
        """Write everything that is not written yet, and nothing more."""
        for logger in self.loggers:
            logger.close()


def open_loggers(further: Iterable[Logger], config: TrainConfig, from_step: int | None) -> list[Logger]:
    """Open the table, the loggers that `config` names, and further ones, for the folder of the run.

    Args:
        further: Loggers that were given in Python.
        config: The options of the run.
        from_step: See `Logger.open`.
    """
    names = dict.fromkeys([ALWAYS, *config.train.loggers])
    loggers: list[Logger] = [find("logger", name, config.made_with).make() for name in names]
    loggers += further
    for logger in loggers:
        logger.open(Path(config.out), asdict(config), from_step)
    return loggers


def read_curves(folder: Path) -> Curves:
    """Read the curves of a run, such as "val/mIoU": steps and values by name; none where there are none."""
    if curves := read_table(folder / CURVES_FILE):
        return curves
    from rmiseg.training.loggers.event_files import read_event_files  # all that older runs have

    return read_event_files(folder)
