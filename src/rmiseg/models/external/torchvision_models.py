"""Segmentation models of torchvision, as torchvision:deeplabv3_resnet50, with weights trained on COCO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import segmentation

from rmiseg.config.registry import register
from rmiseg.models.external.wrapped import IMAGENET, WrappedModel, refuse_choices
from rmiseg.models.weights import read_weights
from rmiseg.runtime.words import some


def names() -> list[str]:
    """The models."""
    listed: list[str] = torchvision.models.list_models(module=segmentation)
    return listed


@register("model", "torchvision:")
def build(
    name: str,
    *,
    num_classes: int,
    backbone: str | None,
    weights: str,
    output_stride: int | None,
    architecture: dict[str, Any] | None,
) -> WrappedModel:
    """Build a model of torchvision, without the upsampling at its end, with its auxiliary head if it has one.

    Args:
        name: Its name.
        num_classes: Number of classes C.
        backbone: None; the name says it.
        weights: hub (torchvision's, trained on the images of COCO that show the 21 classes of PASCAL VOC), none, or a
            file with a state dict of the model. Last layers for another number of classes start random.
        output_stride: None; torchvision gives no choice.
        architecture: Beside the image statistics, auxiliary: False for a model without its auxiliary head.

    Raises:
        ValueError: A name or an option that torchvision does not have, or weights that do not fit.
        OSError: The download of the weights failed.
    """
    if name not in names():
        raise ValueError(f"unknown model 'torchvision:{name}'; torchvision has {', '.join(names())}")
    refuse_choices(f"torchvision:{name}", weights, backbone=backbone, output_stride=output_stride)
    architecture = architecture or IMAGENET
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": architecture.get("auxiliary", True)}
    network = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes, **auxiliary
    )
    if weights == "hub":
        _load(network, _download(name), f"the hub weights do not fit torchvision:{name}")
    elif weights != "none":
        _load(network, read_weights(Path(weights)), f"weights {weights!r} do not fit torchvision:{name}")
    return WrappedModel(network, _call, "backbone", num_classes=num_classes, architecture=architecture)


def _call(network: Any, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Do what its forward method does, but for the upsampling."""
    features = network.backbone(images)
    logits: Tensor = network.classifier(features if isinstance(network, segmentation.LRASPP) else features["out"])
    if isinstance(network, segmentation.LRASPP):
        return logits
    return (logits, network.aux_classifier(features["aux"])) if network.training and "aux" in features else logits


def _download(name: str) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(
            progress=True, check_hash=True
        )
    except OSError as error:  # URLError among them
        raise OSError(
            f"cannot download the weights of torchvision:{name}: {error}. Without a network: --model.weights FILE "
            "or none"
        ) from error
    return state


def _load(network: nn.Module, state: Mapping[str, Tensor], complaint: str) -> None:
    """Copy everything but last layers of another number of classes."""
    own = network.state_dict()
    last = {f"{name}.{parameter}" for name in _last_layers(network) for parameter in ("weight", "bias")}
    misfits = [key for key in own if key not in state or state[key].shape != own[key].shape]
    if strange := [key for key in misfits if key not in last]:
        raise ValueError(f"{complaint}: {len(strange)} entries are missing or have another shape, {some(strange, 3)}")
    network.load_state_dict({key: state[key] for key in own if key not in misfits}, strict=False)


def _last_layers(network: nn.Module) -> list[str]:
    if isinstance(network, segmentation.LRASPP):
        return ["classifier.low_classifier", "classifier.high_classifier"]
    heads = {name: getattr(network, name) for name in ("classifier", "aux_classifier")}
    return [f"{name}.{len(head) - 1}" for name, head in heads.items() if head is not None]
