"""Losses for semantic segmentation. Each is an `nn.Module` called as `loss(logits, target)`; see `SegmentationLoss`.

>>> from rmiseg.losses import RMILoss
>>> loss = RMILoss(num_classes=21)
"""

from __future__ import annotations

import inspect
from typing import Any

from rmiseg.functional import upsample_logits
from rmiseg.losses.affinity import AffinityLoss
from rmiseg.losses.base import Dialect, LossTerms, SegmentationLoss
from rmiseg.losses.pixelwise import BCELoss, CELoss
from rmiseg.losses.pyramid import PyramidLoss
from rmiseg.losses.rmi import RMILoss

__all__ = [
    "AffinityLoss",
    "BCELoss",
    "CELoss",
    "LossTerms",
    "PyramidLoss",
    "RMILoss",
    "SegmentationLoss",
    "build_loss",
    "upsample_logits",
]

LOSSES: dict[str, type[SegmentationLoss]] = {
    "rmi": RMILoss,
    "ce": CELoss,
    "bce": BCELoss,
    "pyramid": PyramidLoss,
    "affinity": AffinityLoss,
}


def build_loss(name: str, *, num_classes: int, **config: Any) -> SegmentationLoss:
    """Build the loss called `name` ("rmi", "ce", "bce", "pyramid" or "affinity").

    Args:
        name: Name of the loss.
        num_classes: Number of classes C.
        config: Further arguments of the loss's constructor.

    Raises:
        ValueError: Unknown name, or a value that the loss refuses.
        TypeError: An argument that the loss does not have, or one that is missing.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; the losses are {', '.join(LOSSES)}")
    own = [option for option in inspect.signature(LOSSES[name]).parameters if option not in ("num_classes", "dialect")]
    options = [*own, *Dialect.__annotations__]
    unknown = [option for option in config if option not in options]
    if unknown:
        raise TypeError(f"the {name} loss has no option {', '.join(unknown)}; its options are {', '.join(options)}")
    return LOSSES[name](num_classes, **config)
