"""Curves and pictures to Weights & Biases (https://wandb.ai), or with WANDB_MODE=offline into the folder of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.registry import register
from rmiseg.runtime.extras import import_extra
from rmiseg.training.loggers.base import Logger

ID_FILE = "wandb-id.txt"


@register("logger", "wandb")
class WandbLogger(Logger):
    """Logs to one W&B run, with which a run that goes on goes on too. Settings are those of wandb's variables.

    WANDB_PROJECT names the project (rmiseg by default), WANDB_MODE=offline writes into the folder of the run.

    Raises:
        ModuleNotFoundError: wandb is not installed.
    """

    def __init__(self) -> None:
        self.wandb = import_extra("wandb", "wandb", "train.loggers wandb")

    def open(self, folder: Path, config: Mapping[str, Any], from_step: int | None) -> None:
        known = folder / ID_FILE
        if from_step is None or not known.is_file():
            known.write_text(uuid4().hex[:12], encoding="utf-8")
        self.run = self.wandb.init(
            id=known.read_text(encoding="utf-8"),
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            project=os.environ.get("WANDB_PROJECT", "rmiseg"),
            settings=self.wandb.Settings(silent=True),
        )
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        self.run.log({"step": step, name: self.wandb.Image(pixels)})

    def close(self) -> None:
        self.run.finish()
