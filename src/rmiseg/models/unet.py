"""A small U-Net without a backbone, for thin structures, little data and CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.config.registry import register


@dataclass
class UNetOptions:
    """Options of the U-Net."""

    width: int = 8
    """Channels at full size; each of the levels below has twice those above it."""
    levels: int = 4
    """Number of sizes, of which each is half the one above it."""


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3 x 3, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


@register("model", "unet", options=UNetOptions)
class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597), trained from scratch; logits at full size.

    Convolutions are padded and followed by batch norm, and maps are enlarged bilinearly.

    Args:
        num_classes: Number of classes C.
        width: Channels at full size; each level below has twice those of the one above it.
        levels: Number of sizes, of which each is half the one above it.

    Raises:
        ValueError: `width` or `levels` is below 1.

    Shape:
        images (N, 3, H, W) of any size, logits (N, C, H, W).
    """

    def __init__(self, num_classes: int, width: int, levels: int) -> None:
        super().__init__()
        if width < 1 or levels < 1:
            raise ValueError(f"width and levels must be 1 or more, not {width} and {levels}")
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(block(inputs, outputs) for inputs, outputs in zip([3, *widths], widths))
        self.up = nn.ModuleList(block(above + below, above) for above, below in pairwise(widths))
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        features: list[Tensor] = []
        for level, down in enumerate(self.down):
            features.append(down(F.max_pool2d(features[-1], 2, ceil_mode=True) if level else images))
        x = features.pop()
        for above, up in zip(reversed(features), reversed(self.up)):
            enlarged = F.interpolate(x, above.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([above, enlarged], dim=1))
        logits: Tensor = self.classify(x)
        return logits
