"""Losses for semantic segmentation. Each is an `nn.Module` called as `loss(logits, target)`; see `SegmentationLoss`.

Examples:
    >>> from rmiseg.losses import RMILoss
    >>> loss = RMILoss(num_classes=21)
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, overload

from torch import nn

from rmiseg.config.registry import find
from rmiseg.functional import upsample_logits
from rmiseg.losses.affinity import AffinityLoss
from rmiseg.losses.base import LossOptions, LossTerms, SegmentationLoss
from rmiseg.losses.dice import DiceLoss
from rmiseg.losses.focal import FocalLoss
from rmiseg.losses.lovasz import LovaszLoss
from rmiseg.losses.ohem import OHEMLoss
from rmiseg.losses.pixelwise import BCELoss, CELoss
from rmiseg.losses.pyramid import PyramidLoss
from rmiseg.losses.rmi import RMILoss

__all__ = [
    "AffinityLoss",
    "BCELoss",
    "CELoss",
    "DiceLoss",
    "FocalLoss",
    "LossTerms",
    "LovaszLoss",
    "OHEMLoss",
    "PyramidLoss",
    "RMILoss",
    "SegmentationLoss",
    "build_loss",
    "upsample_logits",
]


@overload
def build_loss(
    name: Literal["rmi", "ce", "bce", "pyramid", "affinity", "focal"], *, num_classes: int, **config: Any
) -> SegmentationLoss: ...


@overload
def build_loss(name: str, *, num_classes: int, **config: Any) -> nn.Module: ...


def build_loss(name: str, *, num_classes: int, **config: Any) -> nn.Module:
    """Build the loss called `name`.

    Args:
        name: "rmi", "ce", "bce", "pyramid", "affinity", "focal", "dice", "lovasz", "ohem"; a loss of another library,
            "smp:NAME" or "monai:NAME"; or one that a plugin registered.
        config: Further arguments of the loss's constructor.

    Returns:
        A `SegmentationLoss`, if it is one of this package; from others, a module called with logits (N, C, H, W) and
        target (N, H, W).

    Raises:
        ValueError: Unknown name, or a value that the loss refuses.
        TypeError: An argument that the loss does not have, or one that is missing.
    """
    component = find("loss", name)
    if component.name.endswith(":"):
        member: nn.Module = component.make(name.partition(":")[2], num_classes=num_classes, **config)
        return member
    parameters = inspect.signature(component.make).parameters.values()
    options = [each.name for each in parameters if each.name != "num_classes" and each.kind != each.VAR_KEYWORD]
    takes_any = any(each.kind == each.VAR_KEYWORD for each in parameters)
    if isinstance(component.make, type) and issubclass(component.make, SegmentationLoss):
        options += [option for option in LossOptions.__annotations__ if option not in options]
        takes_any = False
    unknown = [option for option in config if option not in options]
    if unknown and not takes_any:
        raise TypeError(f"the {name} loss has no option {', '.join(unknown)}; its options are {', '.join(options)}")
    loss: nn.Module = component.make(num_classes, **config)
    return loss
