"""Length of a training, and learning rates as pure functions of the step."""

from __future__ import annotations

import math

import torch

from rmiseg.config import OptimConfig, TrainConfig


def training_length(config: TrainConfig, batches: int) -> tuple[int, int, int]:
    """Epochs, steps of an epoch, and steps of the whole run, by the number of batches of an epoch.

    Raises:
        ValueError: The warmup is longer.
    """
    epoch_steps = math.ceil(batches / config.train.accumulate)
    total_steps = config.train.steps or config.train.epochs * epoch_steps
    if config.optim.warmup_steps >= total_steps:
        raise ValueError(
            f"optim.warmup_steps is {config.optim.warmup_steps}, but the whole training has {total_steps} steps"
        )
    return math.ceil(total_steps / epoch_steps), epoch_steps, total_steps


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Learning rate of the backbone at `step` (0 is the first) of `total_steps`.

    Poly, lr (1 - p)^power, and cosine, lr (1 + cos(pi p)) / 2, of the share p that is over of the steps behind the
    warmup; or step, lr factor^(milestones behind t/T). Never below `min_lr`. The warmup rises in a line from
    `warmup_lr` to `lr`, which its last step has. These are the rates of the paper's code.

    With `warmup_to` "curve" p is a share of all steps, and the warmup rises to the value that the schedule has where
    it ends.
    """
    warmup = config.warmup_steps
    if config.warmup_to == "curve":
        if step < warmup:
            return _rise(step, warmup, config, _scheduled(warmup / total_steps, config))
        return _scheduled(step / total_steps, config)
    if step < warmup:
        return _rise(step + 1, warmup, config, config.lr)
    if config.schedule == "step":
        return _scheduled(step / total_steps, config)
    full = max(warmup - 1, 0)  # the step that has lr itself
    return _scheduled((step - full) / (total_steps - warmup), config)


def _rise(step: int, steps: int, config: OptimConfig, end: float) -> float:
    return config.warmup_lr + (end - config.warmup_lr) * step / steps


def _scheduled(progress: float, config: OptimConfig) -> float:
    """The rate when a share of the fall is over."""
    progress = min(progress, 1.0)
    if config.schedule == "poly":
        factor = float((1 - progress) ** config.poly_power)
    elif config.schedule == "step":
        factor = config.step_factor ** sum(progress >= milestone for milestone in config.step_milestones)
    else:
        factor = (1 + math.cos(math.pi * progress)) / 2
    return max(config.lr * factor, config.min_lr)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the backbone, and of every group in proportion."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
