"""The training run, from top to bottom."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from rich.console import Console
from torch import Tensor, nn

from rmiseg.config import DataConfig, LossConfig, TrainConfig
from rmiseg.data import (
    Batch,
    SegmentationDataset,
    eval_loader,
    eval_transform,
    load_split,
    train_loader,
    train_transform,
)
from rmiseg.data.transforms import normalize
from rmiseg.engine.checkpoint import CHECKPOINTS, Checkpoint, CheckpointFolder, load_checkpoint
from rmiseg.engine.curves import Curves
from rmiseg.engine.device import peak_memory, select_device
from rmiseg.engine.evaluate import evaluate
from rmiseg.engine.metrics import Scores, confusion_matrix
from rmiseg.engine.optim import HEAD_LR_FACTORS, build_optimizer, learning_rate, set_learning_rate
from rmiseg.engine.progress import training_progress
from rmiseg.files import replacing, to_json
from rmiseg.losses import AffinityLoss, build_loss
from rmiseg.models import build_model, set_norm_momentum

CONFIG_FILE, RESULT_FILE = "config.yaml", "result.json"


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


def train(config: TrainConfig, console: Console) -> RunResult:
    """Train as `config` says, into the folder `config.out`.

    The folder gets config.yaml (everything that was asked for), checkpoints/, TensorBoard's event files, and at the end
    result.json.

    Raises:
        ValueError, OSError: Anything wrong with the configuration or the data, with what to do about it.
        FloatingPointError: The loss is not finite.
    """
    device = select_device(config.device)
    torch.manual_seed(config.seed)
    if config.data.root:  # absolute, so that the run can be evaluated from any folder
        config = replace(config, data=replace(config.data, root=str(Path(config.data.root).absolute())))

    if config.optim.head_lr_factor is None:
        factor = HEAD_LR_FACTORS[config.model.name]
        config = replace(config, optim=replace(config.optim, head_lr_factor=factor))

    train_split = load_split(config.data.name, config.data.root, config.data.train_split)
    val_split = load_split(config.data.name, config.data.root, config.data.val_split)
    classes = train_split.classes
    batches = train_loader(
        SegmentationDataset(train_split, _augmentation(config.data)),
        batch_size=config.data.batch_size,
        workers=config.data.workers,
        seed=config.seed,
    )
    val_batches = eval_loader(
        SegmentationDataset(val_split, eval_transform(config.data.image_scale)), workers=config.data.workers
    )
    epochs, total_steps = _length(config, len(batches))
    if config.optim.slow_start_steps >= total_steps:
        raise ValueError(
            f"optim.slow_start_steps is {config.optim.slow_start_steps}, but the whole training has {total_steps} steps"
        )

    model = build_model(num_classes=len(classes), **asdict(config.model))
    model = model.to(device, memory_format=torch.channels_last)  # a fifth faster on a CPU
    model.align_corners = config.loss.align_corners
    set_norm_momentum(model, config.train.norm_momentum)
    if config.init is not None:
        _initialize(model, config.init, console)
    if config.train.freeze_norm:
        model.freeze_norm()
    criterion = Criterion(config.loss, len(classes), total_steps)
    optimizer = build_optimizer(model, config.optim)

    out = _new_run_folder(config)
    checkpoints = CheckpointFolder(out / CHECKPOINTS, config.train.keep)
    curves = Curves(out, classes, [sample.name for sample in val_split.samples], config.train.panels)
    console.print(
        f"Training {config.model.name} with {config.model.backbone} and the {config.loss.name} loss: "
        f"{len(train_split.samples)} images, {len(classes)} classes, {total_steps} steps ({epochs} epochs) on {device}"
    )

    step, step_seconds = 0, []
    best: dict[str, float] = {}
    with training_progress(console, total_steps, config.data.batch_size * config.train.accumulate) as progress:
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            model.train()
            confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)
            for group in grouped(batches, config.train.accumulate):
                if step == total_steps:
                    break
                set_learning_rate(optimizer, learning_rate(step, total_steps, config.optim))
                started = time.perf_counter()
                parts = train_step(model, criterion, optimizer, group, step, device, confusion)
                step_seconds.append(time.perf_counter() - started)
                step += 1
                train_scores = Scores.from_confusion(confusion)
                progress.advance(epoch, parts["loss"], train_scores.mean_iou)
                if step % config.train.log_every == 0:
                    curves.add_training(step, parts, optimizer.param_groups[0]["lr"], train_scores)

            last_epoch = epoch == epochs - 1
            evaluation = None
            if last_epoch or (epoch + 1) % config.train.val_every == 0:
                evaluation = evaluate(
                    model,
                    progress.validating(val_batches),
                    len(classes),
                    device,
                    on_batch=partial(curves.add_picture, step),
                )
                curves.add_evaluation(step, evaluation)
            checkpoint = Checkpoint(
                weights=model.state_dict(),
                model=config.model,
                data=config.data,
                classes=classes,
                step=step,
                scores=evaluation.summary() if evaluation else {},
                align_corners=config.loss.align_corners,
            )
            if checkpoints.save(checkpoint):
                best = checkpoint.scores
            progress.end_epoch(epoch, evaluation)
    curves.close()

    result = RunResult(step, statistics.median(step_seconds), peak_memory(device), checkpoint.scores, best)
    with replacing(out / RESULT_FILE) as temporary:
        temporary.write_text(to_json(asdict(result)))
    score = f"Best mIoU {best['mean_iou']:.2%}." if best else "No pixel of the validation split could be scored."
    console.print(f"{score} Checkpoints, curves and configuration are in {out}", markup=False)
    return result


def train_step(
    model: nn.Module,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    step: int,
    device: torch.device,
    confusion: Tensor,
) -> dict[str, float]:
    """One optimizer step, on one or several batches. Adds to `confusion` (C, C); returns the loss with its parts."""
    targets = [batch["mask"].to(device, non_blocking=True) for batch in batches]
    # What the loss is divided by is that of all batches together, however many of their pixels do not count.
    counts = [sum(each) for each in zip(*map(criterion.counts, targets))]
    total: dict[str, float] = {}
    optimizer.zero_grad(set_to_none=True)
    for batch, target in zip(batches, targets):
        images = normalize(batch["image"].to(device, non_blocking=True), model.image_mean, model.image_std)
        output = model(images.contiguous(memory_format=torch.channels_last))
        logits, auxiliary_logits = output if isinstance(output, tuple) else (output, None)
        loss, parts = criterion(logits, auxiliary_logits, target, counts, step)
        if not math.isfinite(parts["loss"]):
            raise FloatingPointError(
                f"the loss is {parts['loss']} at step {step}, on the images {', '.join(batch['name'])}. A lower "
                "optim.lr or a longer optim.slow_start_steps helps against divergence; the last checkpoint is kept"
            )
        loss.backward()
        confusion += _coarse_confusion(logits.detach(), target, len(confusion))
        for name, part in parts.items():
            share = 1 if name == "loss" else 1 / len(batches)  # parts of the loss are means of each batch
            total[name] = total.get(name, 0.0) + share * part
    optimizer.step()
    return total


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
        common = {"num_classes": num_classes, "align_corners": config.align_corners}
        self.loss = build_loss(config.name, **common, **options.get(config.name, {}))
        self.auxiliary_loss = build_loss("ce", **common)
        self.auxiliary_weight = config.aux_weight

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


def _augmentation(config: DataConfig) -> Any:
    return train_transform(
        config.crop_size,
        image_scale=config.image_scale,
        scale_range=config.scale_range,
        scale_step=config.scale_step,
        flip=config.flip,
        color_jitter=config.color_jitter,
    )


def _length(config: TrainConfig, batches: int) -> tuple[int, int]:
    """Epochs and optimizer steps of the run."""
    for name in ("epochs", "steps", "accumulate", "val_every", "log_every"):
        value = getattr(config.train, name)
        if value is not None and value < 1:
            raise ValueError(f"train.{name} must be at least 1, not {value}")
    steps_per_epoch = math.ceil(batches / config.train.accumulate)
    if config.train.steps is not None:
        return math.ceil(config.train.steps / steps_per_epoch), config.train.steps
    return config.train.epochs, config.train.epochs * steps_per_epoch


def write_config(path: Path, config: TrainConfig) -> None:
    """Write `config` as a YAML file that `rmiseg train` takes as a recipe."""
    # By way of JSON, which turns tuples into the lists that YAML has.
    plain = json.loads(json.dumps(asdict(config)))
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(plain, sort_keys=False))


def _new_run_folder(config: TrainConfig) -> Path:
    """Make the folder of the run. What is left of a run that ended before its first checkpoint is replaced."""
    out = Path(config.out)
    events = list(out.glob("events.out.tfevents.*"))
    harmless = {*events, out / CONFIG_FILE, out / CHECKPOINTS}
    if out.exists() and (not out.is_dir() or set(out.iterdir()) - harmless or any(out.glob(f"{CHECKPOINTS}/*.pt"))):
        raise FileExistsError(f"{out} exists and is not empty; choose another folder with --out, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    for file in events:
        file.unlink()
    write_config(out / CONFIG_FILE, config)
    return out


def _coarse_confusion(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Training accuracy at the model's stride, which costs next to nothing; validation scores are at full size."""
    # "nearest-exact" takes the label at the center of a logit's cell, plain "nearest" the one at its corner.
    labels = F.interpolate(target.unsqueeze(1), logits.shape[-2:], mode="nearest-exact").squeeze(1)
    return confusion_matrix(logits.argmax(dim=1), labels, num_classes)
