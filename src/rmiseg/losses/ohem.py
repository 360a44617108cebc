"""Cross entropy of the hard pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.losses.inputs import IGNORE_INDEX
from rmiseg.losses.pixel_sets import PixelSetLoss


@dataclass
class OHEMOptions:
    """Options of cross entropy with online hard example mining."""

    threshold: float = 0.7
    """Probability of the right class below which a pixel is hard."""
    least: float = 0.1
    """Share of the valid pixels that counts at least, the hardest."""


@register("loss", "ohem", options=OHEMOptions)
class OHEMLoss(PixelSetLoss):
    """Softmax cross entropy with online hard example mining (Shrivastava et al., CVPR 2016, arXiv:1604.03540).

    The mean over the valid pixels whose right class has a probability below `threshold`; if they are too few, over the
    hardest share `least`. Pixels of the whole batch compete.

    Args:
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        threshold: Above 0, at most 1, with which all pixels count.
        least: Above 0, at most 1.

    Shape: see `PixelSetLoss.forward`.

    Raises:
        ValueError: A value out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        *,
        threshold: float = 0.7,
        least: float = 0.1,
    ) -> None:
        super().__init__("ohem", num_classes, ignore_index)
        for name, value in (("threshold", threshold), ("least", least)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {value}")
        self.threshold, self.least = threshold, least

    def of_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        values = F.cross_entropy(logits.T, labels, reduction="none")
        least = math.ceil(self.least * len(values))
        border = values.detach().topk(least).values[-1].clamp(max=-math.log(self.threshold))
        return values[~(values < border)].mean()  # NaN is as hard as can be
