"""Bootstrap intervals: how much scores depend on which images happen to be in the split (Efron 1979).

The images are drawn again, as many with replacement, many times; the interval holds the middle 95 % of the scores. Two
models are compared on the same draws (paired), where what makes an image hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import BUILT_IN, iou, scores_of

LEVEL = 0.95
RESAMPLES = 1000
BLOCK = 100
"""Draws at a time: bounds memory."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Intervals:
    """Intervals of the scores that have names in `Evaluation.summary`, and of each class's IoU."""

    summary: dict[str, Interval]
    iou: tuple[Interval, ...]


def intervals(evaluation: Evaluation, resamples: int = RESAMPLES, seed: int = 0) -> Intervals:
    """95 % intervals of the scores of an evaluation. NaN without images."""
    return _intervals(resampled_scores([evaluation], resamples, seed)[0])


def paired_intervals(a: Evaluation, b: Evaluation, resamples: int = RESAMPLES, seed: int = 0) -> Intervals:
    """95 % intervals of the scores of `b` less those of `a` that both have, of the same images in the same order.

    Raises:
        ValueError: The images differ.
    """
    if a.names != b.names:
        raise ValueError("the two evaluations are of different images")
    first, second = resampled_scores([a, b], resamples, seed)
    return _intervals({name: second[name] - first[name] for name in first if name in second})


def resampled_scores(evaluations: list[Evaluation], resamples: int, seed: int) -> list[dict[str, np.ndarray]]:
    """The scores of each evaluation in each of the same draws of its images.

    Returns:
        For each evaluation the scores of `Evaluation.summary`, (resamples,) each, and "iou", (resamples, C).
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    parts: list[list[dict[str, np.ndarray]]] = [[] for _ in evaluations]
    for draws in _draws(len(evaluations[0].names), resamples, seed):
        for evaluation, blocks in zip(evaluations, parts):
            counts = {name: _drawn(draws, each) for name, each in evaluation.counts.items()}
            blocks.append({**scores_of(counts), "iou": iou(counts[BUILT_IN][:, 0])})
    return [{name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} for blocks in parts]


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Numbers of times that each image is in each draw: (draws, images) float64."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - start)
        drawn = rng.integers(max(images, 1), size=(count, images))
        draws = np.zeros((count, images))
        np.add.at(draws, (np.arange(count)[:, None], drawn), 1)
        yield draws


def _drawn(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of the counts (I, *shape) of the images of each draw: (draws, *shape) float64."""
    return np.tensordot(draws, counts.astype(np.float64), axes=1)


def _intervals(scores: dict[str, np.ndarray]) -> Intervals:
    classes = scores["iou"].T
    return Intervals(
        {name: _interval(values) for name, values in scores.items() if name != "iou"},
        tuple(_interval(values) for values in classes),
    )


def _interval(values: np.ndarray) -> Interval:
    values = values[~np.isnan(values)]  # draws without a pixel of the class
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
