"""A recipe's training steps without its run: for measuring them."""

from __future__ import annotations

from dataclasses import replace

import torch
from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.runtime.device import has_fast_bf16, select_device, tune
from rmiseg.training.assembly import complete, make_model, make_step, with_precision
from rmiseg.training.criterion import Criterion
from rmiseg.training.step import TrainStep


def timed_recipe(recipe: TrainConfig) -> TrainConfig:
    """The recipe, completed, less everything that needs files or processes and does not change the time of a step."""
    return complete(replace(recipe, init=None, train=replace(recipe.train, strategy="ddp")))


def with_equal_weights(recipe: TrainConfig, num_classes: int) -> TrainConfig:
    """The recipe with a weight of 1 for each class in place of any weights, which take as long and need no masks."""
    if recipe.loss.class_weights is None:
        return recipe
    return replace(recipe, loss=replace(recipe.loss, class_weights=[1.0] * num_classes))


def timed_step(
    recipe: TrainConfig, num_classes: int, steps: int, console: Console, device: torch.device | None = None
) -> TrainStep:
    """The training step of a `timed_recipe`, ready for batches; on its device, if no other is given."""
    recipe = with_equal_weights(recipe, num_classes)
    device = device or select_device(recipe.device)
    recipe = with_precision(recipe, has_fast_bf16(device))
    tune(device)
    model = make_model(recipe, num_classes, device, console).train()
    return make_step(recipe, model, Criterion(recipe.loss, num_classes, steps), device)
