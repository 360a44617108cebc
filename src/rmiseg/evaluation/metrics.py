"""Metrics: what is counted in every image, and the scores that the sums over images have.

The package's own, "iou", scores all pixels, and those that a region loss should improve: near the boundaries. Others
are registered in the same way, `@register("metric", name)`, and come with it everywhere: in tables, intervals,
comparisons and files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rmiseg.config.registry import find, register
from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.evaluation.boundaries import BAND, boundary_width, inner_boundary, near_boundary, pixels
from rmiseg.runtime.words import scope_of_mean

BUILT_IN = "iou"
"""The metric that is always counted."""

TRIMAP_WIDTHS = (1, 3, 5, 10)
"""Widths of the bands around the boundaries between labels, in pixels."""

PLACES = 4 * (len(TRIMAP_WIDTHS) + 1)
"""Numbers of places of a pixel: between trimaps, and on the boundaries of truth and prediction."""

MEASURES = ("all", "boundary", *(f"trimap_{width}" for width in TRIMAP_WIDTHS))
"""Parts of an image that the metric iou counts: all pixels, those of boundary IoU, and those in each trimap."""

RESERVED = frozenset(
    {"format", "checkpoint", "sha256", "step", "data", "root", "split", "settings", "metrics", "made_with"}
    | {"images", "pixels", "intervals", "classes", "confusion", "seconds", "name", "iou"}
)
"""Names in the files of an evaluation that no score can have."""


class Metric(Protocol):
    """A metric. It is registered as a class that takes no arguments."""

    def count(self, prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
        """Count in one image what the scores are made of.

        Args:
            prediction: (H, W) uint8 class ids.
            target: (H, W) uint8 class ids; 255 is ignored, and all pixels may be.
            num_classes: Number of classes C.

        Returns:
            Numbers, int64 or float64, of a shape that depends on C alone, which are added up over images.
        """

    def scores(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of sums of counts.

        Args:
            counts: (..., *shape), where shape is that of what `count` returns.

        Returns:
            Scores from 0 to 1 by name, (...) each; NaN where there is nothing to judge by.
        """


def load_metrics(names: Iterable[str], num_classes: int, made_with: Iterable[str] = ()) -> dict[str, Metric]:
    """Metrics by their names, after the built-in one, and tried on an image without a valid pixel.

    Raises:
        ValueError: There is no metric of a name, one gives something else than it should, or two have a score of the
            same name.
    """
    metrics: dict[str, Metric] = {}
    origin = dict.fromkeys(RESERVED, "the files of an evaluation")
    for name in dict.fromkeys([BUILT_IN, *names]):
        metric = metrics[name] = find_metric(name, made_with)
        counts = empty_counts(metric, num_classes)
        for score, values in metric.scores(np.zeros((2, *counts.shape[1:]), counts.dtype)).items():
            if np.shape(values) != (2,):
                raise ValueError(
                    f"metric {name}: of counts of the shape (2, ...) the score {score} must have the shape (2,), not "
                    f"{np.shape(values)}"
                )
            if score in origin:
                raise ValueError(f"metric {name}: its score {score!r} has a name that is taken, by {origin[score]}")
            origin[score] = f"the metric {name}"
    return metrics


def find_metric(name: str, made_with: Iterable[str] = ()) -> Metric:
    """The metric of a name; `made_with` are the plugins that it may come from, for the error message.

    Raises:
        ValueError: There is none.
    """
    component = find("metric", name, made_with)
    metric: Metric = component.make(*([name.partition(":")[2]] if component.name.endswith(":") else []))
    return metric


def empty_counts(metric: Metric, num_classes: int) -> np.ndarray:
    """The counts of no image: (0, *shape)."""
    ignored = np.full((16, 16), IGNORE_INDEX, np.uint8)
    counts = np.asarray(metric.count(np.zeros_like(ignored), ignored, num_classes))
    if counts.dtype not in (np.int64, np.float64):
        raise ValueError(f"counts must be int64 or float64, not {counts.dtype}, as {type(metric).__name__} gives them")
    return counts[None][:0]


