"""RMI of perfect predictions, which have the labels for probabilities: what the value of RMI is counted from.

Pooling treats labels and probabilities alike, so it takes the labels' own covariance; but for "interp", which takes the
nearest label and interpolates probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions, one_hot, soft_targets, upsample_logits
from rmiseg.kernels.regions import perfect_rmi, region_covariance, rmi_of_covariance


def perfect_rmi_of_classes(
    target: Tensor, valid: Tensor, labels: Tensor, covariance: Tensor, options: RMIOptions
) -> Tensor:
    """RMI (N, C) float64 of perfect predictions.

    Args:
        target, valid: (N, H, W) class ids, and bool.
        labels: Pooled, (N, C, h, w).
        covariance: `region_covariance` of any probabilities and these labels.
        options: See `functional.rmi_sums`.
    """
    certain = interpolated_classes(target, valid, labels) if options.pool == "interp" else labels
    return perfect_rmi_of_maps(labels, certain, covariance, options)


def perfect_rmi_of_maps(
    labels: Tensor, certain: Tensor, covariance: Tensor, options: RMIOptions, counted: Tensor | None = None
) -> Tensor:
    """`perfect_rmi_of_classes`, from pooled labels, and labels pooled as probabilities are, where that differs.

    counted: See `region_covariance`.
    """
    if options.pool != "interp":
        return perfect_rmi(covariance, options.alpha)
    return rmi_of_covariance(region_covariance(certain, labels, options.region_size, counted), options.alpha)


def interpolated_target(target: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
    """A target, class ids (N, H, W) or soft (N, C, H, W), interpolated to the size of `labels`, corners aligned."""
    if target.ndim == valid.ndim:
        return interpolated_classes(target, valid, labels)
    soft = soft_targets(target, valid, labels.shape[1], labels.dtype)
    return upsample_logits(soft, labels.shape[2:], align_corners=True).contiguous()


def interpolated_classes(target: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
    """One-hot class ids (N, H, W) interpolated to the size of `labels` (N, C, h, w), corners aligned."""
    certain = torch.zeros_like(labels)
    ways = []
    for full, small in zip(target.shape[1:], labels.shape[2:]):
        scale = (full - 1) / (small - 1) if small > 1 else 0.0
        position = torch.arange(small, device=target.device, dtype=labels.dtype) * scale
        low = position.long().clamp(max=full - 1)
        high = (low + 1).clamp(max=full - 1)
        ways.append(((low, 1 - (position - low)), (high, position - low)))
    for rows, down in ways[0]:
        for columns, across in ways[1]:
            at = (slice(None), rows[:, None], columns)
            certain += one_hot(target[at], valid[at], labels.shape[1], labels.dtype) * (down[:, None] * across)
    return certain
