"""How long a training step of each method takes, measured in turn, so that all share what else the machine does."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from rmiseg.benchmarks.training import timed_learner, timed_recipe
from rmiseg.config import TrainConfig
from rmiseg.data import load_split, train_loader
from rmiseg.engine.recipe import train_dataset
from rmiseg.engine.step import train_step
from rmiseg.files import replacing, to_json
from rmiseg.progress import track

WARM_UP, ROUNDS = 2, 9


def find_or_time(recipes: Mapping[str, TrainConfig], file: Path, console: Console) -> dict[str, float]:
    """Median seconds of a step by method: those in `file`, unless it lacks one."""
    if file.is_file():
        known = json.loads(file.read_text())
        if set(recipes) <= set(known):
            return {method: known[method] for method in recipes}
    seconds = time_steps(recipes, console)
    with replacing(file) as temporary:
        temporary.write_text(to_json(seconds))
    return seconds


def time_steps(recipes: Mapping[str, TrainConfig], console: Console) -> dict[str, float]:
    """Median seconds of a step by method, on one batch that is at hand: no loading, no logging."""
    prepared = {}
    for method, recipe in recipes.items():
        recipe = timed_recipe(recipe)
        split = load_split(recipe.data.name, recipe.data.root, recipe.data.train_split)
        loader = train_loader(
            train_dataset(split, recipe.data), batch_size=recipe.data.batch_size, workers=0, seed=recipe.seed
        )
        batches = [next(iter(loader))] * recipe.train.accumulate
        learner = timed_learner(recipe, len(split.classes), WARM_UP + ROUNDS, console)
        prepared[method] = learner, batches
    times: dict[str, list[float]] = {method: [] for method in prepared}
    for step in track(range(WARM_UP + ROUNDS), "timing", console, total=WARM_UP + ROUNDS):
        for method, (learner, batches) in prepared.items():
            started = time.perf_counter()
            train_step(learner, batches, step)
            if step >= WARM_UP:
                times[method].append(time.perf_counter() - started)
    return {method: statistics.median(values) for method, values in times.items()}