def scores_of(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All scores by name, (...) each, of the counts (..., *shape) of each metric."""
    return {score: values for name, each in counts.items() for score, values in find_metric(name).scores(each).items()}


@register("metric", "iou")
class IoU:
    """Intersection over union, accuracy, boundary IoU and trimaps; counts are (len(MEASURES), 3, C) int64."""

    def count(self, prediction: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
        """See `count_image`."""
        return count_image(prediction, target, num_classes).counts

    def scores(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """See `Scores`; boundary_mean_iou and trimap_N_mean_iou are the mean IoU of the other measures."""
        others = {f"{name}_mean_iou": nan_mean(iou(counts[..., i, :, :])) for i, name in enumerate(MEASURES) if i}
        return {**overall_scores(counts[..., 0, :, :]), **others}


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of every (true class, predicted class) pair.

    Args:
        prediction: Class ids, any shape, any integer dtype.
        target: Class ids of the same shape; pixels outside 0 .. C-1 are left out.
        num_classes: Number of classes C.

    Returns:
        (C, C) int64: rows are true classes, columns predicted ones.
    """
    valid = (target >= 0) & (target < num_classes)
    # Neither indices by a mask nor bincount, which wait for a GPU.
    pairs = torch.where(valid, target.long() * num_classes + prediction.long(), num_classes**2).flatten()
    counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=pairs.device)
    return counts.scatter_add_(0, pairs, torch.ones_like(pairs))[:-1].view(num_classes, num_classes)


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image by the built-in metric.

    Attributes:
        confusion: (C, C) int64: pixels of each true class (rows) and predicted class (columns).
        counts: (len(MEASURES), 3, C) int64. For each measure and class the pixels that are right, those of the truth,
            and those of the prediction: intersection and union are the first, and the others less the first.
    """

    confusion: np.ndarray
    counts: np.ndarray


def count_image(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> ImageCounts:
    """Count the pixels of one image by which every score is taken.

    Boundary IoU (Cheng et al., CVPR 2021) compares, for each class, the pixels of the truth within a width of its
    contour with those of the prediction within that width of the prediction's. The contour is also where the image
    ends. Ignored pixels belong to no class, neither in truth nor in prediction.

    A trimap (Kohli et al., IJCV 2009; Krähenbühl and Koltun, NeurIPS 2011) has the pixels within some width of
    the contours of the truth, on both sides.

    Args:
        prediction: (H, W) uint8 class ids.
        target: (H, W) uint8 class ids; what is not one of 0 .. C-1 is ignored.
        num_classes: Number of classes C.
    """
    side = num_classes + 1  # ignored pixels are one more class, which is left out at the end
    height, columns = target.shape
    bands = [slice(start, start + BAND) for start in range(0, height, BAND)]
    target, prediction = _with_ignored(target, prediction, num_classes, bands)
    width = boundary_width(target.shape)
    near = near_boundary(target, {*TRIMAP_WIDTHS, width})
    places = [near[each] for each in TRIMAP_WIDTHS]
    places.append(inner_boundary(near[width], width, columns))
    places.append(inner_boundary(near_boundary(prediction, [width])[width], width, columns))
    lanes = 4 if 4 * PLACES * side**2 <= 1 << 15 else 1
    counted = [
        _histogram(
            _places([each[:, band] for each in places], columns, lanes), target[band], prediction[band], side, lanes
        )
        for band in bands
    ]
    histogram = np.sum(counted, axis=0)
    histogram = histogram.reshape(-1, 2, 2, side, side)[::-1, ..., :-1, :-1]

    trimaps = histogram.sum(axis=(1, 2)).cumsum(axis=0)  # the last has all pixels
    boundary = histogram.sum(axis=0)
    on_boundary = [boundary[1, 1].diagonal(), boundary[1].sum(axis=(0, 2)), boundary[:, 1].sum(axis=(0, 1))]
    counts = [_class_counts(trimaps[-1]), np.stack(on_boundary), *map(_class_counts, trimaps[:-1])]
    return ImageCounts(trimaps[-1], np.stack(counts))


def _with_ignored(
    target: np.ndarray, prediction: np.ndarray, num_classes: int, bands: list[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Give every ignored pixel the class C, in both."""
    row = np.full(target.shape[1], num_classes, np.uint8)  # NumPy takes ten times as long with a number
    targets, predictions = np.empty_like(target), np.empty_like(prediction)
    for band in bands:
        own = np.minimum(target[band], row, out=targets[band])
        ignored = (own == row).view(np.uint8)
        ignored *= row
        np.maximum(prediction[band], ignored, out=ignored)
        np.minimum(ignored, row, out=predictions[band])
    return targets, predictions


