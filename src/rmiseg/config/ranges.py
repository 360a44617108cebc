"""Ranges of all numeric options: beyond them a value is a slip of the keyboard, or makes no sense."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

MANY, FACTOR, SCALE, LR = 10**12, 10**6, 16, 1000
"""Most steps or pixels, the largest factor of anything but a size, the largest factor of an image's size, and the
largest learning rate."""

NEARLY_1 = 1 - 1e-9
"""Largest decay of an average: with 1 it would stay what it was at first."""

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.folds": (2, 100),
    "data.image_scale": (0.001, SCALE),
    "data.crop_size": (1, 65536),
    "data.image_mean": (0, 255),
    "data.image_std": (1e-3, 255),
    "data.bands": (1, 16),
    "data.value_range": (-1e15, 1e15),
    "data.picture": (1, 16),
    "data.scale_range": (0.001, SCALE),
    "data.scale_step": (0, SCALE),
    "data.flip": (0, 1),
    "data.color_jitter": (0, 1),
    "data.rare_share": (0, 1),
    "data.batch_size": (1, FACTOR),
    "data.repeat": (1, 10**5),
    "data.workers": (0, 1024),
    "model.output_stride": (8, 32),
    "loss.rmi.region_size": (1, 64),
    "loss.rmi.pool_size": (1, 1024),
    "loss.rmi.weight_lambda": (0, FACTOR),
    "loss.rmi.alpha": (0, FACTOR),
    "loss.pyramid.scales": (0.001, SCALE),
    "loss.affinity.downsample": (1, 1024),
    "loss.affinity.init_step": (0, MANY),
    "loss.aux_weight": (0, FACTOR),
    "loss.class_weights": (0, MANY),
    "loss.plus": (-FACTOR, FACTOR),
    "optim.lr": (0, LR),
    "optim.head_lr_factor": (0, FACTOR),
    "optim.momentum": (0, NEARLY_1),
    "optim.weight_decay": (0, FACTOR),
    "optim.poly_power": (0, 100),
    "optim.step_milestones": (0, 1),
    "optim.step_factor": (0, 100),
    "optim.warmup_steps": (0, MANY),
    "optim.warmup_lr": (0, LR),
    "optim.min_lr": (0, LR),
    "optim.layer_decay": (0, 1),
    "optim.clip_norm": (0, MANY),
    "train.epochs": (1, MANY),
    "train.steps": (1, MANY),
    "train.hours": (1e-3, 10**5),
    "train.accumulate": (1, FACTOR),
    "train.val_every": (1, MANY),
    "train.log_every": (1, MANY),
    "train.panels": (0, 2**32 - 1),
    "train.keep": (0, FACTOR),
    "train.norm_momentum": (0, 1),
    "train.checkpoint_every": (1, MANY),
    "train.ema": (0, NEARLY_1),
    "train.patience": (1, MANY),
    "train.max_skipped": (1, MANY),
}
"""Smallest and largest value of the options of a training, by their dotted names; of lists and mappings, of each value.
Whatever has narrower limits says so itself."""

COMMAND_RANGES: dict[str, tuple[float, float]] = {
    "scales": (-SCALE, SCALE),
    "window": (-1, 65536),
    "workers": (-1, 1024),
    "dense_crf.workers": (-1, 1024),
    "crf": (-1, 10**4),
    "iterations": (1, 10**4),
    "images": (0, FACTOR),
    "resamples": (1, FACTOR),
    "image_size": (16, 65536),
    "trials": (1, FACTOR),
    "seed": (0, 2**32 - 1),
    "steps": (1, MANY),
    "jobs": (-1, 1024),
    "tolerance": (0, 1000),
    "val": (0, 0.99),
}
"""Those of the options of the other commands."""


def check_ranges(config: Any, ranges: Mapping[str, tuple[float, float]] = RANGES) -> None:
    """See whether every number among the options is finite and in its range.

    Raises:
        ValueError: One is not.
    """
    for name, value in _numbers(config):
        low, high = ranges.get(name, (-math.inf, math.inf))
        if not math.isfinite(_float(value)) or not low <= value <= high:
            wanted = "a finite number" if name not in ranges else f"{low:.15g} or more, and at most {high:.15g}"
            raise ValueError(f"{name} must be {wanted}, not {_float(value):.15g}")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers among options, each with the dotted name of its option."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _numbers(getattr(value, field.name), f"{name}.{field.name}".removeprefix("."))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _numbers(each, name)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
