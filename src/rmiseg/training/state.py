"""The state of a training run, and the files that an interrupted one goes on from.

Order, augmentation and dropout are functions of (seed, step), computed afresh wherever they are needed. So there is no
state of random number generators or loader processes to keep: how far the training has come is all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from rmiseg.config.recipes import check_types, shortened
from rmiseg.runtime.files import leftovers
from rmiseg.runtime.tensor_files import check_tensors, read_content, write_content

FORMAT = "rmiseg training state 1"
STATES = "resume"
KEPT = 2


@dataclass
class RunState:
    """Counters of how far a training has come.

    Attributes:
        epoch: The epoch that is under way, from 0; its evaluation is part of it.
        step: Steps taken since the beginning of the training, those that were skipped among them.
        step_in_epoch: Steps taken in this epoch.
        skipped: Steps that were skipped because loss or gradient was not finite.
        skipped_in_a_row: The last so many steps were skipped.
        best: Validation scores of the best checkpoint so far; empty before the first.
        waited: Evaluations since then.
        curves: Values written to the curves for the last step; empty if none were.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    curves: dict[str, float] = field(default_factory=dict)

    def advance(self, skipped: bool) -> None:
        """Count a step that was taken, or skipped."""
        self.step += 1
        self.step_in_epoch += 1
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0

    def end_epoch(self) -> None:
        """Count an epoch, with its evaluation."""
        self.epoch += 1
        self.step_in_epoch = 0

    def fit(self, epoch_steps: int, total_steps: int, changed: bool) -> bool:
        """See whether a training with epochs of so many steps comes by here.

        Args:
            epoch_steps: Steps of an epoch.
            total_steps: Steps of the whole training.
            changed: True if it may have been otherwise when the training began: then the epoch that is under way is
                that which the step is in now.

        Returns:
            True if the epoch that is under way has changed.

        Raises:
            ValueError: It does not.
        """
        if self.step_in_epoch <= epoch_steps and self.step == self.epoch * epoch_steps + self.step_in_epoch:
            return False
        if not changed or self.step > total_steps:
            raise ValueError(
                f"the run has taken {self.step} steps, {self.step_in_epoch} of them in epoch {self.epoch + 1}, but "
                f"with the data as they are now an epoch has {epoch_steps}, and the whole training {total_steps}. "
                "Choose another folder with --out; or, if there are steps left, give --resume changed to go on with "
                "the data as they are now"
            )
        self.epoch = max(0, self.step - 1) // epoch_steps
        self.step_in_epoch = self.step - self.epoch * epoch_steps
        return True


@dataclass
class SavedState:
    """All that a training goes on from.

    Attributes:
        run: How far it has come.
        weights: The whole model.
        optimizer: The whole state of the optimizer.
        scaler: The state of the gradient scaler; empty without one.
        confusion: (C, C) int64, of the images trained on in this epoch.
        callbacks: The states of the callbacks, in their order.
        average: The moving average of the weights; empty without one, and in older files.
        options: The options that the run was started with, by their dotted names; empty in older files.
        data: Fingerprints of the images by the names of splits, see `rmiseg.data.fingerprint`; likewise.
    """

    run: RunState
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    confusion: Tensor
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)


class StateFolder:
    """The newest states of a run, `step-N.pt`; two, so that one is left if the other is damaged.

    Args:
        path: The folder; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: SavedState) -> None:
        """Write a state, then remove the oldest. An error leaves the ones before as they are."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {**vars(state), "run": asdict(state.run)}
        write_content(self.path / f"step-{state.run.step:08d}.pt", FORMAT, content)
        for old in self.files()[KEPT:]:
            old.unlink()

    def load(self, console: Console) -> SavedState | None:
        """Read the newest state that can be read, None if there is none at all; say which cannot.

        Raises:
            ValueError: There are states, and none can be read.
        """
        files = self.files()
        for path in files:
            try:
                return _saved(path, read_content(path, FORMAT))
            except ValueError as error:
                console.print(f"warning: {error}; trying the one before", markup=False)
        if files:
            raise ValueError(
                f"none of the training states in {self.path} can be read. Nothing was touched; choose another folder "
                f"with --out, with --init {self.path.parents[1]} to start from the weights of its last checkpoint"
            )
        return None

    def files(self) -> list[Path]:
        """List the states, the newest first."""
        return sorted(self.path.glob("step-*.pt"), reverse=True)  # of eight digits each

    def remove(self) -> None:
        """Remove all states, and leftovers of a killed process, which are half written."""
        for path in [*self.files(), *leftovers(self.path)]:
            path.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):  # systems put files of their own there
            self.path.rmdir()


def _saved(path: Path, content: dict[str, Any]) -> SavedState:
    """The state that a file holds.

    Raises:
        ValueError: The content is not as it should be.
    """
    try:
        run = content.pop("run", None) or content.pop("position")  # its name in older files
        state = SavedState(run=RunState(**run), **content)
        check_types(replace(state, weights={}, average={}))
        check_tensors(state.weights)
        check_tensors(state.average)
        counters = ("epoch", "step", "step_in_epoch", "skipped", "skipped_in_a_row", "waited")
        if wrong := [name for name in counters if getattr(state.run, name) < 0]:
            raise ValueError(f"{wrong[0]} is {getattr(state.run, wrong[0])}, below 0")
        if not isinstance(state.confusion, Tensor) or state.confusion.ndim != 2:
            raise ValueError("the confusion matrix is none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no training state as it should be ({shortened(str(error))})") from error
    return state


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make the random numbers of a training step (dropout) a function of these three."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1))
