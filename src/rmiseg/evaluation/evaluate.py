"""Scoring a model on a split, at the size of its masks."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rmiseg.config import TilingConfig
from rmiseg.data import Batch
from rmiseg.data.loader import worker_deaths
from rmiseg.evaluation.metrics import (
    BUILT_IN,
    MEASURES,
    Metric,
    Scores,
    count_image,
    empty_counts,
    load_metrics,
    scores_of,
)
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.segment import probabilities, segment
from rmiseg.inference.tiles import Area, Tile, TileLogits, plan_tiles, run_tiles, whole_image
from rmiseg.models.base import SegmentationModel
from rmiseg.runtime.cores import usable_cores
from rmiseg.runtime.device import sizes_vary
from rmiseg.runtime.distributed import gather

PENDING = 2
"""Images that may wait to be counted while the model goes on."""

COUNTERS = 4
"""Threads that count beside a GPU, which takes less time for an image than one of them. Beside a CPU one is enough."""


@dataclass(frozen=True)
class Evaluation:
    """Counts of every image of a split, and the scores that follow.

    Attributes:
        names: Names of the I images.
        confusion: (C, C) int64: pixels of each true class (rows) and predicted class (columns), over all images.
        counts: By the name of each metric what it counted, (I, *shape); see `Metric.count`.
        seconds: Time taken: "total", and of it "model", the forward passes; "crf", of a dense CRF on one image.
        losses: The loss of each image, NaN where it is not defined; empty if it was not asked for.
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    counts: Mapping[str, np.ndarray]
    seconds: dict[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = ()

    @property
    def loss(self) -> float:
        """The mean loss of the images; NaN if it was not asked for, or is not defined."""
        defined = [loss for loss in self.losses if not math.isnan(loss)]
        return sum(defined) / len(defined) if defined else math.nan

    @cached_property
    def measures(self) -> dict[str, Scores]:
        """The scores of every measure of the built-in metric, over all images."""
        totals = self.counts[BUILT_IN].sum(axis=0)
        return {name: Scores.from_counts(counts) for name, counts in zip(MEASURES, totals)}

    @property
    def everywhere(self) -> Scores:
        """The scores over all pixels."""
        return self.measures["all"]

    def summary(self) -> dict[str, float]:
        """The scores of all metrics over all images, by name, as shares from 0 to 1."""
        return self._scores_of(self.counts)

    def further_scores(self) -> dict[str, float]:
        """Those of `summary` that are not of the built-in metric."""
        return self._scores_of([name for name in self.counts if name != BUILT_IN])

    @cached_property
    def image_scores(self) -> dict[str, np.ndarray]:
        """The same scores of each image, (I,) each."""
        return scores_of(self.counts)

    def _scores_of(self, metrics: Iterable[str]) -> dict[str, float]:
        totals = {name: self.counts[name].sum(axis=0) for name in metrics}
        return {name: float(score) for name, score in scores_of(totals).items()}


def evaluate_model(
    model: SegmentationModel,
    loader: Iterable[Batch],
    num_classes: int,
    on_batch: Callable[[Batch, Tensor], None] | None = None,
    tiling: TilingConfig | None = None,
    image_scale: float = 1.0,
    metrics: Iterable[str] = (),
    loss: Callable[[Tensor, Tensor], float] | None = None,
    dtype: torch.dtype | None = None,
) -> Evaluation:
    """Score `model` on every image of `loader`, at the size of the masks, whatever the size the network saw.

    Counting overlaps the model's work on the next image.

    Args:
        model: Put into evaluation mode, and back into the mode that it was in.
        loader: Yields image uint8 (1, B, h, w) and mask uint8 (1, H, W). Of several processes, each has its part of
            the images, as `eval_loader` divides them; the scores are those of all, in every process.
        num_classes: Number of classes C.
        on_batch: Called with each batch and its predicted class ids (1, H, W) uint8.
        tiling: Scales, flip and windows; the loader's images are then of the size of the masks. By default the model
            sees every image as it comes from the loader.
        image_scale: Factor that multiplies every scale of `tiling`.
        metrics: Names of further metrics to count.
        loss: Called with logits (1, C, h, w) and mask (1, H, W) of each image, as long as it is shown whole.
        dtype: Type of the network's arithmetic under autocast; None without autocast.

    Raises:
        ValueError: See `load_metrics`.
    """
    counter = _Counter(num_classes, load_metrics(metrics, num_classes))
    (evaluation,) = _evaluate(model, loader, tiling, image_scale, counter, on_batch, loss, dtype)
    return evaluation


def evaluate_refined(
    model: SegmentationModel,
    loader: Iterable[Batch],
    num_classes: int,
    crf: DenseCRF,
    tiling: TilingConfig,
    image_scale: float,
    metrics: Iterable[str] = (),
) -> list[Evaluation]:
    """Score `model` alone, and refined by a dense CRF with each of its numbers of iterations; see `evaluate_model`."""
    return _evaluate(model, loader, tiling, image_scale, _Counter(num_classes, load_metrics(metrics, num_classes), crf))


class _Result(NamedTuple):
    """Class ids (H, W) of an image, its confusion matrix (C, C), and its counts by metric."""

    ids: np.ndarray
    confusion: np.ndarray
    counts: dict[str, np.ndarray]


class _Counter:
    """Counts the results of an image, once its logits are there: the network's, and those refined by a dense CRF."""

    def __init__(self, num_classes: int, metrics: Mapping[str, Metric], crf: DenseCRF | None = None) -> None:
        self.num_classes = num_classes
        self.metrics = metrics
        self.crf = crf
        self.results = 1 + len(crf.iterations if crf else ())
        self.crf_seconds: list[float] = []

    def threads(self, device: torch.device) -> int:
        """Images to count at a time, beside a model on this device."""
        if self.crf:
            return self.crf.workers
        return 1 if device.type == "cpu" else min(COUNTERS, usable_cores())

    def __call__(
        self, outputs: list[TileLogits], image: Tensor, target: np.ndarray, align_corners: bool
    ) -> list[_Result]:
        size = (target.shape[0], target.shape[1])
        results = [segment(outputs, size, align_corners)]
        if self.crf:
            shares = probabilities(outputs, size, align_corners).cpu().numpy()
            refined = self.crf(image.permute(1, 2, 0).numpy(), shares)
            self.crf_seconds.append(refined.seconds)
            results += refined.ids
        return [self._count(ids, target) for ids in results]

    def _count(self, ids: np.ndarray, target: np.ndarray) -> _Result:
        own = count_image(ids, target, self.num_classes)  # which has the confusion matrix too
        counts = {
            name: own.counts if name == BUILT_IN else np.asarray(metric.count(ids, target, self.num_classes))
            for name, metric in self.metrics.items()
        }
        return _Result(ids, own.confusion, counts)


class _Total:
    """Sums and lists of what was counted so far, of one result of every image."""

    def __init__(self, num_classes: int, metrics: Mapping[str, Metric]) -> None:
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self.counts = {name: [empty_counts(metric, num_classes)] for name, metric in metrics.items()}

    def add(self, result: _Result) -> None:
        self.confusion += result.confusion
        for name, counts in result.counts.items():
            self.counts[name].append(counts[None])

    def evaluation(self, names: list[str], seconds: dict[str, float]) -> Evaluation:
        counts = {name: np.concatenate(each) for name, each in self.counts.items()}
        return Evaluation(tuple(names), self.confusion, counts, seconds)


def _evaluate(
    model: SegmentationModel,
    loader: Iterable[Batch],
    tiling: TilingConfig | None,
    image_scale: float,
    counter: _Counter,
    on_batch: Callable[[Batch, Tensor], None] | None = None,
    loss: Callable[[Tensor, Tensor], float] | None = None,
    dtype: torch.dtype | None = None,
) -> list[Evaluation]:
    names: list[str] = []
    losses: list[float] = []
    totals = [_Total(counter.num_classes, counter.metrics) for _ in range(counter.results)]
    pending: deque[tuple[Batch, Future[list[_Result]]]] = deque()

    def collect() -> None:
        batch, future = pending.popleft()
        names.extend(batch["name"])
        results = future.result()
        for total, result in zip(totals, results):
            total.add(result)
        if on_batch is not None:
            on_batch(batch, torch.from_numpy(results[0].ids)[None])

    was_training = model.training
    model.eval()
    started = time.perf_counter()
    device = next(model.parameters()).device
    threads = counter.threads(device)
    pool = ThreadPoolExecutor(threads)
    with worker_deaths(), sizes_vary(), pool as executor, forward_time(model) as seconds:
        for batch in loader:
            image, target = batch["image"][0], batch["mask"][0].numpy()
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                outputs = list(run_tiles(model, *_shown(image, target.shape, tiling, image_scale)))
            if loss is not None and tiling is None:
                with torch.inference_mode():
                    losses.append(loss(outputs[0].logits[None], batch["mask"]))
            pending.append((batch, executor.submit(counter, outputs, image, target, model.align_corners)))
            if len(pending) > PENDING + threads - 1:
                collect()
        while pending:
            collect()
    model.train(was_training)
    times = {"total": time.perf_counter() - started, "model": sum(seconds)}
    if counter.crf_seconds:
        times["crf"] = sum(counter.crf_seconds) / len(counter.crf_seconds)
    parts = [replace(total.evaluation(names, times), losses=tuple(losses)) for total in totals]
    return [_of_all(gather(part)) for part in parts]


def _of_all(parts: list[Evaluation]) -> Evaluation:
    """The evaluation of all images, in the order of the data set, of the parts of all processes."""
    # Of process r of R, image k is number k R + r of all.
    order = sorted((index, part) for part, each in enumerate(parts) for index in range(len(each.names)))
    starts = np.cumsum([0, *(len(each.names) for each in parts)])
    places = np.array([starts[part] + index for index, part in order], np.int64)
    return Evaluation(
        tuple(parts[part].names[index] for index, part in order),
        np.sum([each.confusion for each in parts], axis=0),
        {name: np.concatenate([each.counts[name] for each in parts])[places] for name in parts[0].counts},
        {name: max(each.seconds.get(name, 0.0) for each in parts) for name in parts[0].seconds},
        tuple(parts[part].losses[index] for index, part in order if parts[part].losses),
    )


def _shown(
    image: Tensor, size: tuple[int, ...], tiling: TilingConfig | None, image_scale: float
) -> tuple[Callable[[Area], Tensor], list[Tile]]:
    """Return how to read areas of the image, and its tiles."""
    height, width = size
    if tiling is None:
        return (lambda area: image), [whole_image((height, width), (image.shape[1], image.shape[2]))]
    return (lambda area: image[:, area.rows, area.columns]), plan_tiles((height, width), tiling, image_scale)


@contextmanager
def forward_time(model: nn.Module) -> Iterator[list[float]]:
    """A list that gets the seconds that each forward pass of the model takes, until its results are there."""
    seconds: list[float] = []

    def start(*_: object) -> None:
        seconds.append(-time.perf_counter())

    def stop(*_: object) -> None:
        if next(model.parameters()).device.type != "cpu":
            torch.accelerator.synchronize()
        seconds[-1] += time.perf_counter()

    hooks = model.register_forward_pre_hook(start), model.register_forward_hook(stop)
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()
