"""Survey of the timm models that can be backbones, of which models, at which output strides. Nothing is downloaded."""

from __future__ import annotations

from typing import NamedTuple

import timm
import torch

from rmiseg.config.registry import checked_options
from rmiseg.models.backbones import offered_strides
from rmiseg.models.building import backbone_models


class Survey(NamedTuple):
    """Abilities of a backbone: parameters, output strides, and the models that can have it."""

    parameters: int
    output_strides: tuple[int, ...]
    models: tuple[str, ...]


def find_backbones(pattern: str) -> list[str]:
    """The timm models whose name matches a pattern with wildcards, or else contains it.

    Raises:
        ValueError: There is none.
    """
    names = timm.list_models(pattern if set(pattern) & set("*?[") else f"*{pattern}*")
    if not names:
        raise ValueError(f"no timm model is called {pattern!r}; a pattern such as 'resnet*' finds those that begin so")
    return names


def survey_backbone(name: str) -> Survey | None:
    """Try a timm model as a backbone, without memory for its weights; None if it cannot be one."""
    offered = offered_strides(name)
    if not offered:
        return None
    backbone = next(iter(offered.values()))
    models = []
    for model, component in backbone_models().items():
        try:
            with torch.device("meta"):
                component.make(backbone, 2, **checked_options(component, {}, "model.options"))
        except ValueError:  # the model lacks a feature map that it needs
            continue
        models.append(model)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Survey(parameters, tuple(offered), tuple(models))
