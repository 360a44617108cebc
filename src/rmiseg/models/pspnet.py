"""PSPNet: Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, arXiv:1612.01105."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmiseg.config.registry import register
from rmiseg.models.backbones import Backbone
from rmiseg.models.base import BackboneModel
from rmiseg.models.layers import PooledContext, classification_head

BINS = (1, 2, 3, 6)
WIDTH = 512  # channels of the convolution before the classifier
AUXILIARY_WIDTH = 256


class PyramidPooling(nn.Module):
    """Pyramid pooling (arXiv:1612.01105, section 3.2, figure 3): the features beside their means over 1, 4, 9, 36 bins.

    With four levels each is projected to a quarter of the input's channels, so that local features and context have
    equal weight: (N, in_channels, h, w) to (N, out_channels, h, w) with out_channels about 2 in_channels.

    Args:
        in_channels: Channels of the deepest feature map.
        align_corners: Corner convention by which the means are resized.
    """

    def __init__(self, in_channels: int, align_corners: bool = False) -> None:
        super().__init__()
        level_channels = in_channels // len(BINS)
        self.levels = nn.ModuleList(PooledContext(in_channels, level_channels, bins, align_corners) for bins in BINS)
        self.out_channels = in_channels + len(BINS) * level_channels

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, *(level(features) for level in self.levels)], dim=1)


@dataclass
class PSPNetOptions:
    """Own options of pspnet."""

    align_corners: bool = False
    """Corner convention of the interpolations inside the head."""
    channel_dropout: bool = False
    """Drop whole channels before the classifiers, instead of single values."""


@register("model", "pspnet", options=PSPNetOptions)
class PSPNet(BackboneModel):
    """PSPNet: pyramid pooling on the deepest feature map, and an auxiliary classifier on the stage before it.

    Logits have the backbone's output stride. In training mode the model returns (logits, auxiliary logits), the latter
    at the stride of the second deepest stage (arXiv:1612.01105, section 3.3); in evaluation mode logits only.

    Args:
        backbone: Feature extractor.
        num_classes: Number of classes.
        align_corners: See `BackboneModel`.
        channel_dropout: Drop whole channels before the classifiers, instead of single values.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, align_corners: bool = False, channel_dropout: bool = False
    ) -> None:
        super().__init__(backbone, num_classes, align_corners)
        self.pyramid = PyramidPooling(backbone.channels[-1], align_corners)
        self.classifier = classification_head(self.pyramid.out_channels, WIDTH, num_classes, channel_dropout)
        self.auxiliary = classification_head(backbone.channels[-2], AUXILIARY_WIDTH, num_classes, channel_dropout)

    def decode(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(self.pyramid(features[-1]))
        return logits
