"""Networks of mmsegmentation: the layout of their files and their arithmetic, written apart from this package."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, ins: int, outs: int, side: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, side, 1, side // 2 * dilation, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(outs)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bn(self.conv(maps)).relu()


def separable(ins: int, outs: int, side: int, dilation: int = 1) -> nn.Module:
    depthwise = Unit(ins, ins, side, dilation, groups=ins)
    return nn.Sequential(OrderedDict(depthwise_conv=depthwise, pointwise_conv=Unit(ins, outs)))


def pooled(ins: int, outs: int, bins: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(bins), Unit(ins, outs))


class Head(nn.Module):
    corners = False

    def resized(self, maps: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(maps, like.shape[2:], mode="bilinear", align_corners=self.corners)


class ASPPHead(Head):
    def __init__(self, ins: list[int], width: int, classes: int, atrous: Callable[..., nn.Module] = Unit) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(width, classes, 1)
        self.image_pool = pooled(ins[-1], width, 1)
        branches = [atrous(ins[-1], width, 3, dilation) for dilation in (12, 24, 36)]
        self.aspp_modules = nn.ModuleList([Unit(ins[-1], width), *branches])
        self.bottleneck = Unit(5 * width, width, 3)

    def context(self, maps: Tensor) -> Tensor:
        branches = [self.resized(self.image_pool(maps), maps), *(each(maps) for each in self.aspp_modules)]
        return self.bottleneck(torch.cat(branches, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.conv_seg(self.context(maps[-1]))


class DepthwiseSeparableASPPHead(ASPPHead):
    def __init__(self, ins: list[int], width: int, classes: int) -> None:
        super().__init__(ins, width, classes, separable)
        self.c1_bottleneck = Unit(ins[0], 48)
        self.sep_bottleneck = nn.Sequential(separable(width + 48, width, 3), separable(width, width, 3))

    def forward(self, maps: list[Tensor]) -> Tensor:
        low = self.c1_bottleneck(maps[0])
        both = torch.cat([self.resized(self.context(maps[-1]), low), low], 1)
        return self.conv_seg(self.sep_bottleneck(both))


class UPerHead(Head):
    def __init__(self, ins: list[int], width: int, classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(width, classes, 1)
        self.psp_modules = nn.ModuleList(pooled(ins[-1], width, bins) for bins in (1, 2, 3, 6))
        self.bottleneck = Unit(ins[-1] + 4 * width, width, 3)
        self.lateral_convs = nn.ModuleList(Unit(each, width) for each in ins[:-1])
        self.fpn_convs = nn.ModuleList(Unit(width, width, 3) for _ in ins[:-1])
        self.fpn_bottleneck = Unit(4 * width, width, 3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        levels = [self.resized(each(maps[-1]), maps[-1]) for each in self.psp_modules]
        top = self.bottleneck(torch.cat([maps[-1], *levels], 1))
        sums = [top]
        for lateral, each in zip(reversed(self.lateral_convs), reversed(maps[:-1])):
            own = lateral(each)
            sums.insert(0, own + self.resized(sums[0], own))
        out = [*(conv(each) for conv, each in zip(self.fpn_convs, sums)), top]
        return self.conv_seg(self.fpn_bottleneck(torch.cat([self.resized(each, out[0]) for each in out], 1)))


class AuxiliaryHead(nn.Module):
    def __init__(self, ins: int, classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(Unit(ins, 256, 3))
        self.conv_seg = nn.Conv2d(256, classes, 1)


class ResNetV1(ResNet):
    """torchvision's, which has the same names, and whose stages begin with the dilation of the one before."""

    def __init__(self, blocks: list[int], deep: bool, dilated: bool) -> None:
        super().__init__(
            Bottleneck if deep else BasicBlock, blocks, replace_stride_with_dilation=[False, dilated, dilated]
        )
        del self.fc
        self.channels = [64 * 2**i * (4 if deep else 1) for i in range(4)]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[1:]


class ChannelNorm(nn.LayerNorm):
    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.depthwise_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pointwise_conv1 = nn.Linear(width, 4 * width)
        self.pointwise_conv2 = nn.Linear(4 * width, width)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.norm(self.depthwise_conv(maps).permute(0, 2, 3, 1))
        inner = self.gamma * self.pointwise_conv2(F.gelu(self.pointwise_conv1(inner)))
        return maps + inner.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = [96, 192, 384, 768]
        self.downsample_layers = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 96, 4, 4), ChannelNorm(96, eps=1e-6))])
        for width in self.channels[:-1]:
            down = nn.Sequential(ChannelNorm(width, eps=1e-6), nn.Conv2d(width, 2 * width, 2, 2))
            self.downsample_layers.append(down)
        depths = zip(self.channels, (3, 3, 9, 3))
        self.stages = nn.ModuleList(nn.Sequential(*(ConvNeXtBlock(width) for _ in range(n))) for width, n in depths)
        for i, width in enumerate(self.channels):
            self.add_module(f"norm{i}", ChannelNorm(width, eps=1e-6))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for down, stage in zip(self.downsample_layers, self.stages):
            maps.append(stage(down(maps[-1])))
        return [getattr(self, f"norm{i}")(each) for i, each in enumerate(maps[1:])]


class Network(nn.Module):
    def __init__(self, backbone: nn.Module, head: type[Head], classes: int = 5, width: int = 24) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = head(backbone.channels, width, classes)
        self.auxiliary_head = AuxiliaryHead(backbone.channels[2], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode_head.resized(self.decode_head(self.backbone(images)), images)
