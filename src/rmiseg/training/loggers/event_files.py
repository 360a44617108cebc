"""Curves and pictures as TensorBoard's event files, in the folder of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from rmiseg.config.registry import register
from rmiseg.training.loggers.base import EVENT_FILES, Logger
from rmiseg.training.loggers.table import Curves


class _QuietThread(event_file_writer._AsyncWriterThread):  # type: ignore[misc]  # tensorboard has no annotations
    """The thread that writes, which says nothing of a full disk: `flush` raises the same, and that is said."""

    def run(self) -> None:
        with suppress(OSError):
            super().run()


@register("logger", "tensorboard")
class EventFileLogger(Logger):
    """Writes TensorBoard's event files."""

    writer: SummaryWriter

    def open(self, folder: Path, config: Mapping[str, Any], from_step: int | None) -> None:
        # Readers go through the files in the order of their names, which hold the time: also if the clock was set back.
        times = [int(path.name.split(".")[3]) for path in folder.glob(EVENT_FILES) if path.name.split(".")[3].isdigit()]
        now = max([time.time(), *(each + 1 for each in times)])
        with (
            patch.object(event_file_writer, "time", SimpleNamespace(time=lambda: now)),
            patch.object(event_file_writer, "_AsyncWriterThread", _QuietThread),
        ):
            self.writer = SummaryWriter(str(folder), purge_step=from_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # what waits would make the file anew in a folder that takes the place of this one

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        self.writer.add_image(name, pixels, step, dataformats="HWC")
        self.writer.flush()

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def read_event_files(folder: Path) -> Curves:
    """Read the scalars in a run's event files, such as "val/mIoU"; none where there is no file."""
    if not any(folder.glob(EVENT_FILES)):
        return {}
    # 0 keeps all; of everything else as little as possible.
    keep = dict.fromkeys(event_accumulator.DEFAULT_SIZE_GUIDANCE, 1) | {event_accumulator.SCALARS: 0}
    events = event_accumulator.EventAccumulator(str(folder), size_guidance=keep)
    events.Reload()
    curves: Curves = {}
    for tag in events.Tags()["scalars"]:
        points = sorted(events.Scalars(tag), key=lambda point: point.step)
        curves[tag] = ([point.step for point in points], [point.value for point in points])
    return curves
