"""DeepLabv3 and DeepLabv3+.

DeepLabv3: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv:1706.05587.
DeepLabv3+: Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018, arXiv:1802.02611. Its separable
convolutions are an option of that paper, and so they are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.config.registry import register
from rmiseg.models.backbones import Backbone
from rmiseg.models.base import BackboneModel
from rmiseg.models.layers import (
    DROPOUT,
    ConvNormReLU,
    PooledContext,
    SeparableConvNormReLU,
    check_width,
    classification_head,
    conv2d,
)

WIDTH = 256  # channels of every convolution of both heads, whatever the backbone's width
AUXILIARY_WIDTH = 256
LOW_LEVEL_STRIDE = 4
LOW_LEVEL_WIDTH = 48  # few, lest the low-level features outweigh the 256 of the encoder (arXiv:1802.02611, table 1)


def auxiliary_head(backbone: Backbone, num_classes: int) -> nn.Module:
    """A classifier of the map before the deepest (arXiv:1612.01105, section 3.3)."""
    return classification_head(backbone.channels[-2], AUXILIARY_WIDTH, num_classes)


def rates(output_stride: int) -> tuple[int, int, int]:
    """Return the dilations of ASPP: 6, 12, 18 at stride 16, at others scaled to the same distances in the image."""
    return (6 * 16 // output_stride, 12 * 16 // output_stride, 18 * 16 // output_stride)


def conv3x3(in_channels: int, out_channels: int, dilation: int, separable: bool) -> nn.Module:
    """A 3x3 convolution with batch norm and ReLU, plain or separable."""
    if separable:
        return SeparableConvNormReLU(in_channels, out_channels, dilation)
    return ConvNormReLU(in_channels, out_channels, 3, dilation)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features (arXiv:1706.05587, section 3.3, figure 5).

    A 1x1 convolution, three 3x3 convolutions of growing dilation and image pooling side by side, then a 1x1
    convolution over all: (N, in_channels, h, w) to (N, width, h, w).

    Args:
        in_channels: Channels of the deepest feature map.
        output_stride: Stride of that map, to which the rates belong, see `rates`.
        width: Channels of each branch, and of the result.
        project_kernel: Kernel size of the convolution over all branches.
        separable: Make the 3x3 convolutions separable.
    """

    def __init__(
        self, in_channels: int, output_stride: int, width: int = WIDTH, project_kernel: int = 1, separable: bool = False
    ) -> None:
        super().__init__()
        check_width(width)
        self.convs = nn.ModuleList([ConvNormReLU(in_channels, width)])
        for rate in rates(output_stride):
            self.convs.append(conv3x3(in_channels, width, rate, separable))
        self.image_pooling = PooledContext(in_channels, width)
        self.project = ConvNormReLU((len(self.convs) + 1) * width, width, project_kernel)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, features: Tensor) -> Tensor:
        branches = [conv(features) for conv in self.convs] + [self.image_pooling(features)]
        context: Tensor = self.dropout(self.project(torch.cat(branches, dim=1)))
        return context


@dataclass
class DeepLabV3Options:
    """Own options of deeplabv3."""

    align_corners: bool = False
    """Corner convention of the interpolations inside the head."""
    refine: bool = False
    """A 3x3 convolution between ASPP and classifier, as torchvision, segmentation-models-pytorch and PyTorch-Encoding
    have it."""
    auxiliary: bool = False
    """A second classifier on the map before the deepest, in training: deep supervision, weighted by loss.aux_weight."""
    width: int = WIDTH
    """Channels of the head; mmsegmentation has 512."""
    project_kernel: Literal[1, 3] = 1
    """Kernel size of the convolution over all branches of ASPP: 1 as in the paper, 3 as mmsegmentation has it."""


@dataclass
class DeepLabV3PlusOptions:
    """Own options of deeplabv3plus."""

    align_corners: bool = False
    """Corner convention of the interpolations inside the head."""
    auxiliary: bool = False
    """A second classifier on the map before the deepest, in training: deep supervision, weighted by loss.aux_weight."""
    decoder_dropout: bool = False
    """Drop values before the classifier too, not behind ASPP alone, as the code of the RMI paper does."""
    separable: bool = False
    """Separable convolutions in ASPP and decoder, an option of the paper: fewer operations."""
    width: int = WIDTH
    """Channels of the head; mmsegmentation has 512."""
    project_kernel: Literal[1, 3] = 1
    """Kernel size of the convolution over all branches of ASPP: 1 as in the paper, 3 as mmsegmentation has it."""


