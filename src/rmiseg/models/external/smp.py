"""Models of segmentation-models-pytorch (Iakubovskii 2019), as smp:Unet, smp:FPN, smp:Segformer, ..."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from rmiseg.config.registry import register
from rmiseg.models.external.wrapped import IMAGENET, WrappedModel, refuse
from rmiseg.models.weights import check_hub, copy_weights, load_weights, read_weights
from rmiseg.runtime.extras import import_extra

DEFAULT_ENCODER = "resnet34"
TIMM = "tu-"  # what smp calls the encoders that are timm models


def names() -> list[str]:
    """The architectures: the classes of smp that have an encoder."""
    classes = [item for item in vars(_library()).values() if inspect.isclass(item)]
    return sorted(item.__name__ for item in classes if "encoder_name" in inspect.signature(item).parameters)


@register("model", "smp:")
def build(
    name: str,
    *,
    num_classes: int,
    backbone: str | None,
    weights: str,
    output_stride: int | None,
    architecture: dict[str, Any] | None,
) -> WrappedModel:
    """Build an architecture of smp, without the upsampling at its end: the losses take logits at their own stride.

    Args:
        name: Name of its class.
        num_classes: Number of classes C.
        backbone: An encoder of smp, among them every model of timm as tu-NAME; by default resnet34.
        weights: Weights of the encoder: hub, none or a file; for timm's as for `load_weights`.
        output_stride: For the architectures that have a choice.
        architecture: From a checkpoint: mean and standard deviation of images, and as `options` further arguments of
            the class, of a model that smp's `save_pretrained` wrote.

    Raises:
        ModuleNotFoundError: segmentation-models-pytorch is not installed.
        ValueError: A name or an option that it does not have.
        Others: See `load_weights`.
    """
    smp = _library()
    if name not in names():
        raise ValueError(f"unknown model 'smp:{name}'; segmentation-models-pytorch has {', '.join(names())}")
    architecture_class = getattr(smp, name)
    encoder_name = backbone or DEFAULT_ENCODER
    _check_encoder(encoder_name)
    options = dict((architecture or {}).get("options", {}))
    if output_stride is not None:
        if "encoder_output_stride" not in inspect.signature(architecture_class).parameters:
            raise refuse(f"smp:{name}", "model.output_stride", output_stride)
        options["encoder_output_stride"] = output_stride
    try:
        network = architecture_class(encoder_name, encoder_weights=None, classes=num_classes, **options)
    except Exception as error:  # its refusals, and timm's, have no type in common
        raise ValueError(f"smp:{name} cannot have the encoder {encoder_name!r}{_in_words(options)}: {error}") from error
    head = network.segmentation_head
    align_corners = False
    if isinstance(head, nn.Sequential) and isinstance(head[1], nn.Upsample):
        align_corners = bool(head[1].align_corners)
        head[1] = nn.Identity()
    statistics = _load_encoder(network.encoder, encoder_name, weights)
    described = {**statistics, **(architecture or {})}
    model = WrappedModel(network, _call, "encoder", num_classes=num_classes, architecture=described)
    model.align_corners = align_corners  # before training says otherwise
    return model


def _in_words(options: Mapping[str, Any]) -> str:
    return f" and {', '.join(f'{name} {value}' for name, value in options.items())}" if options else ""


def _library() -> Any:
    return import_extra("segmentation_models_pytorch", "smp", "a model smp:NAME")


def _call(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits


def _check_encoder(name: str) -> None:
    encoders = _library().encoders.encoders
    if name in encoders or (name.startswith(TIMM) and timm.is_model(name.removeprefix(TIMM))):
        return
    known = [*encoders, *(TIMM + model for model in timm.list_models())]
    close = difflib.get_close_matches(name, known, n=5)
    hint = f", did you mean {', '.join(close)}?" if close else "."
    raise ValueError(
        f"unknown encoder {name!r} of segmentation-models-pytorch{hint} The models of timm are called {TIMM}NAME there"
    )


def _encoder_entries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of an encoder, of a file that holds it alone or a whole model."""
    own = {name: tensor for name, tensor in state.items() if name.startswith("encoder.")}
    return {name.removeprefix("encoder."): tensor for name, tensor in (own or state).items()}


def _load_encoder(encoder: Any, name: str, weights: str) -> dict[str, Any]:
    """Load weights into an encoder; returns the mean and the standard deviation of images that it expects."""
    if name.startswith(TIMM):
        load_weights(encoder.model, name.removeprefix(TIMM), weights)
        expected: Any = timm.get_pretrained_cfg(name.removeprefix(TIMM))
        return {"image_mean": expected.mean, "image_std": expected.std}
    if weights == "none":
        return IMAGENET
    if weights == "package":
        raise ValueError(f"no package carries weights for the encoder {name!r}; {TIMM}NAME takes those of timm's NAME")
    if weights != "hub":
        state = _encoder_entries(read_weights(Path(weights)))
        copy_weights(state, encoder, f"weights {weights!r} do not fit encoder {name!r}")
        return IMAGENET
    smp = _library()
    (source, settings), *_ = smp.encoders.encoders[name]["pretrained_settings"].items()
    advice = f"Without a network: --model.weights FILE (.safetensors, .pth or .pt) or none, or an encoder {TIMM}NAME"
    check_hub(settings["repo_id"], ["model.safetensors"], f"the weights of encoder {name!r}", advice)
    try:
        encoder.load_state_dict(smp.encoders.get_encoder(name, weights=source).state_dict())
        expected = smp.encoders.get_preprocessing_params(name, source)
    except Exception as error:  # RuntimeError, and whatever the HTTP library raises
        raise OSError(f"cannot load the hub weights of encoder {name!r}: {error}. {advice}") from error
    return {"image_mean": expected["mean"], "image_std": expected["std"]}
