"""Scores, of all pixels and of those that a region loss should improve: near the boundaries.

Everything is counted in whole pixels of single images. Counts of images, and of processes, add up to those of a split.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TRIMAP_WIDTHS = (1, 3, 5, 10)
"""Widths of the bands around the boundaries between labels, in pixels."""

BOUNDARY_RATIO = 0.02
"""Width of the boundaries of boundary IoU, as a share of the image's diagonal (Cheng et al. 2021)."""

MEASURES = ("all", "boundary", *(f"trimap_{width}" for width in TRIMAP_WIDTHS))
"""What is counted: all pixels, the boundaries of boundary IoU, and the pixels in each trimap."""


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
    pairs = target[valid].long() * num_classes + prediction[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def near_boundary(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels with another label within `width` rows and columns of them.

    Every value is a label, that of ignored pixels too: in PASCAL VOC they are the boundaries.

    Args:
        labels: (H, W) uint8.
        width: Half the side of the square that is searched, in pixels.

    Returns:
        (H, W) bool.
    """
    return _filtered(labels, width, np.maximum) != _filtered(labels, width, np.minimum)


def inner_boundary(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` rows and columns of another label or of the outside: (H, W) bool.

    Of the pixels of a class these are its boundary as boundary IoU has it: what `width` erosions of its mask with a
    3 x 3 square take away.
    """
    near = near_boundary(labels, width)
    near[:width] = near[max(len(near) - width, 0) :] = True
    near[:, :width] = near[:, max(near.shape[1] - width, 0) :] = True
    return near


def boundary_width(shape: tuple[int, ...]) -> int:
    """Width of the boundaries of boundary IoU in an image of `shape` = (H, W): at least 1."""
    return max(1, round(BOUNDARY_RATIO * math.hypot(*shape)))


def _filtered(labels: np.ndarray, width: int, extreme: np.ufunc) -> np.ndarray:
    """Largest or smallest value in the square around each pixel; beyond the image there is nothing new."""
    for _ in range(2):  # columns, and then rows
        padded = np.pad(labels, ((width, width), (0, 0)), mode="edge")
        length, window = 1, 2 * width + 1
        while 2 * length <= window:
            padded = extreme(padded[:-length], padded[length:])
            length *= 2
        if length < window:
            padded = extreme(padded[: length - window], padded[window - length :])
        labels = np.ascontiguousarray(padded.T)
    return labels


@dataclass(frozen=True)
class ImageCounts:
    """What is counted in one image.

    Attributes:
        confusion: (C, C) int64: pixels of each true class (rows) and predicted class (columns).
        regions: (len(MEASURES), 3, C) int64. For each measure and class the pixels that are right, those of the truth,
            and those of the prediction: intersection and union are the first, and the others less the first.
    """

    confusion: np.ndarray
    regions: np.ndarray


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
    target = np.minimum(target, np.uint8(num_classes))
    prediction = np.where(target < num_classes, prediction, target)

    # Of each pixel one number, whose histogram has all the counts in it: between which trimaps it is, whether it is on
    # a boundary of the truth and of the prediction, and its classes.
    code = np.zeros(target.shape, np.uint32)
    for width in TRIMAP_WIDTHS:
        code += ~near_boundary(target, width)
    width = boundary_width(target.shape)
    for digit, base in (
        (inner_boundary(target, width), 2),
        (inner_boundary(prediction, width), 2),
        (target, side),
        (prediction, side),
    ):
        code *= np.uint32(base)
        code += digit
    shape = (len(TRIMAP_WIDTHS) + 1, 2, 2, side, side)
    histogram = np.bincount(code.ravel(), minlength=math.prod(shape)).reshape(shape)[..., :-1, :-1]

    trimaps = histogram.sum(axis=(1, 2)).cumsum(axis=0)  # the last has all pixels
    boundary = histogram.sum(axis=0)
    on_boundary = [boundary[1, 1].diagonal(), boundary[1].sum(axis=(0, 2)), boundary[:, 1].sum(axis=(0, 1))]
    regions = [_regions(trimaps[-1]), np.stack(on_boundary), *map(_regions, trimaps[:-1])]
    return ImageCounts(trimaps[-1], np.stack(regions))


def _regions(confusion: np.ndarray) -> np.ndarray:
    return np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)])


def iou(regions: np.ndarray) -> np.ndarray:
    """Intersection over union (..., C) of counts (..., 3, C); NaN for classes in neither truth nor prediction."""
    hit, true, predicted = np.moveaxis(np.asarray(regions, np.float64), -2, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing to judge by
        return hit / (true + predicted - hit)


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(-1) / present.sum(-1)


@dataclass(frozen=True)
class Scores:
    """What counts of pixels say. Shares from 0 to 1; NaN where a class has no pixel to judge by.

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

    @classmethod
    def from_regions(cls, regions: np.ndarray) -> Scores:
        """Scores of counts (3, C): pixels that are right, of the truth, and of the prediction."""
        hit, true, _ = regions = np.asarray(regions, np.float64)
        ious = iou(regions)
        with np.errstate(invalid="ignore"):
            accuracy = hit / true
            return cls(
                iou=tuple(ious.tolist()),
                accuracy=tuple(accuracy.tolist()),
                mean_iou=float(nan_mean(ious)),
                pixel_accuracy=float(hit.sum() / true.sum()),
                mean_accuracy=float(nan_mean(accuracy)),
                frequency_weighted_iou=float((np.nan_to_num(ious) * true).sum() / true.sum()),
                pixels=int(true.sum()),
            )

    @classmethod
    def from_confusion(cls, confusion: Tensor) -> Scores:
        """Scores of a (C, C) confusion matrix as `confusion_matrix` counts it."""
        return cls.from_regions(_regions(confusion.cpu().numpy()))
