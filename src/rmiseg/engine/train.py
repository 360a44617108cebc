"""The training run, from top to bottom."""

from __future__ import annotations

import copy
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import yaml
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rmiseg.config import DataConfig, LossConfig, TrainConfig
from rmiseg.data import (
    Batch,
    SegmentationDataset,
    Split,
    balanced_weights,
    eval_loader,
    eval_transform,
    load_split,
    train_loader,
    train_transform,
)
from rmiseg.data.transforms import normalize
from rmiseg.engine.checkpoint import CHECKPOINTS, Checkpoint, CheckpointFolder, load_checkpoint
from rmiseg.engine.curves import Curves
from rmiseg.engine.device import peak_memory, tune
from rmiseg.engine.distributed import (
    add_up,
    average_buffers,
    distribute,
    full_state,
    full_weights,
    gather,
    gradients_stay,
    is_main,
    load_full_state,
    on_main,
    processes,
    rank,
    shard,
    synchronize_norm,
    world_size,
)
from rmiseg.engine.evaluate import evaluate
from rmiseg.engine.metrics import Scores, confusion_matrix
from rmiseg.engine.optim import HEAD_LR_FACTORS, build_optimizer, learning_rate, set_learning_rate
from rmiseg.engine.progress import training_progress
from rmiseg.engine.state import (
    STATES,
    Position,
    Preempted,
    StateFolder,
    TerminationRequest,
    TrainingState,
    seed_step,
)
from rmiseg.files import locked, replacing, to_json
from rmiseg.losses import AffinityLoss, build_loss
from rmiseg.models import DEFAULT_BACKBONE, DEFAULT_OUTPUT_STRIDE, MODELS, build_model, set_norm_momentum
from rmiseg.models.base import SegmentationModel

CONFIG_FILE, RESULT_FILE, LOCK_FILE = "config.yaml", "result.json", ".lock"

CHANGEABLE = {
    *("out", "resume", "device", "data.root", "data.workers", "train.strategy", "train.compile"),
    *("train.val_every", "train.log_every", "train.panels", "train.keep", "train.checkpoint_every"),
    *("train.max_skipped", "data.on_error"),
}
"""Options that may change when a run goes on: the others make another training of it."""


@dataclass(frozen=True)
class RunResult:
    """What `result.json` in a run's folder holds once the run is over.

    Attributes:
        steps: Optimizer steps taken.
        seconds_per_step: Median time of a step, without loading data.
        peak_memory: Most memory held at once, in bytes: of the GPU, or of the whole process on a CPU.
        last: Validation scores at the end, by name.
        best: Validation scores of the best checkpoint.
    """

    steps: int
    seconds_per_step: float
    peak_memory: int
    last: dict[str, float]
    best: dict[str, float]


@dataclass
class Learner:
    """What a training step works with.

    Attributes:
        model: The bare model.
        network: What to call in its place: the same, wrapped for several processes and compiled as configured.
        criterion: The loss.
        optimizer: The optimizer over the model's parameters.
        scaler: The gradient scaler; it does nothing but with float16.
        dtype: Type of the network's arithmetic under autocast; None without autocast.
        device: Where to compute.
    """

    model: nn.Module
    network: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    dtype: torch.dtype | None
    device: torch.device


