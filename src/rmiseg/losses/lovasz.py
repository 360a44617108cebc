"""The Lovasz-Softmax loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.losses.inputs import IGNORE_INDEX
from rmiseg.losses.pixel_sets import PixelSetLoss


@dataclass
class LovaszOptions:
    """Options of the Lovasz-Softmax loss."""

    per_image: bool = False
    """Take it of each image by itself, and average; by default of all pixels of the batch."""


@register("loss", "lovasz", options=LovaszOptions)
class LovaszLoss(PixelSetLoss):
    """Lovasz-Softmax (Berman et al., CVPR 2018, arXiv:1705.08790): a continuous extension of 1 - IoU.

    The mean over the classes that the target shows of the Lovasz extension (section 3.2, equation 9) of the Jaccard
    loss at the errors |y - p| of the softmax p. Each class sorts all pixels once: the slowest of these losses.

    Args:
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        per_image: See `LovaszOptions`.

    Shape: see `PixelSetLoss.forward`.
    """

    def __init__(
        self, num_classes: int, ignore_index: int | Sequence[int] | None = IGNORE_INDEX, *, per_image: bool = False
    ) -> None:
        super().__init__("lovasz", num_classes, ignore_index, each_sample=per_image)

    def of_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        shares = logits.softmax(dim=0)
        values = []
        for each in torch.unique(labels).tolist():
            truth = labels == each
            errors, order = torch.where(truth, 1 - shares[each], shares[each]).sort(descending=True)
            values.append(errors @ _jaccard_steps(truth[order]).to(errors.dtype))
        return torch.stack(values).mean()


def _jaccard_steps(truth: Tensor) -> Tensor:
    """Growth of the Jaccard loss with each further wrong pixel: (P,) of truth (P,) bool, the worst first."""
    hits = truth.cumsum(dim=0)
    total = hits[-1]
    union = total + (~truth).cumsum(dim=0)
    loss = 1 - (total - hits).double() / union.double()
    return loss.diff(prepend=loss.new_zeros(1))
