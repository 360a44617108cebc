"""Times of a training step and a prediction of each method, measured in turn: whatever else the machine does concerns
all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.data import SegmentationDataset, eval_loader, eval_transform, train_loader
from rmiseg.evaluation.evaluate import evaluate_model
from rmiseg.runtime.files import read_json, remove_leftovers, to_json, write_text
from rmiseg.runtime.progress import track
from rmiseg.training.assembly import open_splits, train_dataset
from rmiseg.training.measuring import timed_recipe, timed_step

WARM_UP, ROUNDS = 2, 9


class Seconds(NamedTuple):
    """Medians, in seconds.

    Attributes:
        step: A training step, on a batch that is at hand: no loading, no logging.
        image: The network's work on one image of the split that is scored on.
    """

    step: float
    image: float


def find_or_time(recipes: Mapping[str, TrainConfig], file: Path, console: Console) -> dict[str, Seconds]:
    """The times of each method: those in `file`, unless it lacks one."""
    if file.is_file():
        try:
            known = read_json(file)
            if set(recipes) <= set(known):
                return {
                    method: Seconds(*(float(known[method][name]) for name in Seconds._fields)) for method in recipes
                }
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{file} holds no times ({error}); remove it to measure again") from error
    seconds = time_methods(recipes, console)
    remove_leftovers(file.parent, [file.name])
    write_text(file, to_json({method: found._asdict() for method, found in seconds.items()}))
    return seconds


def time_methods(recipes: Mapping[str, TrainConfig], console: Console) -> dict[str, Seconds]:
    """Measure each method, in turn."""
    prepared = {}
    for method, recipe in recipes.items():
        recipe = timed_recipe(recipe)
        data = recipe.data
        split, scored = open_splits(data)
        loader = train_loader(train_dataset(split, data), batch_size=data.batch_size, workers=0, seed=recipe.seed)
        batches = [next(iter(loader))] * recipe.train.accumulate
        val_dataset = SegmentationDataset(scored, eval_transform(data.image_scale))
        image = next(iter(eval_loader(val_dataset, workers=0)))
        take_step = timed_step(recipe, len(split.classes), WARM_UP + ROUNDS, console)
        prepared[method] = take_step, batches, image
    steps: dict[str, list[float]] = {method: [] for method in prepared}
    images: dict[str, list[float]] = {method: [] for method in prepared}
    for step in track(range(WARM_UP + ROUNDS), "timing", console, total=WARM_UP + ROUNDS):
        for method, (take_step, batches, image) in prepared.items():
            started = time.perf_counter()
            take_step(batches, step)
            steps[method].append(time.perf_counter() - started)
            evaluation = evaluate_model(take_step.model, [image], take_step.model.num_classes)
            images[method].append(evaluation.seconds["model"])
    return {
        method: Seconds(*(statistics.median(times[method][WARM_UP:]) for times in (steps, images)))
        for method in prepared
    }