def _places(words: list[np.ndarray], columns: int, lanes: int) -> np.ndarray:
    """Places of pixels (H, W) uint8, below `PLACES`, each beside those of the other lanes.

    Args:
        words: Those of `pixels`, of each trimap, and of the boundaries of truth and prediction.
        columns: Number W.
        lanes: See `_histogram`.
    """
    *trimaps, true, predicted = (pixels(each, columns) for each in words)
    place = trimaps[0]
    for trimap in trimaps[1:]:
        place += trimap
    place += PLACES // 4 * (np.arange(columns, dtype=np.uint8) % lanes)
    for boundary in (true, predicted):
        place += place
        place += boundary
    return place


def _histogram(place: np.ndarray, target: np.ndarray, prediction: np.ndarray, side: int, lanes: int) -> np.ndarray:
    """Pixels by place and classes: (PLACES, side, side) int64.

    Args:
        place: (H, W) uint8, below `PLACES`, and as much more for each lane.
        target: (H, W) uint8, below `side`.
        prediction: Likewise.
        side: Number of classes, the ignored one among them.
        lanes: Neighbors are mostly alike, and to add to one counter again and again is slow: so many have their own.
    """
    bins = lanes * PLACES * side**2
    code: np.ndarray = place.astype(np.int16 if bins <= 1 << 15 else np.int32)
    for digit in (target, prediction):
        code *= side
        code += digit
    # Not NumPy's, which makes 64 bits of every number first.
    counts = torch.from_numpy(code).flatten().bincount(minlength=bins)
    histogram: np.ndarray = counts.view(lanes, PLACES, side, side).sum(dim=0).numpy()
    return histogram


def _class_counts(confusion: np.ndarray) -> np.ndarray:
    return np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)])


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union (..., C) of counts (..., 3, C); NaN for classes in neither truth nor prediction."""
    hit, true, predicted = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing to judge by
        shares: np.ndarray = hit / (true + predicted - hit)
    return shares


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(present, values, 0).sum(-1) / present.sum(-1)
    return mean


def overall_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores over all classes, (...) each, of counts (..., 3, C); named and described as in `Scores`."""
    hit, true, _ = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    ious = iou(counts)
    with np.errstate(invalid="ignore"):
        return {
            "mean_iou": nan_mean(ious),
            "pixel_accuracy": hit.sum(-1) / true.sum(-1),
            "mean_accuracy": nan_mean(hit / true),
            "frequency_weighted_iou": (np.nan_to_num(ious) * true).sum(-1) / true.sum(-1),
        }


@dataclass(frozen=True)
class Scores:
    """Scores of counts of pixels, as shares from 0 to 1; NaN where a class has no pixel to judge by.

    Attributes:
        iou: Intersection over union of each class; NaN for classes in neither truth nor prediction.
        accuracy: Share of each class's true pixels that were found (recall).
        mean_iou: Mean of `iou` over the classes that have one.
        pixel_accuracy: Share of all pixels that are right.
        mean_accuracy: Mean of `accuracy` over the classes that have one.
        frequency_weighted_iou: Mean of `iou` weighted by the classes' true pixels.
        pixels: Number of pixels scored.
    """

    iou: tuple[float, ...]
    accuracy: tuple[float, ...]
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    pixels: int

    @property
    def scope(self) -> str:
        """The classes that `mean_iou` is the mean of, if they are not all; see `scope_of_mean`."""
        return scope_of_mean(self.classes_scored, len(self.iou))

    @property
    def classes_scored(self) -> int:
        """Number of classes that `mean_iou` is the mean of."""
        return sum(not math.isnan(value) for value in self.iou)

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> Scores:
        """Scores of counts (3, C): pixels that are right, of the truth, and of the prediction."""
        hit, true, _ = np.asarray(counts, np.float64)
        with np.errstate(invalid="ignore"):
            accuracy = hit / true
        return cls(
            iou=tuple(iou(counts).tolist()),
            accuracy=tuple(accuracy.tolist()),
            pixels=int(true.sum()),
            **{name: float(value) for name, value in overall_scores(counts).items()},
        )

    @classmethod
    def from_confusion(cls, confusion: Tensor) -> Scores:
        """Scores of a (C, C) confusion matrix as `confusion_matrix` counts it."""
        return cls.from_counts(_class_counts(confusion.cpu().numpy()))
