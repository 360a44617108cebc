"""The base of loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVENT_FILES = "events.out.tfevents.*"
"""Files of TensorBoard in the folder of a run."""


class Logger:
    """Base of loggers, which write curves and pictures somewhere: define the methods that you need.

    A logger is built without arguments by its name, or by whoever passes one to `Trainer`; only in the main process.
    """

    def open(self, folder: Path, config: Mapping[str, Any], from_step: int | None) -> None:
        """Begin, or go on.

        Args:
            folder: Folder of the run.
            config: Its options, nested plain values.
            from_step: Step that an interrupted run goes on from; what was logged for it and later steps does not
                count. None for a run that begins.
        """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step by their names, such as "val/mIoU"."""

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Log a picture (H, W, 3)."""

    def flush(self) -> None:
        """Write everything that is not written yet: the state of the run is saved next."""

    def close(self) -> None:
        """Write everything that is not written yet, and nothing more."""
