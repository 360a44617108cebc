"""Segmentation models over any backbone of timm (DeepLabv3, DeepLabv3+, PSPNet, UPerNet, a linear head), and models of
other libraries."""

from rmiseg.models.backbones import Backbone, build_backbone, offered_strides
from rmiseg.models.base import BackboneModel, SegmentationModel
from rmiseg.models.building import (
    DEFAULT_BACKBONE,
    DEFAULT_OUTPUT_STRIDE,
    backbone_models,
    build_model,
    describe_models,
    takes_backbone,
    usual_stride,
)
from rmiseg.models.deeplab import DeepLabV3, DeepLabV3Plus
from rmiseg.models.layers import set_norm_momentum
from rmiseg.models.own import adapt_model
from rmiseg.models.pspnet import PSPNet
from rmiseg.models.upernet import LinearHead, UPerNet

__all__ = [
    "DEFAULT_BACKBONE",
    "DEFAULT_OUTPUT_STRIDE",
    "Backbone",
    "BackboneModel",
    "DeepLabV3",
    "DeepLabV3Plus",
    "LinearHead",
    "PSPNet",
    "SegmentationModel",
    "UPerNet",
    "adapt_model",
    "backbone_models",
    "build_backbone",
    "build_model",
    "describe_models",
    "offered_strides",
    "set_norm_momentum",
    "takes_backbone",
    "usual_stride",
]
