"""Scores from confusion matrices, overall and near boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BOUNDARY_WIDTH = 3
"""Pixels on each side of a label edge that count as near a boundary."""


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


def near_boundary(target: Tensor, num_classes: int, width: int = BOUNDARY_WIDTH) -> Tensor:
    """Pixels with a pixel of another class within `width` rows and columns; ignored pixels make no boundary.

    Args:
        target: (N, H, W) class ids; values outside 0 .. C-1 are ignored pixels.
        num_classes: Number of classes C.
        width: Half the side of the square that is searched, in pixels.

    Returns:
        (N, H, W) bool.
    """
    ids = target.long()
    ignored = (ids < 0) | (ids >= num_classes)
    window = 2 * width + 1
    highest = F.max_pool2d(ids.masked_fill(ignored, -1).float(), window, 1, width)
    lowest = -F.max_pool2d(-ids.masked_fill(ignored, num_classes).float(), window, 1, width)
    return (highest > lowest) & ~ignored


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says. Shares from 0 to 1; NaN where a class has no pixel to judge by.

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
    def from_confusion(cls, confusion: Tensor) -> Scores:
        """Scores of a (C, C) confusion matrix as `confusion_matrix` counts it."""
        counts = confusion.double().cpu()
        hit, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        iou = hit / (true + predicted - hit)  # 0 / 0 is NaN: nothing to judge by
        accuracy = hit / true
        return cls(
            iou=tuple(iou.tolist()),
            accuracy=tuple(accuracy.tolist()),
            mean_iou=iou.nanmean().item(),
            pixel_accuracy=(hit.sum() / counts.sum()).item(),
            mean_accuracy=accuracy.nanmean().item(),
            frequency_weighted_iou=(iou.nan_to_num() * true).sum().div(true.sum()).item(),
            pixels=int(counts.sum()),
        )
