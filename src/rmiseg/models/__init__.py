"""Segmentation models: DeepLabv3, DeepLabv3+ and PSPNet over any backbone of timm, and models of other libraries."""

from rmiseg.models.backbones import Backbone, build_backbone, offered_strides
from rmiseg.models.base import BackboneModel, SegmentationModel
from rmiseg.models.deeplab import DeepLabV3, DeepLabV3Plus
from rmiseg.models.layers import set_norm_momentum
from rmiseg.models.pspnet import PSPNet
from rmiseg.models.registry import DEFAULT_BACKBONE, DEFAULT_OUTPUT_STRIDE, MODELS, build_model

__all__ = [
    "DEFAULT_BACKBONE",
    "DEFAULT_OUTPUT_STRIDE",
    "MODELS",
    "Backbone",
    "BackboneModel",
    "DeepLabV3",
    "DeepLabV3Plus",
    "PSPNet",
    "SegmentationModel",
    "build_backbone",
    "build_model",
    "offered_strides",
    "set_norm_momentum",
]
