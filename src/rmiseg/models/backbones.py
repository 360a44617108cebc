"""Backbones: timm models as extractors of feature maps.

timm: Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

import difflib
from functools import cache
from os import PathLike
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.models.weights import load_weights

OUTPUT_STRIDES = (8, 16, 32)
TRANSFORMERS = ("timm.models.vision_transformer", "timm.models.eva")
"""Modules of the plain vision transformers, DINOv2 and DINOv3 among them, whose maps are all of one size."""
TRANSFORMER_MAPS = 4


class Backbone(nn.Module):
    """Feature maps of images of any size.

    Args:
        body: A timm model made with features_only.
        pad: Pad images to a multiple of the output stride, for a body that rounds the sizes of its maps down, or adds
            maps whose sizes must divide exactly (ConvNeXt, HRNet, DLA, ResNets with anti-aliasing).

    Attributes:
        channels: Channels of each feature map, shallowest first.
        reductions: Stride of each feature map; the last one is the output stride.
        image_mean: Mean of RGB images in the range 0 to 1 that the body expects to be subtracted.
        image_std: Standard deviation that it expects them to be divided by.
    """

    def __init__(self, body: nn.Module, pad: bool = False) -> None:
        super().__init__()
        self.body = body
        self.pad = pad
        info: Any = body.feature_info
        expected: Any = body.pretrained_cfg
        self.channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        self.image_mean: tuple[float, ...] = tuple(expected["mean"])
        self.image_std: tuple[float, ...] = tuple(expected["std"])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) to maps (N, channels, ceil(H / reduction), ceil(W / reduction)), shallowest first."""
        if not self.pad:
            maps: list[Tensor] = self.body(images)
            return maps
        height, width = images.shape[-2:]
        stride = self.reductions[-1]
        maps = self.body(_resized(images, _cells(height, stride) * stride, _cells(width, stride) * stride))
        return [_resized(m, _cells(height, r), _cells(width, r)) for m, r in zip(maps, self.reductions)]


def is_transformer(name: str) -> bool:
    """Tell whether a timm model is a plain vision transformer, whose output stride is the side of its patches."""
    return timm.is_model(name) and timm.model_entrypoint(name.partition(".")[0]).__module__ in TRANSFORMERS


def build_backbone(name: str, *, weights: str | PathLike[str], output_stride: int | None) -> Backbone:
    """Build a timm model as a backbone.

    Args:
        name: Name of a timm model, optionally with a weights tag (resnet50.a1_in1k).
        weights: hub, package, none or a file, as for `build_model`.
        output_stride: Stride of the deepest feature map; the last stages are dilated instead of strided to reach it.
            None for that of the patches of a plain vision transformer, which has no other.

    Raises:
        ValueError: The name is unknown, or timm offers no feature maps of this stride for it.
        Others: See `load_weights`.
    """
    _check_name(name)
    try:
        pad = _needs_padding(name, output_stride)
    except ValueError as reason:
        offered = ", ".join(map(str, offered_strides(name)))
        raise ValueError(
            f"backbone {name!r} has no feature maps of output stride {output_stride} for images of any size; "
            f"it offers output stride {offered or 'neither 8 nor 16 nor 32'} ({reason})"
        ) from reason
    body = _create(name, output_stride)
    load_weights(body, name, weights)
    return Backbone(body, pad=pad)


@cache  # an experiment builds a model for each run
def _needs_padding(name: str, output_stride: int | None) -> bool:
    """Tell whether images must be padded; ValueError if the model does not have this output stride."""
    probe = _build_probe(name, output_stride)
    return not _sizes_hold(probe, height=97, width=131)  # 97: odd after every halving, rounded up


def _check_name(name: str) -> None:
    """Refuse names and weights tags that timm does not know, with the nearest that it does know."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them all"
        raise ValueError(f"unknown backbone {name!r}: {hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tagged = timm.list_pretrained(f"{name.split('.')[0]}.*")
        raise ValueError(f"unknown weights tag in {name!r}; there are {', '.join(tagged) or 'none'}") from error


def _build_probe(name: str, output_stride: int | None) -> nn.Module:
    """The feature extractor without memory for its weights; ValueError if it does not have this output stride."""
    try:
        with torch.device("meta"):
            probe = _create(name, output_stride).eval()
    except Exception as error:  # timm's refusals have no type in common: TypeError, AssertionError, RuntimeError, ...
        reason = str(error) or "without a word; it may build this model at one stride only"
        raise ValueError(f"timm: {type(error).__name__} {reason}") from error
    info: Any = probe.feature_info
    stride = info.reduction()[-1]
    if output_stride not in (stride, None):
        raise ValueError(f"its deepest feature map has stride {stride}")
    # What a model says of its maps is compared with what it does: some accept only squares of one size.
    height, width = (128, 192) if 64 % stride == 0 else (8 * stride, 12 * stride)
    if not _sizes_hold(probe, height, width):
        raise ValueError(f"its feature maps of a {height} x {width} image do not have the sizes that timm states")
    return probe


def _create(name: str, output_stride: int | None) -> nn.Module:
    """A timm model as a feature extractor; of a plain transformer, maps of blocks at equal distances up to the last."""
    if not is_transformer(name):
        return timm.create_model(name, features_only=True, output_stride=output_stride)
    with torch.device("meta"):
        whole: Any = timm.create_model(name)
    blocks = len(whole.blocks)
    indices = [blocks * (i + 1) // TRANSFORMER_MAPS - 1 for i in range(TRANSFORMER_MAPS)]
    return timm.create_model(name, features_only=True, out_indices=indices, dynamic_img_size=True)


def offered_strides(name: str) -> dict[int, Backbone]:
    """The output strides at which a timm model can be a backbone, each with that backbone on the meta device."""
    offered = {}
    for stride in (None,) if is_transformer(name) else OUTPUT_STRIDES:
        try:
            backbone = Backbone(_build_probe(name, stride))
            offered[backbone.reductions[-1]] = backbone
        except ValueError:  # this stride is not offered
            continue
    return offered


def _sizes_hold(probe: nn.Module, height: int, width: int) -> bool:
    """Return whether the maps of an image of this size have the shapes that feature_info promises, rounded up."""
    try:
        maps = probe(torch.zeros(1, 3, height, width, device="meta"))
    except Exception:  # from the inside of any model: RuntimeError where sizes do not match, AssertionError, ...
        return False
    info: Any = probe.feature_info
    stated = zip(info.channels(), info.reduction())
    return [tuple(m.shape[1:]) for m in maps] == [(c, _cells(height, r), _cells(width, r)) for c, r in stated]


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps with rows and columns of zeros added, or taken away, at the bottom and at the right."""
    # Not slices: of these, an exported program would assume that they are smaller than the whole.
    return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))


def _cells(pixels: int, stride: int) -> int:
    # Not -(-pixels // stride): ONNX rounds the division of integers toward zero.
    return (pixels + stride - 1) // stride
