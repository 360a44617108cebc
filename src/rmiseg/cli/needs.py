"""Packages of extras that a command needs by its options: told before anything heavy is imported.

What only files tell, such as the model of a checkpoint, is told by what reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmiseg.config import (
    AppConfig,
    CRFSearchConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    PlanConfig,
    PredictConfig,
    TrainConfig,
)
from rmiseg.config.commands import VIDEO_SUFFIXES
from rmiseg.runtime.extras import require, require_for_export

FAMILIES = ("smp", "hf", "monai")
"""Beginnings of the names of models and losses that other packages have; the extras are called the same."""
LOGGERS = ("wandb", "mlflow")
"""Loggers that need an extra, which is called the same."""
LABELS = ("coco", "cvat", "label-studio", "labelme")
"""Files for labelling tools that predictions can be written as."""


def check_needs(config: Any) -> None:
    """See that the packages which a command needs are installed.

    Args:
        config: The options of the command.

    Raises:
        ModuleNotFoundError: One is missing; the message names the extra that installs it.
    """
    if isinstance(config, ExportConfig):
        for name in config.format.split(","):
            require_for_export(name.strip())
    for extra, purpose in _needs(config):
        require(extra, purpose)


def _needs(config: Any) -> Iterator[tuple[str, str]]:
    """Extras that a command needs, and the purpose of each in words."""
    match config:
        case AppConfig():
            yield "app", "the page to try a model"
        case CRFSearchConfig():
            yield "crf", "a dense CRF"
        case DemoConfig() if not (Path(config.out) / "data" / "dataset.yaml").is_file():
            yield "demo", "the demo"
        case TrainConfig():
            chosen = [("model", config.model.name), *(("loss", name) for name in [config.loss.name, *config.loss.plus])]
            for kind, name in chosen:
                if (family := name.partition(":")[0]) in FAMILIES:
                    yield family, f"the {kind} {name}"
            if not isinstance(config, PlanConfig):
                yield from ((name, f"train.loggers {name}") for name in config.train.loggers if name in LOGGERS)
        case EvaluateConfig() | PredictConfig():
            if config.crf:
                yield "crf", "a dense CRF"
    if isinstance(config, PredictConfig):
        yield from (("labels", f"--write {name}") for name in config.write if name in LABELS)
        videos = [path for path in config.images if Path(path).suffix.lower() in VIDEO_SUFFIXES]
        yield from (("video", f"reading the video {path}") for path in videos)
