"""The training run, from top to bottom."""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.data import SegmentationDataset, balanced_weights, eval_loader, eval_transform, load_split, train_loader
from rmiseg.evaluation.evaluate import Evaluation, evaluate_model
from rmiseg.evaluation.metrics import Scores
from rmiseg.evaluation.scoring import save_validation
from rmiseg.inference.checkpoint import BEST, CHECKPOINTS, LAST, Checkpoint, CheckpointFolder
from rmiseg.runtime.device import peak_memory, tune
from rmiseg.runtime.distributed import (
    full_state,
    full_weights,
    is_main,
    load_full_state,
    on_main,
    processes,
    rank,
    shard,
    world_size,
)
from rmiseg.runtime.files import replacing, to_json
from rmiseg.runtime.signals import Preempted, TerminationRequest
from rmiseg.training.curves import Curves
from rmiseg.training.optim import learning_rate, set_learning_rate
from rmiseg.training.progress import training_progress
from rmiseg.training.recipe import complete, make_learner, make_model, train_dataset
from rmiseg.training.run_folder import DIVERGED_FILE, RESULT_FILE, RunResult, finished_result, open_run_folder
from rmiseg.training.state import STATES, Position, StateFolder, TrainingState, seed_step
from rmiseg.training.step import Criterion, StepOutcome, grouped, train_step


def train(config: TrainConfig, console: Console) -> RunResult:
    """Train as `config` says, into the folder `config.out`; in all processes that torchrun started, if it did.

    The folder gets config.yaml (everything that was asked for), checkpoints/, TensorBoard's event files, and at the end
    result.json.

    Raises:
        ValueError, OSError: Anything wrong with the configuration or the data, with what to do about it.
        FloatingPointError: The loss is not finite, many steps in a row.
        Preempted: SIGTERM arrived; the run was saved, and `resume="auto"` goes on with it.
    """
    with processes(config.device) as device, TerminationRequest() as request, ExitStack() as stack:
        return _train(config, console if is_main() else Console(quiet=True), device, request, stack)


def _train(
    config: TrainConfig, console: Console, device: torch.device, request: TerminationRequest, stack: ExitStack
) -> RunResult:
    config = complete(config)
    if config.resume == "auto" and (finished := on_main(lambda: finished_result(config))) is not None:
        console.print(f"The run in {config.out} is finished", markup=False)
        return finished
    tune(device)
    torch.manual_seed(config.seed)

    train_split, val_split = on_main(
        lambda: [
            load_split(config.data.name, config.data.root, name)
            for name in (config.data.train_split, config.data.val_split)
        ]
    )
    classes = train_split.classes
    if config.loss.class_weights == "balanced":
        weights = on_main(lambda: balanced_weights(train_split, config.data.workers, console))
        config = replace(config, loss=replace(config.loss, class_weights=weights))
    loading: dict[str, Any] = {
        "workers": config.data.workers,
        "rank": rank(),
        "world_size": world_size(),
        "on_error": config.data.on_error,
        "warn": partial(_warn, console),
        "outlive_termination": True,
    }
    batches = train_loader(
        train_dataset(train_split, config.data),
        batch_size=config.data.batch_size,
        seed=config.seed,
        **loading,
    )
    val_batches = eval_loader(SegmentationDataset(val_split, eval_transform(config.data.image_scale)), **loading)
    for loader in (batches, val_batches):
        stack.callback(loader.close)
    epochs, epoch_steps, total_steps = _length(config, len(batches))

    model = make_model(config, len(classes), device, console)
    # What is scored: a divided model cannot be, since the processes need it for different numbers of images.
    whole_model = copy.deepcopy(model) if config.train.strategy == "fsdp" else model
    learner = make_learner(config, model, Criterion(config.loss, len(classes), total_steps), device)

    out, states = Path(config.out), StateFolder(Path(config.out) / CHECKPOINTS / STATES)
    state = on_main(lambda: open_run_folder(config, states, stack, console))
    position = Position()
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)
    if state is not None:
        position = state.position
        load_full_state(model, learner.optimizer, state.weights, state.optimizer)
        learner.scaler.load_state_dict(state.scaler)
        confusion.copy_(state.confusion)
        console.print(f"Going on after step {position.step}")
    checkpoints = CheckpointFolder(out / CHECKPOINTS, config.train.keep, position.best)
    shown = [sample.name for sample in shard(val_split.samples)]
    curves = Curves(out if is_main() else None, classes, shown, config.train.panels, position.step if state else None)
    curves.add_training(position.step, position.curves)  # what follows replaces all that was written for this step
    console.print(
        f"Training {config.model} and the {config.loss.name} loss: {len(train_split.samples)} images, "
        f"{len(classes)} classes, {total_steps} steps ({epochs} epochs) on {device}"
        + (f", {world_size()} processes ({config.train.strategy})" if world_size() > 1 else "")
    )

    def save_state() -> None:
        weights, optimizer_state = full_state(model, learner.optimizer)
        if is_main():
            curves.flush()
            content = TrainingState(position, weights, optimizer_state, learner.scaler.state_dict(), confusion)
            with _going_on_without(console):
                states.save(content)

    step_seconds = []
    validations: dict[str, tuple[int, Evaluation]] = {}
    images_per_step = config.data.batch_size * config.train.accumulate
    with training_progress(console, total_steps, position.step, images_per_step) as progress:
        while position.epoch < epochs:
            epoch, first = position.epoch, position.step_in_epoch
            batches.set_epoch(epoch, first * config.train.accumulate)
            model.train()
            left = min(epoch_steps, total_steps - epoch * epoch_steps) - first
            for group in progress.waiting(islice(grouped(batches, config.train.accumulate), left)):
                set_learning_rate(learner.optimizer, learning_rate(position.step, total_steps, config.optim))
                seed_step(config.seed, position.step, rank())
                started = time.perf_counter()
                outcome = train_step(learner, group, position.step)
                step_seconds.append(time.perf_counter() - started)
                position.advance(outcome.skipped)
                if outcome.skipped:
                    _report_skipped(position, outcome, config, states, console)
                else:
                    confusion += outcome.confusion
                train_scores = Scores.from_confusion(confusion)
                progress.advance(epoch, outcome.parts["loss"], train_scores.mean_iou)
                position.curves = {}
                if position.step % config.train.log_every == 0:
                    position.curves = {
                        **outcome.parts,
                        "learning_rate": learner.optimizer.param_groups[0]["lr"],
                        "mIoU": train_scores.mean_iou,
                        "pixel_accuracy": train_scores.pixel_accuracy,
                        "skipped_steps": position.skipped,
                        "data_wait": progress.wait_share,
                    }
                    curves.add_training(position.step, position.curves)
                if request.agreed(device):
                    save_state()
                    raise Preempted
                if config.train.checkpoint_every and position.step % config.train.checkpoint_every == 0:
                    save_state()

            last_epoch, evaluation = epoch == epochs - 1, None
            weights = full_weights(model)
            if whole_model is not model:
                whole_model.load_state_dict(weights)
            if not config.train.checkpoint_every or position.step % config.train.checkpoint_every:
                save_state()
            with request.at_once():  # nothing is lost: what follows is done again
                if last_epoch or (epoch + 1) % config.train.val_every == 0:
                    evaluation = evaluate_model(
                        whole_model,
                        progress.validating(val_batches),
                        len(classes),
                        device,
                        on_batch=partial(curves.add_picture, position.step),
                    )
                    curves.add_evaluation(position.step, evaluation)
                checkpoint = Checkpoint(
                    weights=weights,
                    model=config.model,
                    data=config.data,
                    classes=classes,
                    step=position.step,
                    scores=evaluation.summary() if evaluation else {},
                    architecture=model.architecture,
                    align_corners=config.loss.align_corners,
                )
                if is_main():
                    with nullcontext() if last_epoch else _going_on_without(console):
                        is_best = checkpoints.save(checkpoint)
                        if evaluation:
                            validations |= dict.fromkeys([LAST, *[BEST] * is_best], (position.step, evaluation))
            position.best = checkpoints.best
            progress.end_epoch(epoch, evaluation)
            position.end_epoch()
            confusion.zero_()
    curves.close()

    seconds = statistics.median(step_seconds) if step_seconds else math.nan
    result = RunResult(position.step, seconds, peak_memory(device), checkpoint.scores, checkpoints.best)
    if is_main():
        for name, (step, evaluation) in validations.items():
            save_validation(out / CHECKPOINTS / name, step, val_split, config.data, evaluation)
        with replacing(out / RESULT_FILE) as temporary:
            temporary.write_text(to_json(asdict(result)))
        states.remove()
    best = checkpoints.best
    score = f"Best mIoU {best['mean_iou']:.2%}." if best else "No pixel of the validation split could be scored."
    console.print(f"{score} Checkpoints, curves and configuration are in {out}", markup=False)
    return result


