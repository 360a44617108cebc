"""The parts of a training that can be given as objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rmiseg.data import LabeledImages
from rmiseg.training.callbacks import Callback
from rmiseg.training.criterion import LossFunction
from rmiseg.training.loggers import Logger


@dataclass(frozen=True)
class Parts:
    """Objects that a training is made of; None or nothing where the options say it.

    Attributes:
        train: Images to train on.
        val: Images to score on.
        model: The network.
        loss: The loss.
        transform: Augmentation.
        callbacks: Called as the training goes on.
        loggers: Where curves go, beside those that the options name.
    """

    train: LabeledImages
    val: LabeledImages
    model: nn.Module | None = None
    loss: LossFunction | None = None
    transform: Any = None
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()
