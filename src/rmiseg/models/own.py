"""Anybody's own network as a `SegmentationModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rmiseg.models.base import SegmentationModel
from rmiseg.models.channels import spread_statistics
from rmiseg.models.external.wrapped import IMAGENET, NotLogits, WrappedModel, describe_output


def adapt_model(
    network: nn.Module,
    num_classes: int,
    name: str = "",
    architecture: dict[str, Any] | None = None,
    in_channels: int = 3,
) -> SegmentationModel:
    """Make a network a `SegmentationModel`, so that it can be trained, evaluated, and predict.

    It stays the same module, as the attribute `network` of what is returned, and the names of its weights in
    checkpoints begin with "network.". They can be loaded into the network itself again:

        weights = load_checkpoint("runs/mine").weights
        network.load_state_dict({key.removeprefix("network."): tensor for key, tensor in weights.items()})

    Args:
        network: A network from images (N, B, H, W) to logits (N, C, h, w), at whichever stride; to a dictionary that
            holds them as out or logits, and auxiliary logits as aux; or to a tuple (logits, auxiliary logits). These
            count in training mode alone. If it has attributes image_mean and image_std, a number for each channel,
            images in the range 0 to 1 are normalized with these, and else with ImageNet's. A `SegmentationModel` is
            returned as it is.
        num_classes: Number of classes C.
        name: What to call it in messages.
        architecture: image_mean and image_std from a checkpoint, in place of those of the network.
        in_channels: Number B of the channels of images.

    Returns:
        The model. All of its weights are the backbone's: they have one learning rate.

    Raises:
        TypeError: network is no nn.Module.
        ValueError: It takes no images of any size, or gives something else than logits of C classes.
    """
    title = f"model {name}: " if name else ""
    if not isinstance(network, nn.Module):
        raise TypeError(f"{title}a network must be an nn.Module, not {type(network).__name__}")
    if isinstance(network, SegmentationModel):
        if network.num_classes != num_classes:
            raise ValueError(f"{title}{type(network).__name__} has {network.num_classes} classes, not {num_classes}")
        return network
    try:
        architecture = architecture or _image_statistics(network, in_channels)
        model = WrappedModel(network, _call, "", num_classes=num_classes, architecture=architecture)
    except ValueError as error:
        raise ValueError(f"{title}{error}") from error
    model.training = network.training
    return model


def _call(network: nn.Module, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    output = network(images)
    auxiliary = None
    if isinstance(output, Mapping):
        logits = output.get("out", output.get("logits"))
        auxiliary = output.get("aux")
    elif isinstance(output, tuple) and len(output) == 2:
        logits, auxiliary = output
    else:
        logits = output
    if not isinstance(logits, Tensor) or not isinstance(auxiliary, Tensor | None):
        raise NotLogits(
            f"{type(network).__name__} gives {describe_output(output)} for an image, not logits (N, C, h, w), a "
            f"dictionary with out, or a tuple of logits and auxiliary logits"
        )
    return (logits, auxiliary) if network.training and auxiliary is not None else logits


def _numbers(channels: int) -> str:
    return "three numbers, of red, green and blue" if channels == 3 else f"{channels} numbers"


def _image_statistics(network: nn.Module, channels: int) -> dict[str, Any]:
    """Return what the network says of its images, or else ImageNet's mean and standard deviation."""
    whole = (0, 1, 2) if channels >= 3 else None
    given = {key: getattr(network, key) for key in IMAGENET if getattr(network, key, None) is not None}
    if not given:
        return {key: spread_statistics(values, channels, whole) for key, values in IMAGENET.items()}
    kind = type(network).__name__
    if missing := [key for key in IMAGENET if key not in given]:
        raise ValueError(f"{kind} has an attribute {next(iter(given))}, but no {missing[0]}")
    statistics = {}
    for key, value in given.items():
        try:
            numbers = tuple(torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten().tolist())
        except (TypeError, ValueError, RuntimeError):
            numbers = ()
        if len(numbers) != channels or max(numbers) > 1 or (key == "image_std" and min(numbers) <= 0):
            raise ValueError(f"{kind}.{key} is {value}; it must be {_numbers(channels)}, where white is 1")
        statistics[key] = numbers
    return statistics
