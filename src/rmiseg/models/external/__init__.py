"""Models of other libraries, by names such as smp:Unet: one module a library, imported when a name asks for it."""

from __future__ import annotations

import importlib
from os import PathLike
from typing import Any, NamedTuple

from rmiseg.models.base import SegmentationModel


class Source(NamedTuple):
    """A library of models.

    Attributes:
        module: Module with the functions `names` and `build`.
        title: What it is called.
        naming: What `names` lists.
    """

    module: str
    title: str
    naming: str = "Models:"


SOURCES = {
    "smp": Source("rmiseg.models.external.smp", "segmentation-models-pytorch"),
    "torchvision": Source("rmiseg.models.external.torchvision_models", "torchvision"),
    "hf": Source(
        "rmiseg.models.external.huggingface",
        "Hugging Face transformers",
        "NAME is a model of the hub or a folder, of the kinds",
    ),
}


def external_names(prefix: str) -> str:
    """The models of a library, or what to install, in words."""
    try:
        return ", ".join(importlib.import_module(SOURCES[prefix].module).names())
    except ModuleNotFoundError as error:
        return str(error)


def build_external(
    name: str,
    *,
    num_classes: int,
    backbone: str | None,
    weights: str | PathLike[str],
    output_stride: int | None,
    architecture: dict[str, Any] | None,
) -> SegmentationModel:
    """Build a model of another library; name is PREFIX:NAME, the rest as for `build_model`."""
    prefix, _, own_name = name.partition(":")
    return importlib.import_module(SOURCES[prefix].module).build(
        own_name,
        num_classes=num_classes,
        backbone=backbone,
        weights=str(weights),
        output_stride=output_stride,
        architecture=architecture,
    )
