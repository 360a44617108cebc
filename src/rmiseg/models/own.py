"""Networks of anybody's own as segmentation models."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rmiseg.models.base import SegmentationModel
from rmiseg.models.external.wrapped import IMAGENET, WrappedModel


def adapt_model(network: nn.Module, num_classes: int) -> SegmentationModel:
    """Make any network from images (N, 3, H, W) to logits (N, C, h, w) a `SegmentationModel`.

    Raises:
        ValueError: It takes no image of any size, or gives something else than logits of `num_classes` classes.
    """
    if isinstance(network, SegmentationModel):
        return network
    return WrappedModel(network, _logits, "", num_classes=num_classes, architecture=dict(IMAGENET))


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    output: Any = network(images)
    logits: Tensor = output["out"] if isinstance(output, dict) else output
    return logits
