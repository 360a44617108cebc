"""One training run, from top to bottom."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import islice
from typing import Any, NoReturn

import torch
from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.config.registry import loss_title
from rmiseg.data import Batch
from rmiseg.evaluation.evaluate import Evaluation, evaluate_model
from rmiseg.evaluation.metrics import Scores
from rmiseg.evaluation.scoring import save_validation
from rmiseg.inference.checkpoint import BEST, LAST, Checkpoint
from rmiseg.runtime.device import peak_memory
from rmiseg.runtime.distributed import (
    full_state,
    gather,
    is_main,
    load_full_state,
    on_main,
    rank,
    world_size,
)
from rmiseg.runtime.signals import Preempted, TerminationRequest
from rmiseg.runtime.tensor_files import first_sentence, not_finite
from rmiseg.runtime.words import counted
from rmiseg.training.assembly import make_loaders, make_model, make_step, with_class_weights
from rmiseg.training.average import ScoredModel
from rmiseg.training.budget import Budget
from rmiseg.training.callbacks import Callback
from rmiseg.training.checkpoint_folder import CheckpointFolder
from rmiseg.training.criterion import Criterion
from rmiseg.training.curves import RunCurves, open_loggers
from rmiseg.training.parts import Parts
from rmiseg.training.progress import TrainingProgress, training_progress
from rmiseg.training.run_folder import RunFolder, RunResult, going_on_without
from rmiseg.training.schedule import learning_rate, set_learning_rate, training_length
from rmiseg.training.state import RunState, SavedState, seed_step
from rmiseg.training.step import StepInFlight, StepOutcome, grouped


class TrainingRun:
    """A training under way, in each of its processes.

    Args:
        config: The options, complete.
        parts: What they leave to objects.
        device: Where to compute.
        request: Says whether the process was asked to end.
        stack: Closed when the run ends, however it does.
        console: Where to show what is going on.

    Attributes:
        config: See above.
        out: Folder of the run.
        device: See above.
        classes: Names and colors of the C classes.
        model: The bare model.
        step: Takes an optimizer step; its parts are the network as it is called, criterion, optimizer and scaler.
        state: How far the training has come.
        curves: Logs numbers by their names, see `RunCurves.add`.
        reads_late: True if the outcome of a step is read when the next one is under way.
        asked_to_end: True once a process was, as all have heard.
        budget: Hours that it has, if it was given some.
    """

    def __init__(
        self,
        config: TrainConfig,
        parts: Parts,
        device: torch.device,
        request: TerminationRequest,
        stack: ExitStack,
        console: Console,
    ) -> None:
        self.parts, self.device, self.request, self.console = parts, device, request, console
        self.classes = parts.train.classes
        asked, config = config, with_class_weights(config, parts.train, console)
        self.config = config
        torch.manual_seed(config.seed)
        self.batches, self.val_batches = make_loaders(config.data, config.seed, parts, partial(_warn, console), console)
        for loader in (self.batches, self.val_batches):
            stack.callback(loader.close)
        self.epochs, self.epoch_steps, self.total_steps = training_length(config, len(self.batches))
        self.folder = RunFolder(config, asked)
        self.out = self.folder.path
        built = on_main(self.folder.to_build)
        self.model = make_model(built, len(self.classes), device, console, parts.model, self.classes.names)
        if (found := not_finite(self.model.state_dict())) is not None:
            raise ValueError(f"the weights that the training would begin with are not finite: {found}")
        self.scored = ScoredModel(self.model, config.train)
        criterion = Criterion(config.loss, len(self.classes), self.total_steps, parts.loss)
        # Apart from the one for training, which may be compiled: images to score come in many sizes.
        self.val_criterion = Criterion(config.loss, len(self.classes), self.total_steps, parts.loss)
        self.step = make_step(config, self.model, criterion, device)
        self.confusion = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64, device="cpu")
        heard = any(type(callback).on_step_end is not Callback.on_step_end for callback in parts.callbacks)
        self.reads_late = device.type == "cuda" and not heard
        self.state = RunState()
        self.stopped = self.asked_to_end = False
        self.budget: Budget | None = None
        self.step_seconds: list[float] = []
        self.validations: dict[str, tuple[int, Evaluation]] = {}
        self._open_folder(stack)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self.step.optimizer

    def stop(self) -> None:
        """End the training after the epoch that is under way; in all processes, if one says so."""
        self.stopped = True

    def train(self) -> RunResult:
        """Train to the end."""
        images_per_step = self.config.data.batch_size * self.config.train.accumulate
        shown = training_progress(self.console, self.total_steps, self.state.step, images_per_step)
        with self.folder.watched(), self.folder.interruptible(self.console), shown as progress:
            self._call("on_fit_start")
            while self.state.epoch < self.epochs and not self.stopped:
                self._train_epoch(progress)
                self.stopped = any(gather(self.stopped))
                if not self._saves_after(self.state.step):
                    self._save_state()
                with self.request.at_once():  # nothing is lost: what follows is done again
                    evaluation = self._validate(progress)
                    checkpoint = self._save_checkpoint(evaluation)
                self._end_epoch(progress, evaluation)
                self.stopped = any(gather(self.stopped))
        return self._finish(checkpoint)

    def _open_folder(self, stack: ExitStack) -> None:
        """Begin, or go on where an earlier process ended."""
        config, folder = self.config, self.folder
        saved = on_main(lambda: folder.open(stack, self.console, self.parts.train, self.parts.val))
        if saved is not None:
            self._take_back(saved)
        self.checkpoints = CheckpointFolder(folder.checkpoints, config.train.keep, self.state.best)
        if lost := on_main(self.checkpoints.forget_lost):
            self.console.print(f"warning: {lost}", markup=False)
        from_step = self.state.step if saved is not None else None
        loggers = open_loggers(self.parts.loggers, config, from_step) if is_main() else []
        names = self.parts.val.names[rank() :: world_size()]
        self.curves = RunCurves(loggers, self.classes, names, config.train.panels, self.parts.val.bands)
        stack.callback(self._close_curves)
        # It follows what replaces all that was written for this step.
        self.curves.add_training(self.state.step, self.state.curves)
        several = f", {world_size()} processes ({config.train.strategy})" if world_size() > 1 else ""
        loss = loss_title(config.loss.name, config.loss.plus)
        self.console.print(
            f"Training {config.model} and the {loss} loss: {counted(len(self.parts.train), 'image')}, "
            f"{len(self.classes)} classes, {counted(self.total_steps, 'step')} ({counted(self.epochs, 'epoch')}) on "
            f"{self.device}{several}",
            markup=False,
        )

    def _close_curves(self) -> None:
        with self.folder.watched():
            self.curves.close()

    def _take_back(self, saved: SavedState) -> None:
        """Go on from a state.

        Raises:
            ValueError: It is not of this network, or the number of images has changed.
        """
        self.state = saved.run
        try:
            load_full_state(self.model, self.optimizer, saved.weights, saved.optimizer)
            self.scored.load_state_dict(saved.average)
            self.step.scaler.load_state_dict(saved.scaler)
            self.confusion.copy_(saved.confusion)
        except Exception as error:  # of whatever does not fit
            raise ValueError(
                f"the training states in {self.folder.states.path} are not of this network and optimizer: "
                f"{first_sentence(error)}"
            ) from error
        if self.state.fit(self.epoch_steps, self.total_steps, self.config.resume == "changed"):
            self.confusion.zero_()
        for callback, state in zip(self.parts.callbacks, saved.callbacks):
            callback.load_state_dict(state)
        self.console.print(f"Going on after step {self.state.step}")

    def _train_epoch(self, progress: TrainingProgress) -> None:
        """Take the steps of an epoch that are left of it."""
        config, state = self.config, self.state
        self.batches.set_epoch(state.epoch, state.step_in_epoch * config.train.accumulate)
        self.model.train()
        self._call("on_epoch_start")
        left = min(self.epoch_steps, self.total_steps - state.epoch * self.epoch_steps) - state.step_in_epoch
        groups = progress.waiting(islice(grouped(self.batches, config.train.accumulate), left))
        for outcome in self._outcomes(groups):
            state.advance(outcome.skipped)
            if outcome.skipped:
                self._report_skipped(outcome)
            else:
                self.confusion += outcome.confusion
            scores = Scores.from_confusion(self.confusion)
            progress.advance(state.epoch, outcome.parts["loss"], scores.mean_iou, scores.scope)
            self._log(outcome, scores, progress.wait_share)
            self._call("on_step_end", outcome)
            if self.budget and (late := self.budget.follow(state.step)):
                self.console.print(late, markup=False)
            if self._saves_after(state.step):
                self._save_state()
        if self.asked_to_end:
            if not self._saves_after(state.step):
                self._save_state()
            raise Preempted

    def _outcomes(self, groups: Iterator[list[Batch]]) -> Iterator[StepOutcome]:
        """Take a step on each group of batches, until the process is asked to end; the outcome of each.

        A GPU is given its next step before it is asked for the outcome of the one before, for which it would have to
        wait. Where a callback wants to see the model after every step, and where the state is saved, it does wait.
        """
        late: deque[StepInFlight] = deque()
        while not self.asked_to_end and (group := next(groups, None)) is not None:
            started = time.perf_counter()
            step = self.state.step + len(late)
            set_learning_rate(self.optimizer, learning_rate(step, self.total_steps, self.config.optim))
            seed_step(self.config.seed, step, rank())
            late.append(self.step.launch(group, step, lambda: self.request.received))
            self.scored.follow(step + 1)
            may_wait = 1 if self.reads_late and not self._saves_after(step + 1) else 0
            outcomes = [late.popleft().outcome() for _ in range(len(late) - may_wait)]
            self.step_seconds.append(time.perf_counter() - started)
            for outcome in outcomes:
                self.asked_to_end |= outcome.stop
                yield outcome
        while late:
            yield late.popleft().outcome()

    def _saves_after(self, step: int) -> bool:
        every = self.config.train.checkpoint_every
        return every is not None and step % every == 0

    def _log(self, outcome: StepOutcome, scores: Scores, data_wait: float) -> None:
        self.state.curves = {}
        if self.state.step % self.config.train.log_every == 0:
            rate = learning_rate(self.state.step - 1, self.total_steps, self.config.optim)
            self.state.curves = {
                **outcome.parts,
                "learning_rate": rate * self.optimizer.param_groups[0]["lr_factor"],
                "mIoU": scores.mean_iou,
                "pixel_accuracy": scores.pixel_accuracy,
                "skipped_steps": self.state.skipped,
                "data_wait": data_wait,
            }
            self.curves.add_training(self.state.step, self.state.curves)

    def _validate(self, progress: TrainingProgress) -> Evaluation | None:
        """Score the model, if it is time to."""
        if not self._is_last_epoch and (self.state.epoch + 1) % self.config.train.val_every:
            return None
        evaluation = evaluate_model(
            self.scored.current(),
            progress.validating(self.val_batches),
            len(self.classes),
            on_batch=partial(self.curves.add_picture, self.state.step),
            metrics=self.config.train.metrics,
            loss=partial(self.val_criterion.of_image, step=self.state.step),
            dtype=self.step.dtype,
        )
        self.curves.add_evaluation(self.state.step, evaluation)
        self._call("on_validation_end", evaluation)
        return evaluation

    @property
    def _is_last_epoch(self) -> bool:
        return self.stopped or self.state.epoch == self.epochs - 1

    def _save_checkpoint(self, evaluation: Evaluation | None) -> Checkpoint:
        """Write what evaluation and prediction need."""
        checkpoint = Checkpoint(
            weights=self.scored.weights(),
            model=self.config.model,
            data=self.config.data,
            classes=self.classes,
            step=self.state.step,
            scores=evaluation.summary() if evaluation else {},
            architecture=self.model.architecture,
            align_corners=self.model.align_corners,
            made_with=tuple(self.config.made_with),
        )
        if is_main():
            self.folder.check_there()
            with nullcontext() if self._is_last_epoch else going_on_without(self.console):
                is_best = self.checkpoints.save(checkpoint)
                if evaluation:
                    names = [LAST, *[BEST] * is_best]
                    self.validations |= dict.fromkeys(names, (self.state.step, evaluation))
        return checkpoint

    def _save_state(self) -> None:
        """Write what an interrupted training goes on from."""
        weights, optimizer_state = full_state(self.model, self.optimizer)
        if (found := not_finite(weights)) is not None:
            self._diverge(f"after step {self.state.step} the weights are not finite ({found})")
        if is_main():
            self.folder.check_there()
            self.curves.flush()
            callbacks = [callback.state_dict() for callback in self.parts.callbacks]
            scaler = self.step.scaler.state_dict()
            average = self.scored.state_dict()
            content = SavedState(self.state, weights, optimizer_state, scaler, self.confusion, callbacks, average)
            with going_on_without(self.console):
                self.folder.save_state(content)

    def _end_epoch(self, progress: TrainingProgress, evaluation: Evaluation | None) -> None:
        if evaluation and is_main():
            self.state.waited = 0 if self.state.best != self.checkpoints.best else self.state.waited + 1
            if self.state.waited >= (self.config.train.patience or math.inf):
                self.console.print(f"No better mIoU in {self.state.waited} evaluations: the training ends here")
                self.stop()
        self.state.best = self.checkpoints.best
        progress.end_epoch(self.state.epoch, evaluation)
        self.state.end_epoch()
        self.confusion.zero_()
        self._call("on_epoch_end")

    def _finish(self, checkpoint: Checkpoint) -> RunResult:
        """Write what is left to write once the last epoch is over."""
        self.curves.close()
        seconds = statistics.median(self.step_seconds) if self.step_seconds else math.nan
        memory = peak_memory(self.device)
        # Of a run that went on, the best may be from before; its classes are those of the last.
        validation = self.validations.get(BEST) or self.validations.get(LAST)
        scope = validation[1].everywhere.scope if validation else ""
        best = self.checkpoints.best
        result = RunResult(self.out, self.state.step, seconds, memory, checkpoint.scores, best, scope)
        if is_main():
            # `rmiseg evaluate` computes in float32: other scores are none that it could have found.
            for name, (step, evaluation) in self.validations.items() if self.step.dtype is None else ():
                path = self.folder.checkpoints / name
                save_validation(path, step, self.parts.val, self.config.data, evaluation)
            self.folder.finish(result)
        nothing = "No pixel of the validation split could be scored."
        score = f"Best mIoU {best['mean_iou']:.2%}{scope}." if best else nothing
        self.console.print(f"{score} Checkpoints, curves and configuration are in {self.out}", markup=False)
        self._call("on_fit_end", result)
        return result

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self.parts.callbacks:
            getattr(callback, hook)(self, *arguments)

    def _report_skipped(self, outcome: StepOutcome) -> None:
        """Say which step was skipped.

        Raises:
            FloatingPointError: As many as `train.max_skipped` in a row; the folder of the run says so, too.
        """
        state, most = self.state, self.config.train.max_skipped
        reason = f"loss {outcome.parts['loss']}" if outcome.suspects else "the gradient is not finite"
        names = f", on the images {', '.join(outcome.suspects)}" if outcome.suspects else ""
        self.console.print(f"warning: step {state.step} skipped: {reason}{names}", markup=False)
        if state.skipped_in_a_row < most:
            return
        self._diverge(f"loss or gradient was not finite in {most} steps in a row, up to step {state.step}")

    def _diverge(self, reason: str) -> NoReturn:
        saved = self.folder.states.files()
        message = (
            f"{reason}; the training has diverged. A lower optim.lr, a longer optim.warmup_steps, or train.precision "
            "bf16 or fp32 in place of fp16 helps. "
            f"{f'The last saved state is {saved[0]}' if saved else 'Nothing has been saved yet'}"
        )
        if is_main():
            self.folder.diverged(message)
        raise FloatingPointError(message)


def _warn(console: Console, message: str) -> None:
    if is_main():
        console.print(f"warning: {message}", markup=False)
    else:
        print(f"warning: {message}", file=sys.stderr)
