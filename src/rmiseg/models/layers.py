"""The few building blocks that the segmentation heads share."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]  # not in an __all__
from torch import Tensor, nn

from rmiseg.runtime.distributed import world_size

M = TypeVar("M", bound=nn.Module)

DROPOUT = 0.1  # before the classifier, as in PSPNet and in the authors' DeepLab


def check_width(width: int) -> None:
    """Refuse a number of channels that a head cannot have.

    Raises:
        ValueError: A width below 1.
    """
    if width < 1:
        raise ValueError(f"model.options.width must be at least 1, not {width}")


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, bias: bool = True, groups: int = 1
) -> nn.Conv2d:
    """A convolution that keeps the size of its input, with the initial weights of He et al. (arXiv:1502.01852)."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, 1, padding, dilation, groups, bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class ConvNormReLU(nn.Sequential):
    """Convolution, batch norm, ReLU: (N, in_channels, h, w) to (N, out_channels, h, w)."""

    conv: nn.Conv2d
    norm: nn.Module  # BatchNorm2d until somebody converts it to SyncBatchNorm

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        conv = conv2d(in_channels, out_channels, kernel_size, dilation, bias=False, groups=groups)
        super().__init__(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))


class SeparableConvNormReLU(nn.Sequential):
    """A 3x3 convolution of each channel alone, then a 1x1 over all of them (arXiv:1802.02611, section 3.1).

    Each has its batch norm and ReLU: (N, in_channels, h, w) to (N, out_channels, h, w).
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        depthwise = ConvNormReLU(in_channels, in_channels, kernel_size=3, dilation=dilation, groups=in_channels)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=ConvNormReLU(in_channels, out_channels)))


def classification_head(in_channels: int, width: int, num_classes: int, channel_dropout: bool = False) -> nn.Sequential:
    """A 3x3 convolution, dropout (of whole channels, if so chosen) and a 1x1 classifier."""
    dropout = nn.Dropout2d(DROPOUT) if channel_dropout else nn.Dropout(DROPOUT)
    return nn.Sequential(ConvNormReLU(in_channels, width, kernel_size=3), dropout, conv2d(width, num_classes))


class PooledContext(nn.Module):
    """Context of the whole image: means over a grid of bins, projected, and resized to where they came from.

    With one bin it is the image-pooling branch of DeepLabv3 (arXiv:1706.05587, section 3.3); with several it is a level
    of PSPNet's pyramid (arXiv:1612.01105, section 3.2). Maps (N, in_channels, h, w) become (N, out_channels, h, w).
    """

    def __init__(self, in_channels: int, out_channels: int, bins: int = 1, align_corners: bool = False) -> None:
        super().__init__()
        self.bins = bins
        self.align_corners = align_corners
        self.project = ConvNormReLU(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        context = self.project(F.adaptive_avg_pool2d(features, self.bins))
        return F.interpolate(context, features.shape[-2:], mode="bilinear", align_corners=self.align_corners)


def set_norm_momentum(model: nn.Module, momentum: float) -> None:
    """Set the momentum of every batch norm of the model, backbone included.

    Args:
        model: Any module; changed in place.
        momentum: Weight of the newest batch in the running statistics (PyTorch's convention: the paper's 0.05 keeps
            95 % of the old value).

    Raises:
        ValueError: momentum is not in (0, 1].
    """
    if not 0 < momentum <= 1:
        raise ValueError(f"norm momentum must be in (0, 1], got {momentum}")
    for norm in batch_norms(model):
        norm.momentum = momentum


def synchronize_norm(model: M, choice: bool | None, device: torch.device) -> M:
    """Let batch norm take its statistics over all processes, if so chosen; by default on GPUs.

    Raises:
        ValueError: Chosen on a CPU.
    """
    if choice and device.type != "cuda":
        raise ValueError("train.sync_norm: PyTorch synchronizes batch norm between GPUs only; leave it out on a CPU")
    if world_size() == 1 or choice is False or device.type != "cuda":
        return model
    # timm's, which knows timm's norms with activation
    synchronized: M = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synchronized


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm of a model, SyncBatchNorm and timm's norms with activation among them."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
