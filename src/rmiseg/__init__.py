"""Semantic segmentation with losses that see regions, not lone pixels.

The losses are at the top, and need only torch: `from rmiseg import RMILoss`. So are the trainer, the predictor and a
function for each step on the way from images to a model in use; they need the extra `train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmiseg.runtime.late import late

if TYPE_CHECKING:
    from rmiseg.config import TrainConfig
    from rmiseg.config.registry import register
    from rmiseg.evaluation.compare import compare
    from rmiseg.evaluation.scoring import evaluate
    from rmiseg.exports.export import export
    from rmiseg.functional import upsample_logits
    from rmiseg.inference.predict import predict
    from rmiseg.inference.predictor import Predictor
    from rmiseg.losses import AffinityLoss, BCELoss, CELoss, PyramidLoss, RMILoss, build_loss
    from rmiseg.reports.page import report
    from rmiseg.runtime.version import __version__ as __version__
    from rmiseg.training.callbacks import Callback
    from rmiseg.training.loggers import Logger
    from rmiseg.training.trainer import Trainer, train

_PLACES = {
    "AffinityLoss": "rmiseg.losses",
    "BCELoss": "rmiseg.losses",
    "CELoss": "rmiseg.losses",
    "Callback": "rmiseg.training.callbacks",
    "Logger": "rmiseg.training.loggers",
    "Predictor": "rmiseg.inference.predictor",
    "PyramidLoss": "rmiseg.losses",
    "RMILoss": "rmiseg.losses",
    "TrainConfig": "rmiseg.config",
    "Trainer": "rmiseg.training.trainer",
    "build_loss": "rmiseg.losses",
    "compare": "rmiseg.evaluation.compare",
    "evaluate": "rmiseg.evaluation.scoring",
    "export": "rmiseg.exports.export",
    "predict": "rmiseg.inference.predict",
    "register": "rmiseg.config.registry",
    "report": "rmiseg.reports.page",
    "train": "rmiseg.training.trainer",
    "upsample_logits": "rmiseg.functional",
    "__version__": "rmiseg.runtime.version",
}
"""The module of each name. It is imported late, so that --help needs no torch, and the losses nothing but torch."""

__all__ = [
    "AffinityLoss",
    "BCELoss",
    "CELoss",
    "Callback",
    "Logger",
    "Predictor",
    "PyramidLoss",
    "RMILoss",
    "TrainConfig",
    "Trainer",
    "build_loss",
    "compare",
    "evaluate",
    "export",
    "predict",
    "register",
    "report",
    "train",
    "upsample_logits",
]


__getattr__ = late(__name__, _PLACES)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
