"""A recipe's training steps without its run: for measuring them."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.runtime.device import select_device, tune
from rmiseg.training.assembly import complete, make_model, make_step
from rmiseg.training.criterion import Criterion
from rmiseg.training.step import TrainStep


def timed_recipe(recipe: TrainConfig) -> TrainConfig:
    """The recipe, completed, less everything that needs files or processes and does not change the time of a step."""
    recipe = complete(replace(recipe, init=None, train=replace(recipe.train, strategy="ddp")))
    if recipe.loss.class_weights == "balanced":
        recipe = replace(recipe, loss=replace(recipe.loss, class_weights=[1.0]))
    return recipe


def timed_step(recipe: TrainConfig, num_classes: int, steps: int, console: Console) -> TrainStep:
    """The training step, ready for batches, on the device of a `timed_recipe`."""
    if recipe.loss.class_weights is not None:
        recipe = replace(recipe, loss=replace(recipe.loss, class_weights=[1.0] * num_classes))
    device = select_device(recipe.device)
    tune(device)
    model = make_model(recipe, num_classes, device, console).train()
    return make_step(recipe, model, Criterion(recipe.loss, num_classes, steps), device)
