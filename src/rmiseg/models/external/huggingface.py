"""Models of Hugging Face transformers for semantic segmentation, as hf:nvidia/mit-b0, or hf:FOLDER."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rmiseg.config.registry import register
from rmiseg.models.external import mask_classifiers
from rmiseg.models.external.wrapped import IMAGENET, WrappedModel, refuse_choices
from rmiseg.models.weights import check_hub, copy_weights, read_weights
from rmiseg.runtime.extras import import_extra

PROCESSOR = "preprocessor_config.json"
WITHOUT_NETWORK = "Without a network: hf:FOLDER, with what save_pretrained or a download of the model wrote"


def names() -> list[str]:
    """The kinds of model; the names behind hf: are those of the hub, or folders."""
    known = _library("transformers.models.auto.modeling_auto").MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
    return sorted([*known, *mask_classifiers.BACKBONES])


@register("model", "hf:")
def build(
    name: str,
    *,
    num_classes: int,
    backbone: str | None,
    weights: str,
    output_stride: int | None,
    architecture: dict[str, Any] | None,
) -> WrappedModel:
    """Build a model of transformers that classifies pixels, without its auxiliary head, or masks.

    Args:
        name: Name on the hub, or a folder with config.json as `save_pretrained` writes it.
        num_classes: Number of classes C.
        backbone: None; the configuration says it.
        weights: hub (those that come with the configuration; a last layer for another number of classes starts random),
            none, or a file with a state dict of the model.
        output_stride: None; the configuration says it.
        architecture: The configuration, from a checkpoint; by default it is read from where name says.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: No such configuration, one of another kind of model, or an option that there is no choice of.
        OSError: The download failed.
    """
    refuse_choices(f"hf:{name}", weights, backbone=backbone, output_stride=output_stride)
    transformers = _library()
    if architecture is None:
        _check_source(name)
        architecture = {**_image_statistics(name), "config": _read_config(name)}
    config = _configuration(architecture["config"], num_classes, name)
    of_masks = config.model_type in mask_classifiers.BACKBONES
    automatic = (
        transformers.AutoModelForUniversalSegmentation if of_masks else transformers.AutoModelForSemanticSegmentation
    )
    if weights == "hub":
        try:
            network = automatic.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise OSError(f"cannot load the weights of hf:{name}: {error}. {WITHOUT_NETWORK}") from error
    else:
        network = automatic.from_config(config)
        if weights != "none":
            copy_weights(read_weights(Path(weights)), network, f"weights {weights!r} do not fit hf:{name}")
    if of_masks:
        backbone_name, call = mask_classifiers.BACKBONES[config.model_type], mask_classifiers.prepare(network)
    else:
        backbone_name, call = "backbone" if hasattr(network, "backbone") else network.base_model_prefix, _call
    model = WrappedModel(network, call, backbone_name, num_classes=num_classes, architecture=architecture)
    return model.train()  # from_pretrained leaves it in evaluation mode


def _library(module: str = "transformers") -> Any:
    return import_extra(module, "hf", "a model hf:NAME")


def _call(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(pixel_values=images).logits
    return logits


def _check_source(name: str) -> None:
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise FileNotFoundError(f"hf:{name}: the folder has no config.json, as save_pretrained writes it")
    elif name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"hf:{name}: there is no such folder")
    else:
        check_hub(name, ["config.json"], f"hf:{name}", WITHOUT_NETWORK)


def _read_config(name: str) -> dict[str, Any]:
    try:
        config = _library().AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, and what huggingface_hub raises for values of other types
        raise ValueError(f"hf:{name} has no configuration that transformers can read: {error}") from error
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return content


def _image_statistics(name: str) -> dict[str, Any]:
    """Return what the model's image processor normalizes images with, if it comes with one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = Path(name) / PROCESSOR if Path(name).is_dir() else Path(hf_hub_download(name, PROCESSOR))
        content = json.loads(path.read_text())
        return {key: tuple(content[key]) for key in IMAGENET}
    except (OSError, HfHubHTTPError, KeyError, ValueError, TypeError, RecursionError):
        return IMAGENET


def _configuration(content: dict[str, Any], num_classes: int, name: str) -> Any:
    if content.get("model_type") not in names():
        raise ValueError(
            f"hf:{name} is of the kind {content.get('model_type')!r}, of which there is no model for the classes of "
            f"pixels; there are {', '.join(names())}"
        )
    config = _library().AutoConfig.for_model(**content)
    config.num_labels = num_classes
    config.use_auxiliary_head = False  # transformers uses it inside of its own loss only
    return config
