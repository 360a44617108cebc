"""The loss of the paper's authors (github.com/ZJULearning/RMI), with their arguments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmiseg.losses import RMILoss as _RMILoss
from rmiseg.losses.inputs import Target

POOL_WAYS = ("max", "avg", "interp")


class _EverySample(_RMILoss):
    """RMI's mean over all samples, also those without a valid pixel, as the original takes it."""

    def _counted(self, target: Target) -> Tensor:
        return torch.stack([target.counts[:, 0], target.samples.long()], dim=1)


class RMILoss(nn.Module):
    """RMI beside binary cross entropy: `rmiseg.RMILoss` under the original's names.

    Args:
        num_classes: Number of classes C.
        rmi_radius: Side R of the square regions.
        rmi_pool_way: 0: max pooling; 1: average pooling; 2: interpolation.
        rmi_pool_size: Downsampling factor.
        rmi_pool_stride: The same number.
        loss_weight_lambda: The weight lambda.
        lambda_way: 1: lambda * pixel + (1 - lambda) * rmi; 0: pixel + lambda * rmi.

    Shape: logits (N, C, h, w), at the size of the labels or below; labels (N, H, W), of which every value outside of
    [0, C) is ignored; the output is a scalar.
    """

    def __init__(
        self,
        num_classes: int = 21,
        rmi_radius: int = 3,
        rmi_pool_way: int = 0,
        rmi_pool_size: int = 3,
        rmi_pool_stride: int = 3,
        loss_weight_lambda: float = 0.5,
        lambda_way: int = 1,
    ) -> None:
        super().__init__()
        if rmi_pool_way not in range(len(POOL_WAYS)):
            raise ValueError(f"rmi_pool_way must be 0 (max), 1 (avg) or 2 (interpolation), got {rmi_pool_way!r}")
        if rmi_pool_size != rmi_pool_stride:
            raise ValueError(f"rmi_pool_size must equal rmi_pool_stride, got {rmi_pool_size} and {rmi_pool_stride}")
        self.num_classes = num_classes
        self.sigmoid, self.softmax_sigmoid = (
            _EverySample(
                num_classes,
                ignore_index=None,
                region_size=rmi_radius,
                pool=POOL_WAYS[rmi_pool_way],
                pool_size=rmi_pool_size,
                weight_lambda=loss_weight_lambda,
                combine="convex" if lambda_way else "additive",
                pixel_loss=pixel_loss,
            )
            for pixel_loss in ("bce", "ce")
        )

    def forward(self, logits_4D: Tensor, labels_4D: Tensor) -> Tensor:
        return self.forward_sigmoid(logits_4D, labels_4D)

    def forward_sigmoid(self, logits_4D: Tensor, labels_4D: Tensor) -> Tensor:
        """RMI beside binary cross entropy."""
        return self._loss(self.sigmoid, logits_4D, labels_4D)

    def forward_softmax_sigmoid(self, logits_4D: Tensor, labels_4D: Tensor) -> Tensor:
        """RMI beside softmax cross entropy."""
        return self._loss(self.softmax_sigmoid, logits_4D, labels_4D)

    def _loss(self, loss: _RMILoss, logits: Tensor, labels: Tensor) -> Tensor:
        value = loss(logits, labels, mask=(labels >= 0) & (labels < self.num_classes))
        assert isinstance(value, Tensor)
        return value
