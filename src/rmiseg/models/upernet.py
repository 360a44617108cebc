"""UPerNet, and a linear head: for pyramids of feature maps and for plain vision transformers alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d  # type: ignore[attr-defined]  # not in an __all__
from torch import Tensor, nn

from rmiseg.config.registry import register
from rmiseg.models.backbones import Backbone
from rmiseg.models.base import BackboneModel
from rmiseg.models.layers import DROPOUT, ConvNormReLU, PooledContext, check_width, classification_head, conv2d

BINS = (1, 2, 3, 6)
AUXILIARY_WIDTH = 256
FACTORS = (4.0, 2.0, 1.0, 0.5)
"""Sizes of the maps of a plain transformer in the pyramid that is made of them, relative to its own."""


@dataclass
class UPerNetOptions:
    """Own options of upernet."""

    align_corners: bool = False
    """Corner convention of the interpolations inside the head."""
    width: int = 256
    """Channels of all maps of the head."""
    auxiliary: bool = False
    """A second classifier on the map before the deepest, in training: deep supervision, weighted by loss.aux_weight."""
    norm_features: bool = False
    """Layer norm over the channels of each map of the backbone, with which ConvNeXt is used (arXiv:2201.03545)."""


@register("model", "upernet", options=UPerNetOptions)
class UPerNet(BackboneModel):
    """UPerNet (Xiao et al., ECCV 2018, arXiv:1807.10221, section 3.1): pyramid pooling, then a feature pyramid.

    Logits have the stride of the shallowest map. Four maps of a plain vision transformer, which are all of one size,
    are resized to a pyramid first (as in BEiT, arXiv:2106.08254, with interpolation in place of its deconvolutions):
    logits then have a fourth of the stride of its patches.

    Args:
        backbone: Feature extractor.
        num_classes: Number of classes.
        align_corners: See `BackboneModel`.
        width: Channels of all maps of the head.
        auxiliary: Return (logits, auxiliary logits) in training mode, the latter from the map before the deepest.
        norm_features: See `UPerNetOptions`.

    Raises:
        ValueError: A width below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        align_corners: bool = False,
        width: int = 256,
        auxiliary: bool = False,
        norm_features: bool = False,
    ) -> None:
        super().__init__(backbone, num_classes, align_corners)
        check_width(width)
        self.corners = align_corners
        self.factors = FACTORS if len(set(backbone.reductions)) == 1 else None
        # Maps of less than stride 4, which some backbones have, cost most and say little.
        self.used = [i for i, stride in enumerate(backbone.reductions) if stride >= 4]
        channels = [backbone.channels[i] for i in self.used]
        self.norms = nn.ModuleList(LayerNorm2d(each) if norm_features else nn.Identity() for each in channels)
        self.levels = nn.ModuleList(PooledContext(channels[-1], width, bins, align_corners) for bins in BINS)
        self.context = ConvNormReLU(channels[-1] + len(BINS) * width, width, kernel_size=3)
        self.lateral = nn.ModuleList(ConvNormReLU(each, width) for each in channels[:-1])
        self.smooth = nn.ModuleList(ConvNormReLU(width, width, kernel_size=3) for _ in channels[:-1])
        self.fuse = ConvNormReLU(len(channels) * width, width, kernel_size=3)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = conv2d(width, num_classes)
        self.auxiliary = classification_head(channels[-2], AUXILIARY_WIDTH, num_classes) if auxiliary else None

    def taken(self, features: list[Tensor]) -> list[Tensor]:
        return [norm(features[i]) for norm, i in zip(self.norms, self.used)]

    def decode(self, features: list[Tensor]) -> Tensor:
        if self.factors is not None:
            features = [self._scaled(each, factor) for each, factor in zip(features, self.factors)]
        pooled = [features[-1], *(level(features[-1]) for level in self.levels)]
        context = self.context(torch.cat(pooled, dim=1))
        maps = [context]
        for lateral, smooth, each in [*zip(self.lateral, self.smooth, features)][::-1]:
            own = lateral(each)
            context = own + self._resized(context, own)
            maps.append(smooth(context))
        fused = self.fuse(torch.cat([self._resized(each, maps[-1]) for each in maps], dim=1))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits

    def _resized(self, maps: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=self.corners)

    def _scaled(self, maps: Tensor, factor: float) -> Tensor:
        if factor == 1:
            return maps
        if factor < 1:
            return F.max_pool2d(maps, 2, ceil_mode=True)
        return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=self.corners)


@dataclass
class LinearOptions:
    """Own options of linear."""

    align_corners: bool = False
    """Corner convention of the interpolation of logits to full size, before training says otherwise."""


@register("model", "linear", options=LinearOptions)
class LinearHead(BackboneModel):
    """Batch norm and a 1x1 classifier on the deepest feature map: a probe of what a pretrained backbone knows already.

    As in DINOv2 (Oquab et al., arXiv:2304.07193, section 7.4).

    Logits have the backbone's output stride.

    Args:
        backbone: Feature extractor.
        num_classes: Number of classes.
        align_corners: See `BackboneModel`.
    """

    def __init__(self, backbone: Backbone, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(backbone, num_classes, align_corners)
        self.norm = nn.BatchNorm2d(backbone.channels[-1])
        self.classifier = conv2d(backbone.channels[-1], num_classes)

    def decode(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(self.norm(features[-1]))
        return logits
