"""Code of others that is called as a training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from rmiseg.config import TrainConfig
from rmiseg.data import ClassTable
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.models.base import SegmentationModel
from rmiseg.training.curves import RunCurves
from rmiseg.training.run_folder import RunResult
from rmiseg.training.state import RunState
from rmiseg.training.step import StepOutcome


class Run(Protocol):
    """The training that calls, with the parts of it that a callback may look at.

    Attributes:
        config: The options, complete.
        out: Folder of the run.
        device: Where it computes.
        classes: Names and colors of the C classes.
        model: The bare model.
        state: How far it has come: `state.step` and `state.epoch` count what is done.
        curves: `curves.add(step, {"name": value})` logs numbers.
    """

    config: TrainConfig
    out: Path
    device: torch.device
    classes: ClassTable
    model: SegmentationModel
    state: RunState
    curves: RunCurves

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""

    def stop(self) -> None:
        """End the training after the epoch that is under way; in all processes, if one says so."""


class Callback:
    """Base of callbacks: define the methods that you need.

    With several processes every method is called in all of them; `is_main()` of `rmiseg.runtime.distributed` tells
    which one prints and writes files.

    A callback that remembers something from step to step returns it from `state_dict` and takes it back in
    `load_state_dict`, so that an interrupted training goes on exactly.
    """

    def on_fit_start(self, run: Run) -> None:
        """Hear that everything is ready for the first step, or the first one after an interruption."""

    def on_epoch_start(self, run: Run) -> None:
        """Hear that epoch `run.state.epoch`, from 0, begins; again if the run goes on in the middle of it."""

    def on_step_end(self, run: Run, outcome: StepOutcome) -> None:
        """Hear the outcome of a step: `outcome.parts` holds the loss; `run.state.step` counts it already."""

    def on_validation_end(self, run: Run, evaluation: Evaluation) -> None:
        """Hear the scores on the validation split: `evaluation.summary()`."""

    def on_epoch_end(self, run: Run) -> None:
        """Hear that the epoch is over and its checkpoint written; `run.state.epoch` counts it already."""

    def on_fit_end(self, run: Run, result: RunResult) -> None:
        """Hear that the training is over."""

    def state_dict(self) -> dict[str, Any]:
        """State to go on from, plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
