"""Several networks of one kind as one, whose probabilities are the mean of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rmiseg.models.base import SegmentationModel


class Ensemble(SegmentationModel):
    """Networks of one architecture that saw other images; for prediction, not for training.

    Args:
        members: The networks. Images are normalized for the first, and so for all.

    Attributes:
        members: See above.
    """

    def __init__(self, members: Sequence[SegmentationModel]) -> None:
        first = members[0]
        super().__init__(first.num_classes, first.image_mean, first.image_std)
        self.members = nn.ModuleList(members)
        self.architecture = first.architecture

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of the mean of the members' probabilities, which are logits of it.

        Args:
            images: (N, B, H, W), as for a member.

        Returns:
            (N, C, h, w) float32, at the stride of the members.
        """
        scores = torch.stack([member(images).float().log_softmax(dim=1) for member in self.members])
        return scores.logsumexp(dim=0) - math.log(len(self.members))
