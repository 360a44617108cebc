"""What a training run writes for TensorBoard: curves, and pictures of some validation images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing import event_accumulator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from rmiseg.data import Batch, ClassTable
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import MEASURES
from rmiseg.inference.pictures import confusion_picture, panel_row


class Curves:
    """Writes TensorBoard's event files.

    Args:
        folder: Where to write them; None writes nothing.
        classes: The classes, for the colors in the pictures.
        names: Names of the validation images, in their order.
        panels: How many of them to show, spread over the whole split: neighbors in a video or volume look alike.
        purge_step: Where a training goes on: what was written for this step and later ones does not count.
    """

    def __init__(
        self,
        folder: Path | None,
        classes: ClassTable,
        names: Sequence[str],
        panels: int,
        purge_step: int | None = None,
    ) -> None:
        self.writer = None if folder is None else SummaryWriter(str(folder), purge_step=purge_step)
        self.classes = classes
        self.shown = {names[i] for i in np.linspace(0, len(names) - 1, panels).round().astype(int)}

    def add_training(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a training step, by name."""
        if self.writer is None:
            return
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def add_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """The scores on the validation split, the IoU of each class, and the confusion matrix as a picture."""
        if self.writer is None:
            return
        self.writer.add_scalar("val/mIoU", evaluation.everywhere.mean_iou, step)
        self.writer.add_scalar("val/pixel_accuracy", evaluation.everywhere.pixel_accuracy, step)
        for name in MEASURES[1:]:
            self.writer.add_scalar(f"val/{name}_mIoU", evaluation.measures[name].mean_iou, step)
        for name, iou in zip(self.classes.names, evaluation.everywhere.iou):
            if not math.isnan(iou):
                self.writer.add_scalar(f"val IoU/{name}", iou, step)
        matrix = confusion_picture(evaluation.confusion, self.classes)
        self.writer.add_image(
            "val/confusion: true classes in rows, predicted in columns", matrix, step, dataformats="HWC"
        )

    def add_picture(self, step: int, batch: Batch, prediction: Tensor) -> None:
        """Image, truth and prediction of a validation batch of one, if it is among those to show."""
        (name,) = batch["name"]
        if self.writer is None or name not in self.shown:
            return
        truth = batch["mask"][0].numpy()
        pixels = torch.nn.functional.interpolate(batch["image"], truth.shape)[0].permute(1, 2, 0).numpy()
        row = panel_row(pixels, [truth, prediction[0].to("cpu", torch.uint8).numpy()], self.classes)
        self.writer.add_image(f"image, truth, prediction/{name}", row, step, dataformats="HWC")

    def flush(self) -> None:
        """Write what is not written yet."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Write what is not written yet, and nothing more."""
        if self.writer is not None:
            self.writer.close()


def read_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The scalars in a run's event files, such as "val/mIoU": steps and values by tag; none where there is no file."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    # 0 keeps all; of everything else as little as possible.
    keep = dict.fromkeys(event_accumulator.DEFAULT_SIZE_GUIDANCE, 1) | {event_accumulator.SCALARS: 0}
    events = event_accumulator.EventAccumulator(str(folder), size_guidance=keep)
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        curves[tag] = ([point.step for point in points], [point.value for point in points])
    return curves
