"""Code of others that is called as a training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmiseg.evaluation.evaluate import Evaluation
    from rmiseg.training.loop import TrainingRun
    from rmiseg.training.run_folder import RunResult
    from rmiseg.training.step import StepOutcome


class Callback:
    """Base of callbacks: define the methods that you need.

    `run` is the training with its parts: `config`, `out`, `device`, `classes`, `model`, `optimizer`, `state` (how far
    it has come) and `curves` (`run.curves.add(step, {"name": value})` logs a value). `run.stop()` ends the training
    after the epoch that is under way. With several processes every method is called in all of them; `is_main()` of
    `rmiseg.runtime.distributed` tells which one prints and writes files.

    A callback that remembers something from step to step returns it from `state_dict` and takes it back in
    `load_state_dict`, so that an interrupted training goes on exactly.
    """

    def on_fit_start(self, run: TrainingRun) -> None:
        """Hear that everything is ready for the first step, or the first one after an interruption."""

    def on_epoch_start(self, run: TrainingRun) -> None:
        """Hear that epoch `run.state.epoch`, from 0, begins; again if the run goes on in the middle of it."""

    def on_step_end(self, run: TrainingRun, outcome: StepOutcome) -> None:
        """Hear what came of a step: `outcome.parts` holds the loss; `run.state.step` counts it already."""

    def on_validation_end(self, run: TrainingRun, evaluation: Evaluation) -> None:
        """Hear the scores on the validation split: `evaluation.summary()`."""

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Hear that the epoch is over and its checkpoint written; `run.state.epoch` counts it already."""

    def on_fit_end(self, run: TrainingRun, result: RunResult) -> None:
        """Hear that the training is over."""

    def state_dict(self) -> dict[str, Any]:
        """State to go on from, plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