class StepOutcome(NamedTuple):
    """What came of a step, the same in all processes.

    Attributes:
        parts: The loss with its parts.
        confusion: (C, C) int64, at the model's stride.
        skipped: Whether the step was not taken, because loss or gradient is not finite.
        suspects: Names of the images of the batches whose loss is not finite, if it was skipped.
    """

    parts: dict[str, float]
    confusion: Tensor
    skipped: bool
    suspects: list[str]


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
    if config.resume == "auto" and (finished := on_main(lambda: _finished(config))) is not None:
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
    state = on_main(lambda: _open_run_folder(config, states, stack, console))
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
                    _report_skipped(position, outcome, config.train.max_skipped, states, console)
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
                    evaluation = evaluate(
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
                        checkpoints.save(checkpoint)
            position.best = checkpoints.best
            progress.end_epoch(epoch, evaluation)
            position.end_epoch()
            confusion.zero_()
    curves.close()

    seconds = statistics.median(step_seconds) if step_seconds else math.nan
    result = RunResult(position.step, seconds, peak_memory(device), checkpoint.scores, checkpoints.best)
    if is_main():
        with replacing(out / RESULT_FILE) as temporary:
            temporary.write_text(to_json(asdict(result)))
        states.remove()
    best = checkpoints.best
    score = f"Best mIoU {best['mean_iou']:.2%}." if best else "No pixel of the validation split could be scored."
    console.print(f"{score} Checkpoints, curves and configuration are in {out}", markup=False)
    return result


def train_step(learner: Learner, batches: list[Batch], step: int) -> StepOutcome:
    """One optimizer step, on one or several batches in each process."""
    model, device = learner.model, learner.device
    targets = [batch["mask"].to(device, non_blocking=True) for batch in batches]
    # What the loss is divided by is that of all batches in all processes together, however many of their pixels do not
    # count. With sums that are already divided, gradients add up: hence world_size, against the mean that follows.
    counts = [sum(each) for each in zip(*map(learner.criterion.counts, targets))]
    add_up(*counts)
    totals: dict[str, float] = {}
    confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64, device=device)
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    buffers_before = [buffer.clone() for buffer in buffers]
    suspects: list[str] = []
    learner.optimizer.zero_grad(set_to_none=True)
    for number, (batch, target) in enumerate(zip(batches, targets), start=1):
        images = normalize(batch["image"].to(device, non_blocking=True), model.image_mean, model.image_std)
        with gradients_stay(learner.network, number < len(batches)):
            with torch.autocast(device.type, learner.dtype, enabled=learner.dtype is not None):
                output = learner.network(images.contiguous(memory_format=torch.channels_last))
            logits, auxiliary_logits = output if isinstance(output, tuple) else (output, None)
            loss, parts = learner.criterion(logits, auxiliary_logits, target, counts, step)
            learner.scaler.scale(loss * world_size()).backward()
        if not math.isfinite(parts["loss"]):
            suspects += batch["name"]
        confusion += _coarse_confusion(logits.detach(), target, len(confusion))
        for name, part in parts.items():
            share = 1 if name == "loss" else 1 / (len(batches) * world_size())  # the other parts are means of a batch
            totals[name] = totals.get(name, 0.0) + share * part
    values = torch.tensor(list(totals.values()), dtype=torch.float64)
    if device.type == "cuda":
        values = values.to(device)
    add_up(values, confusion)
    totals = dict(zip(totals, values.tolist()))

    finite = math.isfinite(totals["loss"]) and (learner.scaler.is_enabled() or _gradient_is_finite(model))
    if finite or learner.scaler.is_enabled():  # which looks at the gradients itself, and scales less the next time
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
    if finite:
        average_buffers(model)
    else:
        for buffer, before in zip(buffers, buffers_before):
            buffer.copy_(before)  # batch norm's statistics may be spoiled, too
        suspects = [name for names in gather(suspects) for name in names]
    return StepOutcome(totals, confusion, not finite, suspects)


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last may be shorter."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


