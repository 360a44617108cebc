"""Kernels of a dense CRF that suit a model and its data, by random search."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import nn

from rmiseg.config import CRFConfig, CRFSearchConfig
from rmiseg.data.spread import spread
from rmiseg.evaluation.metrics import IoU, count_image
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.predictor import Predictor
from rmiseg.runtime.progress import track
from rmiseg.runtime.words import percent

RANGES = {
    "gaussian_sxy": (1.0, 6.0),
    "gaussian_compat": (1.0, 10.0),
    "bilateral_sxy": (10.0, 120.0),
    "bilateral_srgb": (3.0, 30.0),
    "bilateral_compat": (1.0, 20.0),
}
"""From where to where each option is drawn, with equal chances for equal factors."""


def search_kernels(
    config: CRFSearchConfig, console: Console | None = None, *, model: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Score images of a split with many kernels; the network sees each image once.

    Args:
        config: What to search.
        console: Where to show progress; by default nowhere.
        model: The network, if that of the run was given in Python.

    Returns:
        The trials, best mean IoU first: "kernels" (None for the network alone), "mean_iou", "pixel_accuracy" and
        "boundary_mean_iou".

    Raises:
        ValueError, OSError: Anything wrong with checkpoint, data or options.
    """
    for name in ("images", "trials"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(config, name)}")
    with DenseCRF([config.iterations], CRFConfig(workers=config.workers)) as crf:
        checkpoint = load_checkpoint(config.checkpoint)
        split = checkpoint.load_split(config.split, config.root)
        predictor = Predictor(checkpoint, config.device, model=model)
        places = spread(len(split), config.images)
        cached = []
        for place in track(places, "segmenting", console, total=len(places)):
            pixels, target = split.read(place)
            cached.append((pixels, target, predictor.probabilities(pixels).astype(np.float16)))

        def counts(kernels: CRFConfig | None, item: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
            pixels, target, shares = item
            if kernels is None:
                ids = shares.argmax(axis=0).astype(np.uint8)
            else:
                ids = crf(pixels, shares.astype(np.float32), kernels).ids[0]
            return count_image(ids, target, len(split.classes)).counts

        trials = []
        with ThreadPoolExecutor(crf.workers) as executor:
            candidates = [None, *_draw(config.trials, config.seed)]
            for kernels in track(candidates, "trying", console, total=len(candidates)):
                found = executor.map(lambda item, kernels=kernels: counts(kernels, item), cached)
                trials.append(_trial(kernels, np.sum(list(found), axis=0)))
    return sorted(trials, key=lambda trial: -np.nan_to_num(trial["mean_iou"]))


def print_trials(trials: list[dict[str, Any]], console: Console) -> None:
    """The trials as a table, and the options of the best."""
    table = Table()
    for column in (*RANGES, "mIoU %", "boundary IoU %"):
        table.add_column(column.replace("_", " "), justify="right")
    for trial in trials:
        kernels = trial["kernels"]
        cells = [f"{kernels[name]:g}" for name in RANGES] if kernels else ["no CRF", *[""] * (len(RANGES) - 1)]
        table.add_row(*cells, percent(trial["mean_iou"]), percent(trial["boundary_mean_iou"]))
    console.print(table)
    if best := trials[0]["kernels"]:
        console.print("Best: " + " ".join(f"--dense_crf.{name} {best[name]:g}" for name in RANGES))
    else:
        console.print("No CRF is better than the network alone")


def _draw(trials: int, seed: int) -> Iterator[CRFConfig]:
    """The usual kernels, and random ones."""
    yield CRFConfig()
    rng = np.random.default_rng(seed)
    for _ in range(trials - 1):
        drawn = {name: float(np.exp(rng.uniform(np.log(low), np.log(high)))) for name, (low, high) in RANGES.items()}
        kernels: dict[str, Any] = {name: float(f"{value:.2g}") for name, value in drawn.items()}
        yield CRFConfig(**kernels)


def _trial(kernels: CRFConfig | None, counts: np.ndarray) -> dict[str, Any]:
    scores = IoU().scores(counts)
    return {
        "kernels": {name: asdict(kernels)[name] for name in RANGES} if kernels else None,
        **{name: float(scores[name]) for name in ("mean_iou", "pixel_accuracy", "boundary_mean_iou")},
    }
