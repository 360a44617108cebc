"""Optimizers with the paper's parameter groups."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from rmiseg.config import OptimConfig
from rmiseg.models.base import SegmentationModel

HEAD_LR_FACTORS = {"deeplabv3": 10.0, "deeplabv3plus": 5.0, "pspnet": 10.0}
"""Factors of the paper for the learning rate of each model's head; models of other libraries take the most."""


def parameter_groups(model: SegmentationModel, config: OptimConfig) -> list[dict[str, object]]:
    """Four groups: backbone and head, each with and without weight decay; with `layer_decay` one layer after the other.

    The head is every parameter outside `model.backbone`; its learning rate is `head_lr_factor` times that of the
    backbone. Biases and norm parameters, which are those with one dimension, have no weight decay. Layer number k of
    the backbone's K, from 0, has `layer_decay ** (K - k)` times the rate (Clark et al., ICLR 2020, arXiv:2003.10555).
    """
    layers = _layers(model.backbone) if config.layer_decay < 1 else [list(model.backbone.parameters())]
    backbone = {id(parameter) for layer in layers for parameter in layer}
    head = [parameter for parameter in model.parameters() if id(parameter) not in backbone]
    exponents = range(len(layers), 0, -1) if config.layer_decay < 1 else [0]
    factors = [config.layer_decay**exponent for exponent in exponents]
    groups = []
    for layer, lr_factor in [*zip(layers, factors), (head, config.head_lr_factor or 1.0)]:
        for decays in (True, False):
            parameters = [p for p in layer if p.requires_grad and (p.ndim > 1) == decays]
            groups.append(
                {
                    "params": parameters,
                    "lr_factor": lr_factor,
                    "lr": config.lr * lr_factor,
                    "weight_decay": config.weight_decay if decays else 0.0,
                }
            )
    return [group for group in groups if group["params"]]


def _layers(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each layer of a backbone, shallowest first.

    A layer is what has a number of its own in the names of the parameters (layer1.0, blocks.3, stages_2.blocks.5), or
    else a name of its own.
    """
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in backbone.named_parameters():
        parts = name.removeprefix("body.").removeprefix("model.").split(".")
        numbered = next((at + 1 for at, part in enumerate(parts) if part.isdigit()), 1)
        layers.setdefault(".".join(parts[:numbered]), []).append(parameter)
    return list(layers.values())


def build_optimizer(model: SegmentationModel, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`.

    Raises:
        ValueError: A value out of its range.
    """
    for name in ("lr", "head_lr_factor", "layer_decay", "clip_norm"):
        if getattr(config, name) is not None and getattr(config, name) <= 0:
            raise ValueError(f"optim.{name} must be positive, not {getattr(config, name)}")
    if not all(0 < milestone < 1 for milestone in config.step_milestones):
        raise ValueError(f"optim.step_milestones must lie between 0 and 1, not {list(config.step_milestones)}")
    for name in ("momentum", "weight_decay", "warmup_steps", "warmup_lr", "min_lr", "step_factor"):
        if getattr(config, name) < 0:
            raise ValueError(f"optim.{name} must be 0 or more, not {getattr(config, name)}")
    if config.nesterov and (config.name != "sgd" or config.momentum == 0):
        raise ValueError("optim.nesterov is for sgd with a momentum; leave it out")
    groups = parameter_groups(model, config)
    if not groups:
        raise ValueError("the network has no weights to train: requires_grad is False in all of them")
    fused = _can_be_fused(model)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)
    sgd = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    if fused and config.momentum:
        # Else a first step that is skipped leaves whatever the memory held.
        for group in sgd.param_groups:
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def _can_be_fused(model: nn.Module) -> bool:
    """Return whether one kernel can do a whole step, which is faster, and skips it without asking the device."""
    return all(
        parameter.device.type in ("cpu", "cuda")
        and parameter.is_floating_point()
        and not isinstance(parameter, DTensor)
        and (parameter.is_contiguous() or parameter.is_contiguous(memory_format=torch.channels_last))
        for parameter in model.parameters()
        if parameter.requires_grad
    )
