"""Segmentation models: DeepLabv3, DeepLabv3+ and PSPNet over any backbone of timm, and models of other libraries."""

from rmiseg.models.backbones import Backbone, build_backbone, offered_strides
from rmiseg.models.base import BackboneModel, SegmentationModel
from rmiseg.models.building import (
    DEFAULT_BACKBONE,
    DEFAULT_OUTPUT_STRIDE,
    backbone_models,
    build_model,
    describe_models,
    takes_backbone,
)
from rmiseg.models.deeplab import DeepLabV3, DeepLabV3Plus
from rmiseg.models.layers import set_norm_momentum
from rmiseg.models.own import adapt_model
from rmiseg.models.pspnet import PSPNet

__all__ = [
    "DEFAULT_BACKBONE",
    "DEFAULT_OUTPUT_STRIDE",
    "Backbone",
    "BackboneModel",
    "DeepLabV3",
    "DeepLabV3Plus",
    "PSPNet",
    "SegmentationModel",
    "adapt_model",
    "backbone_models",
    "build_backbone",
    "build_model",
    "describe_models",
    "offered_strides",
    "set_norm_momentum",
    "takes_backbone",
]