@register("model", "deeplabv3", options=DeepLabV3Options)
class DeepLabV3(BackboneModel):
    """DeepLabv3 (arXiv:1706.05587): ASPP on the deepest feature map and a 1x1 classifier.

    Logits have the backbone's output stride.

    Args:
        backbone: Feature extractor.
        num_classes: Number of classes.
        align_corners: See `BackboneModel`.
        refine: Put a 3x3 convolution between ASPP and classifier, which the paper does not have.
        auxiliary: Return (logits, auxiliary logits) in training mode, the latter from the map before the deepest, as
            PSPNet does.
        width: See `DeepLabV3Options`.
        project_kernel: See `DeepLabV3Options`.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        align_corners: bool = False,
        refine: bool = False,
        auxiliary: bool = False,
        width: int = WIDTH,
        project_kernel: int = 1,
    ) -> None:
        super().__init__(backbone, num_classes, align_corners)
        self.aspp = ASPP(backbone.channels[-1], self.output_stride, width, project_kernel)
        self.refine = ConvNormReLU(width, width, kernel_size=3) if refine else nn.Identity()
        self.classifier = conv2d(width, num_classes)
        self.auxiliary = auxiliary_head(backbone, num_classes) if auxiliary else None

    def decode(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(self.refine(self.aspp(features[-1])))
        return logits


@register("model", "deeplabv3plus", options=DeepLabV3PlusOptions)
class DeepLabV3Plus(BackboneModel):
    """DeepLabv3+ (arXiv:1802.02611, section 3.1, figure 2): DeepLabv3 with a decoder that sees features of stride 4.

    Logits have stride 4.

    Args:
        backbone: Feature extractor.
        num_classes: Number of classes.
        align_corners: See `BackboneModel`.
        auxiliary: See `DeepLabV3`.
        decoder_dropout: See `DeepLabV3PlusOptions`.
        separable: Make the 3x3 convolutions of ASPP and decoder separable.
        width: See `DeepLabV3Options`.
        project_kernel: See `DeepLabV3Options`.

    Raises:
        ValueError: The backbone has no feature map of stride 4.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        align_corners: bool = False,
        auxiliary: bool = False,
        decoder_dropout: bool = False,
        separable: bool = False,
        width: int = WIDTH,
        project_kernel: int = 1,
    ) -> None:
        super().__init__(backbone, num_classes, align_corners)
        if LOW_LEVEL_STRIDE not in backbone.reductions:
            raise ValueError(
                f"DeepLabv3+ needs a feature map of stride {LOW_LEVEL_STRIDE}; this backbone has strides "
                f"{backbone.reductions}"
            )
        self.decoder_corners = align_corners
        self.low_level_index = backbone.reductions.index(LOW_LEVEL_STRIDE)
        self.aspp = ASPP(backbone.channels[-1], self.output_stride, width, project_kernel, separable)
        self.low_level = ConvNormReLU(backbone.channels[self.low_level_index], LOW_LEVEL_WIDTH)
        self.decoder = nn.Sequential(
            conv3x3(width + LOW_LEVEL_WIDTH, width, 1, separable), conv3x3(width, width, 1, separable)
        )
        self.decoder_dropout = nn.Dropout(DROPOUT) if decoder_dropout else nn.Identity()
        self.classifier = conv2d(width, num_classes)
        self.auxiliary = auxiliary_head(backbone, num_classes) if auxiliary else None

    def decode(self, features: list[Tensor]) -> Tensor:
        low_level = self.low_level(features[self.low_level_index])
        context = self.aspp(features[-1])
        context = F.interpolate(context, low_level.shape[-2:], mode="bilinear", align_corners=self.decoder_corners)
        refined = self.decoder_dropout(self.decoder(torch.cat([context, low_level], dim=1)))
        logits: Tensor = self.classifier(refined)
        return logits
