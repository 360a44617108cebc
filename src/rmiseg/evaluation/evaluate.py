"""Scoring a model on a split, at the size of its masks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from rmiseg.config import ViewConfig
from rmiseg.data import Batch
from rmiseg.evaluation.metrics import MEASURES, ImageCounts, Scores, count_image
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.segment import probabilities, segment
from rmiseg.inference.tiles import Area, Tile, TileLogits, plan_tiles, run_tiles, whole_image
from rmiseg.runtime.distributed import gather

PENDING = 2
"""Images that may wait to be counted while the model goes on."""


@dataclass(frozen=True)
class Evaluation:
    """What was counted in every image of a split, and the scores that follow.

    Attributes:
        names: Names of the I images.
        confusion: (C, C) int64: pixels of each true class (rows) and predicted class (columns), over all images.
        regions: (I, len(MEASURES), 3, C) int64, see `ImageCounts.regions`.
        seconds: Time taken: "total", and of it "model", the forward passes; "crf", of a dense CRF on one image.
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    regions: np.ndarray
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def measures(self) -> dict[str, Scores]:
        """The scores of every measure, over all images."""
        return {name: Scores.from_regions(counts) for name, counts in zip(MEASURES, self.regions.sum(axis=0))}

    @property
    def everywhere(self) -> Scores:
        """The scores over all pixels."""
        return self.measures["all"]

    def summary(self) -> dict[str, float]:
        """The scores that are one number each, as shares from 0 to 1."""
        return {
            "mean_iou": self.everywhere.mean_iou,
            "pixel_accuracy": self.everywhere.pixel_accuracy,
            "mean_accuracy": self.everywhere.mean_accuracy,
            "frequency_weighted_iou": self.everywhere.frequency_weighted_iou,
            **{f"{name}_mean_iou": self.measures[name].mean_iou for name in MEASURES[1:]},
        }


def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    num_classes: int,
    device: torch.device,
    on_batch: Callable[[Batch, Tensor], None] | None = None,
    views: ViewConfig | None = None,
    image_scale: float = 1.0,
) -> Evaluation:
    """Score `model` on every image of `loader`, at the size of the masks, whatever the size the network saw.

    Counting overlaps the model's work on the next image.

    Args:
        model: Put into evaluation mode, and back into the mode that it was in.
        loader: Yields image uint8 (1, 3, h, w) and mask uint8 (1, H, W). Of several processes, each has its part of
            the images, as `eval_loader` divides them; the scores are those of all, in every process.
        num_classes: Number of classes C.
        device: Where the model is.
        on_batch: Called with each batch and its predicted class ids (1, H, W) uint8.
        views: Scales, flip and windows; the loader's images are then of the size of the masks. By default the model
            sees every image as it comes from the loader.
        image_scale: Factor that multiplies every scale of `views`.
    """
    (evaluation,) = _evaluate(model, loader, num_classes, views, image_scale, _Counting(num_classes), on_batch)
    return evaluation


def evaluate_refined(
    model: nn.Module, loader: Iterable[Batch], num_classes: int, crf: DenseCRF, views: ViewConfig, image_scale: float
) -> list[Evaluation]:
    """Score `model` alone, and refined by a dense CRF with each of its numbers of iterations; see `evaluate`."""
    return _evaluate(model, loader, num_classes, views, image_scale, _Counting(num_classes, crf))


class _Counting:
    """What is done with the logits of an image, once they are there: several results of it are counted."""

    def __init__(self, num_classes: int, crf: DenseCRF | None = None) -> None:
        self.num_classes = num_classes
        self.crf = crf
        self.results = 1 + len(crf.iterations if crf else ())
        self.threads = crf.workers if crf else 1
        self.crf_seconds: list[float] = []

    def __call__(
        self, outputs: list[TileLogits], image: Tensor, target: np.ndarray, align_corners: bool
    ) -> list[tuple[np.ndarray, ImageCounts]]:
        size = (target.shape[0], target.shape[1])
        results = [segment(outputs, size, align_corners)]
        if self.crf:
            shares = probabilities(outputs, size, align_corners).cpu().numpy()
            refined = self.crf(image.permute(1, 2, 0).numpy(), shares)
            self.crf_seconds.append(refined.seconds)
            results += refined.ids
        return [(ids, count_image(ids, target, self.num_classes)) for ids in results]


def _evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    num_classes: int,
    views: ViewConfig | None,
    image_scale: float,
    count: _Counting,
    on_batch: Callable[[Batch, Tensor], None] | None = None,
) -> list[Evaluation]:
    names: list[str] = []
    regions: list[list[np.ndarray]] = [[] for _ in range(count.results)]
    confusions = np.zeros((count.results, num_classes, num_classes), np.int64)
    pending: deque[tuple[Batch, Future[list[tuple[np.ndarray, ImageCounts]]]]] = deque()

    def collect() -> None:
        batch, future = pending.popleft()
        results = future.result()
        names.extend(batch["name"])
        for (_, counts), own, confusion in zip(results, regions, confusions):
            own.append(counts.regions)
            confusion += counts.confusion
        if on_batch is not None:
            on_batch(batch, torch.from_numpy(results[0][0])[None])

    was_training = model.training
    model.eval()
    started = time.perf_counter()
    with ThreadPoolExecutor(count.threads) as executor, forward_time(model) as seconds:
        for batch in loader:
            image, target = batch["image"][0], batch["mask"][0].numpy()
            outputs = list(run_tiles(model, *_shown(image, target.shape, views, image_scale)))
            pending.append((batch, executor.submit(count, outputs, image, target, model.align_corners)))
            if len(pending) > PENDING + count.threads - 1:
                collect()
        while pending:
            collect()
    model.train(was_training)
    times = {"total": time.perf_counter() - started, "model": sum(seconds)}
    if count.crf_seconds:
        times["crf"] = sum(count.crf_seconds) / len(count.crf_seconds)
    empty = np.zeros((0, len(MEASURES), 3, num_classes), np.int64)
    return [
        _together(gather(Evaluation(tuple(names), confusion, np.stack(own) if own else empty, times)))
        for own, confusion in zip(regions, confusions)
    ]


def _together(parts: list[Evaluation]) -> Evaluation:
    """The evaluation of all images, in the order of the data set, of the parts of all processes."""
    # Of process r of R, image k is number k R + r of all.
    order = sorted((index, part) for part, each in enumerate(parts) for index in range(len(each.names)))
    return Evaluation(
        tuple(parts[part].names[index] for index, part in order),
        sum((part.confusion for part in parts[1:]), parts[0].confusion),
        np.concatenate([parts[part].regions[index : index + 1] for index, part in order] or [parts[0].regions]),
        {name: max(part.seconds.get(name, 0.0) for part in parts) for name in parts[0].seconds},
    )


def _shown(
    image: Tensor, size: tuple[int, ...], views: ViewConfig | None, image_scale: float
) -> tuple[Callable[[Area], Tensor], list[Tile]]:
    """How to read areas of the image, and the tiles of it."""
    height, width = size
    if views is None:
        return (lambda area: image), [whole_image((height, width), (image.shape[1], image.shape[2]))]
    return (lambda area: image[:, area.rows, area.columns]), plan_tiles((height, width), views, image_scale)


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