def _length(config: TrainConfig, batches: int) -> tuple[int, int, int]:
    """Epochs, steps of an epoch, and steps of the whole run."""
    epoch_steps = math.ceil(batches / config.train.accumulate)
    total_steps = config.train.steps or config.train.epochs * epoch_steps
    if config.optim.slow_start_steps >= total_steps:
        raise ValueError(
            f"optim.slow_start_steps is {config.optim.slow_start_steps}, but the whole training has {total_steps} steps"
        )
    return math.ceil(total_steps / epoch_steps), epoch_steps, total_steps


def _report_skipped(
    position: Position, outcome: StepOutcome, config: TrainConfig, states: StateFolder, console: Console
) -> None:
    """Say which step was skipped.

    Raises:
        FloatingPointError: As many as `train.max_skipped` in a row; the folder of the run says so, too.
    """
    what = f"loss {outcome.parts['loss']}" if outcome.suspects else "the gradient is not finite"
    names = f", on the images {', '.join(outcome.suspects)}" if outcome.suspects else ""
    console.print(f"warning: step {position.step} skipped: {what}{names}", markup=False)
    if position.skipped_in_a_row >= config.train.max_skipped:
        saved = states.files()
        message = (
            f"loss or gradient was not finite in {config.train.max_skipped} steps in a row, up to step "
            f"{position.step}; the training has diverged. A lower optim.lr, a longer optim.slow_start_steps, or "
            "train.precision bf16 or fp32 in place of fp16 helps. "
            + (f"The last saved state is {saved[0]}" if saved else "Nothing has been saved yet")
        )
        if is_main():
            with replacing(Path(config.out) / DIVERGED_FILE) as temporary:
                temporary.write_text(message + "\n")
        raise FloatingPointError(message)


@contextmanager
def _going_on_without(console: Console) -> Iterator[None]:
    """A file that cannot be written is no reason to stop a training while the one before it is whole."""
    try:
        yield
    except OSError as error:
        console.print(f"warning: {error}. The training goes on; the file before it is whole", markup=False)


def _warn(console: Console, message: str) -> None:
    if is_main():
        console.print(f"warning: {message}", markup=False)
    else:
        print(f"warning: {message}", file=sys.stderr)
