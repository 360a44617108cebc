"""`rmiseg bench data`: whether images arrive as fast as a training takes them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from rmiseg.benchmarks.references import references
from rmiseg.config import BenchDataConfig, TrainConfig
from rmiseg.data import SegmentationDataset, Split, load_split, train_loader
from rmiseg.data.loader import TrainLoader
from rmiseg.runtime.cores import MOST_WORKERS, worker_count
from rmiseg.training.assembly import train_dataset
from rmiseg.training.measuring import timed_recipe, timed_step

OWN = "rmiseg"


def run_data_benchmark(config: BenchDataConfig, recipe: TrainConfig, console: Console) -> dict[str, float]:
    """Measure loading alone, beside the ways in which others do the same, and training; print a table.

    Returns:
        Images per second: "rmiseg", each of `references`, "training"; "ratio", of rmiseg to the fastest of them, the
        median over the rounds; "wait", the share of training time spent waiting.
    """
    for name in ("rounds", "batches"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(config, name)}")
    recipe = timed_recipe(recipe)
    workers = worker_count(recipe.data.workers if config.workers is None else config.workers, MOST_WORKERS)
    root = recipe.data.root if config.root is None else config.root
    data = replace(recipe.data, root=root, workers=workers)
    split = load_split(data.name, data.root, data.train_split)
    datasets: dict[str, SegmentationDataset] = {
        OWN: train_dataset(split, data),
        **references(split, data),
    }
    options = {"batch_size": data.batch_size, "workers": workers, "seed": recipe.seed}
    streams = {name: _endless(train_loader(dataset, **options)) for name, dataset in datasets.items()}
    rates: dict[str, list[float]] = {name: [] for name in streams}
    # Workers read ahead while others are measured, but no further than this many batches.
    ahead = 2 * workers
    for round_ in track(range(config.rounds + 1), "loading", console=console, transient=True):
        for name, stream in streams.items():
            if workers:
                list(islice(stream, ahead))
            started = time.perf_counter()
            list(islice(stream, config.batches))
            if round_:  # the first is to warm up
                rates[name].append(config.batches * data.batch_size / (time.perf_counter() - started))
    result = {name: statistics.median(each) for name, each in rates.items()}
    others = [name for name in datasets if name != OWN]
    faster = max(others, key=lambda name: result[name])
    result["ratio"] = statistics.median(own / other for own, other in zip(rates[OWN], rates[faster]))
    for name in others:
        streams.pop(name).close()
    result["training"], result["wait"] = _train(recipe, split, streams[OWN], config.batches, console)

    table = Table("", "images/s", "of which waiting for data", title=f"{len(split.samples)} images, {workers} workers")
    for name in datasets:
        table.add_row(f"loading: {name}", f"{result[name]:.1f}", "")
    table.add_row("training", f"{result['training']:.1f}", f"{result['wait']:.0%}")
    console.print(table)
    console.print(f"Loading is {result['ratio']:.2f} times as fast as {faster} (median of {config.rounds} rounds)")
    if result["wait"] > 0.1:
        console.print("Training waits for data: more --data.workers, smaller files, or less --data.color_jitter help")
    return result


def _endless(loader: TrainLoader) -> Generator[Any]:
    epoch = 0
    try:
        while True:
            loader.set_epoch(epoch)
            yield from loader
            epoch += 1
    finally:
        loader.close()


def _train(
    recipe: TrainConfig, split: Split, stream: Iterable[Any], steps: int, console: Console
) -> tuple[float, float]:
    """Images per second of training steps, and the share of time spent waiting for data."""
    take_step = timed_step(recipe, len(split.classes), steps + 1, console)
    waits, times = [], []
    iterator = iter(stream)
    for step in track(range(steps + 1), "training", console=console, transient=True):
        started = time.perf_counter()
        batch = next(iterator)
        waited = time.perf_counter() - started
        take_step([batch], step)
        if step:  # the first is to warm up
            waits.append(waited)
            times.append(time.perf_counter() - started)
    return recipe.data.batch_size * steps / sum(times), sum(waits) / sum(times)
