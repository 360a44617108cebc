"""Curves and pictures to MLflow (https://mlflow.org): the server or store that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rmiseg.config.recipes import flat
from rmiseg.config.registry import register
from rmiseg.runtime.extras import import_extra
from rmiseg.training.loggers.base import Logger

ID_FILE = "mlflow-id.txt"
LONGEST_VALUE = 500


@register("logger", "mlflow")
class MLflowLogger(Logger):
    """Logs to one MLflow run, with which a run that goes on goes on too. Settings are those of MLflow's variables.

    MLFLOW_TRACKING_URI names the server or store, MLFLOW_EXPERIMENT_NAME the experiment (rmiseg by default).

    Raises:
        ModuleNotFoundError: mlflow is not installed.
    """

    def __init__(self) -> None:
        self.mlflow = import_extra("mlflow", "mlflow", "train.loggers mlflow")
        self.client = self.mlflow.MlflowClient()

    def open(self, folder: Path, config: Mapping[str, Any], from_step: int | None) -> None:
        known = folder / ID_FILE
        if from_step is not None and known.is_file():
            self.run_id = known.read_text(encoding="utf-8")
            return
        run = self.client.create_run(self._experiment(), run_name=folder.name)
        self.run_id = str(run.info.run_id)
        known.write_text(self.run_id, encoding="utf-8")
        for name, value in flat(config).items():
            self.client.log_param(self.run_id, name, str(value)[:LONGEST_VALUE])

    def _experiment(self) -> str:
        name = self.mlflow.environment_variables.MLFLOW_EXPERIMENT_NAME.get() or "rmiseg"
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        for name, value in values.items():
            if math.isfinite(value):
                self.client.log_metric(self.run_id, _name(name), value, timestamp=now, step=step)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        self.client.log_image(self.run_id, Image.fromarray(pixels), key=_name(name), step=step)

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def _name(name: str) -> str:
    """A name of those signs that MLflow takes."""
    return "".join(sign if sign.isalnum() or sign in "/_-. " else "_" for sign in name)