class Criterion:
    """The loss of a training run, and cross entropy beside it for a model with an auxiliary head."""

    def __init__(self, config: LossConfig, num_classes: int, total_steps: int) -> None:
        options: dict[str, dict[str, Any]] = {
            "rmi": asdict(config.rmi),
            "pyramid": asdict(config.pyramid),
            "affinity": {**asdict(config.affinity), "max_steps": total_steps},
        }
        common = {
            "num_classes": num_classes,
            "align_corners": config.align_corners,
            "class_weights": config.class_weights,
        }
        self.loss = build_loss(config.name, **common, **options.get(config.name, {}))
        self.auxiliary_loss = build_loss("ce", **common)
        self.auxiliary_weight = config.aux_weight

    def compile(self) -> None:
        """Let torch.compile make the loss faster."""
        self.loss.terms = torch.compile(self.loss.terms)  # type: ignore[method-assign]

    def counts(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss and the auxiliary loss are divided by; those of several batches add up."""
        return self.loss.counts(target), self.auxiliary_loss.counts(target)

    def __call__(
        self, logits: Tensor, auxiliary_logits: Tensor | None, target: Tensor, counts: Sequence[Tensor], step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """The share of one batch in the loss to differentiate, and for logging its value and what it is made of."""
        schedule = {"step": step} if isinstance(self.loss, AffinityLoss) else {}
        terms = self.loss.terms(logits, target)
        loss, parts = self.loss.combine(terms.sums, counts[0], **schedule), dict(terms.parts)
        if auxiliary_logits is not None:
            auxiliary = self.auxiliary_loss.terms(auxiliary_logits, target)
            loss = loss + self.auxiliary_weight * self.auxiliary_loss.combine(auxiliary.sums, counts[1])
            parts["auxiliary"] = auxiliary.parts["pixel"]
        return loss, {name: part.item() for name, part in {"loss": loss, **parts}.items()}


def _initialize(model: nn.Module, path: str, console: Console) -> None:
    """Load what fits of a checkpoint's weights, and say what does not."""
    weights, own = load_checkpoint(path).weights, model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ValueError(f"init: no weights of {path} fit the model; is it another architecture or backbone?")
    model.load_state_dict(fitting, strict=False)
    console.print(f"Initial weights from {path}: {len(fitting)} of {len(own)} tensors")
    for title, names in (
        ("Not in the checkpoint, or of another shape there", [name for name in own if name not in fitting]),
        ("In the checkpoint alone", [name for name in weights if name not in own]),
    ):
        if names:
            console.print(f"{title}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}")


def train_dataset(split: Split, config: DataConfig) -> SegmentationDataset:
    """The training images with their augmentation.

    Where even the largest random scale leaves half of an image's size or less, images are read at half the size; so on
    for a fourth and an eighth. Decoding is most of the work with large photographs.
    """
    largest = config.image_scale * config.scale_range[1]
    reduction = next(factor for factor in (8, 4, 2, 1) if factor == 1 or factor * largest <= 1)
    augmentation = train_transform(
        config.crop_size,
        image_scale=config.image_scale * reduction,
        scale_range=config.scale_range,
        scale_step=config.scale_step,
        flip=config.flip,
        color_jitter=config.color_jitter,
    )
    return SegmentationDataset(split, augmentation, reduction)


def complete(config: TrainConfig) -> TrainConfig:
    """Fill in what depends on other options, and check what can be checked without data."""
    for name, value in (("seed", config.seed), ("train.panels", config.train.panels)):
        if not 0 <= value < 2**32:
            raise ValueError(f"{name} must be 0 or more, and below 2^32, not {value}")
    for name in ("epochs", "steps", "accumulate", "val_every", "log_every", "checkpoint_every", "max_skipped"):
        value = getattr(config.train, name)
        if value is not None and value < 1:
            raise ValueError(f"train.{name} must be at least 1, not {value}")
    if config.data.root:  # absolute, so that the run can be evaluated from any folder
        config = replace(config, data=replace(config.data, root=str(Path(config.data.root).absolute())))
    if config.model.name in MODELS:
        model_config = replace(
            config.model,
            backbone=config.model.backbone or DEFAULT_BACKBONE,
            output_stride=config.model.output_stride or DEFAULT_OUTPUT_STRIDE,
        )
        config = replace(config, model=model_config)
    if config.optim.head_lr_factor is None:
        factor = HEAD_LR_FACTORS.get(config.model.name, max(HEAD_LR_FACTORS.values()))
        config = replace(config, optim=replace(config.optim, head_lr_factor=factor))
    return config


def _length(config: TrainConfig, batches: int) -> tuple[int, int, int]:
    """Epochs, steps of an epoch, and steps of the whole run."""
    epoch_steps = math.ceil(batches / config.train.accumulate)
    total_steps = config.train.steps or config.train.epochs * epoch_steps
    if config.optim.slow_start_steps >= total_steps:
        raise ValueError(
            f"optim.slow_start_steps is {config.optim.slow_start_steps}, but the whole training has {total_steps} steps"
        )
    return math.ceil(total_steps / epoch_steps), epoch_steps, total_steps


def make_model(config: TrainConfig, num_classes: int, device: torch.device, console: Console) -> SegmentationModel:
    """Build the model, load initial weights, and prepare its norm layers as configured."""
    model = build_model(num_classes=num_classes, **asdict(config.model))
    if not config.train.freeze_norm:
        model = synchronize_norm(model, config.train.sync_norm, device)
    model = model.to(device, memory_format=torch.channels_last)  # a fifth faster on a CPU
    model.align_corners = config.loss.align_corners
    set_norm_momentum(model, config.train.norm_momentum)
    if config.init is not None:
        _initialize(model, config.init, console)
    if config.train.freeze_norm:
        model.freeze_norm()
    return model


def make_learner(config: TrainConfig, model: nn.Module, criterion: Criterion, device: torch.device) -> Learner:
    """Wrap the model for several processes and compile it as configured, and build its optimizer."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    network = distribute(model, config.train.strategy, device)
    if config.train.compile:
        network = torch.compile(network)  # for training alone: images to score come in many sizes
        criterion.compile()
    optimizer = build_optimizer(model, config.optim)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
    return Learner(model, network, criterion, optimizer, scaler, dtype, device)


def _gradient_is_finite(model: nn.Module) -> bool:
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return bool(norm.isfinite())


def _report_skipped(position: Position, outcome: StepOutcome, most: int, states: StateFolder, console: Console) -> None:
    """Say which step was skipped.

    Raises:
        FloatingPointError: As many as `most` in a row.
    """
    what = f"loss {outcome.parts['loss']}" if outcome.suspects else "the gradient is not finite"
    names = f", on the images {', '.join(outcome.suspects)}" if outcome.suspects else ""
    console.print(f"warning: step {position.step} skipped: {what}{names}", markup=False)
    if position.skipped_in_a_row >= most:
        saved = states.files()
        raise FloatingPointError(
            f"loss or gradient was not finite in {most} steps in a row, up to step {position.step}; the training has "
            "diverged. A lower optim.lr, a longer optim.slow_start_steps, or train.precision bf16 or fp32 in place of "
            f"fp16 helps. {f'The last saved state is {saved[0]}' if saved else 'Nothing has been saved yet'}"
        )


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


def write_config(path: Path, config: TrainConfig) -> None:
    """Write `config` as a YAML file that `rmiseg train` takes as a recipe."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(config), sort_keys=False))


def _plain(config: TrainConfig) -> dict[str, Any]:
    """By way of JSON, which turns tuples into the lists that YAML has."""
    return json.loads(json.dumps(asdict(config)))


def _finished(config: TrainConfig) -> RunResult | None:
    """The result of the run in the folder `config.out`, if it is over."""
    path = Path(config.out) / RESULT_FILE
    if not path.is_file():
        return None
    _check_same(config)
    return RunResult(**json.loads(path.read_text()))


def _open_run_folder(
    config: TrainConfig, states: StateFolder, stack: ExitStack, console: Console
) -> TrainingState | None:
    """Make the folder of the run, or go on with the one that is there: its last state. It is locked until `stack` ends.

    What is left of a run that ended before its first state is replaced.
    """
    out = Path(config.out)
    events = list(out.glob("events.out.tfevents.*"))
    harmless = {*events, out / CONFIG_FILE, out / LOCK_FILE, out / CHECKPOINTS}
    foreign = out.exists() and (not out.is_dir() or bool(set(out.iterdir()) - harmless))
    resumed = config.resume == "auto" and not foreign and (out / CONFIG_FILE).is_file()
    if resumed:
        _check_same(config)
    elif foreign or any(out.glob(f"{CHECKPOINTS}/**/*.pt")):
        advice = "" if foreign else ", go on with it with --resume auto"
        raise FileExistsError(f"{out} exists and is not empty; choose another folder with --out{advice}, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    stack.enter_context(locked(out / LOCK_FILE))
    if resumed:
        state = states.load(console)
        for path in out.glob(f"{CHECKPOINTS}/**/.*.tmp"):  # of processes that were killed
            path.unlink()
        if state is not None:
            return state
    for file in [*events, *out.glob(f"{CHECKPOINTS}/*.pt")]:
        file.unlink()
    write_config(out / CONFIG_FILE, config)
    return None


def _check_same(config: TrainConfig) -> None:
    """Refuse to go on with a run under options that would have made another run of it."""
    stored = _flat(yaml.safe_load((Path(config.out) / CONFIG_FILE).read_text()))
    for name, value in _flat(_plain(config)).items():
        if name in stored and stored[name] != value and name not in CHANGEABLE:
            raise ValueError(
                f"the run in {config.out} has {name} {stored[name]}, not {value}: it goes on with the options that it "
                "was started with. Choose another folder with --out for another run"
            )


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _coarse_confusion(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Training accuracy at the model's stride, which costs next to nothing; validation scores are at full size."""
    # "nearest-exact" takes the label at the center of a logit's cell, plain "nearest" the one at its corner.
    labels = F.interpolate(target.unsqueeze(1), logits.shape[-2:], mode="nearest-exact").squeeze(1)
    return confusion_matrix(logits.argmax(dim=1), labels, num_classes)
