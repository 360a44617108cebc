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
from rmiseg.engine.metrics import MEASURES, ImageCounts, Scores, count_image
from rmiseg.inference.segment import Box, Piece, View, plan_views, run_views, segment, whole_view

PENDING = 2
"""Images that may wait to be counted while the model goes on."""


@dataclass(frozen=True)
class Evaluation:
    """What was counted in every image of a split, and the scores that follow.

    Attributes:
        names: Names of the I images.
        confusion: (C, C) int64: pixels of each true class (rows) and predicted class (columns), over all images.
        regions: (I, len(MEASURES), 3, C) int64, see `ImageCounts.regions`.
        seconds: Time taken: "total", and of it "model", the forward passes.
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
        loader: Yields image uint8 (1, 3, h, w) and mask uint8 (1, H, W).
        num_classes: Number of classes C.
        device: Where the model is.
        on_batch: Called with each batch and its predicted class ids (1, H, W) uint8.
        views: Scales, flip and windows; the loader's images are then of the size of the masks. By default the model
            sees every image as it comes from the loader.
        image_scale: Factor that multiplies every scale of `views`.
    """
    names: list[str] = []
    regions: list[np.ndarray] = []
    confusion = np.zeros((num_classes, num_classes), np.int64)
    pending: deque[tuple[Batch, Future[tuple[np.ndarray, ImageCounts]]]] = deque()

    def collect() -> None:
        batch, future = pending.popleft()
        ids, counts = future.result()
        names.extend(batch["name"])
        regions.append(counts.regions)
        np.add(confusion, counts.confusion, out=confusion)
        if on_batch is not None:
            on_batch(batch, torch.from_numpy(ids)[None])

    was_training = model.training
    model.eval()
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as executor, forward_time(model) as seconds:
        for batch in loader:
            target = batch["mask"][0].numpy()
            pieces = list(run_views(model, *_shown(batch["image"][0], target.shape, views, image_scale)))
            job = executor.submit(_count, pieces, target, num_classes, model.align_corners)
            pending.append((batch, job))
            if len(pending) > PENDING:
                collect()
        while pending:
            collect()
    model.train(was_training)
    times = {"total": time.perf_counter() - started, "model": sum(seconds)}
    stacked = np.stack(regions) if regions else np.zeros((0, len(MEASURES), 3, num_classes), np.int64)
    return Evaluation(tuple(names), confusion, stacked, times)


def _shown(
    image: Tensor, size: tuple[int, ...], views: ViewConfig | None, image_scale: float
) -> tuple[Callable[[Box], Tensor], list[View]]:
    """How to read parts of the image, and the views of it."""
    height, width = size
    if views is None:
        return (lambda box: image), [whole_view((height, width), (image.shape[1], image.shape[2]))]
    return (lambda box: image[:, box.rows, box.columns]), plan_views((height, width), views, image_scale)


def _count(
    pieces: list[Piece], target: np.ndarray, num_classes: int, align_corners: bool
) -> tuple[np.ndarray, ImageCounts]:
    ids = segment(pieces, (target.shape[0], target.shape[1]), align_corners)
    return ids, count_image(ids, target, num_classes)


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
