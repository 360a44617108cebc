"""The last step of a loss: its sums over its counts, and these means added up with their weights.

In ordinary operations these are twenty, and ten more backward, each of which takes longer to reach a GPU than to run.
So where nothing but autograd looks on, a kernel does all of it on CUDA, and plain numbers on the CPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rmiseg.functional import widest
from rmiseg.kernels import backends
from rmiseg.kernels.modes import is_plain_call, is_transformed
from rmiseg.kernels.terms import Shares


def loss_of_sums(sums: Tensor, counts: Tensor, shares: Shares) -> Tensor:
    """The loss (...), of sums (..., K) and counts (..., K): of valid pixels, and, if K = 2, of samples with RMI.

    A mean over nothing is 0. The loss is in the dtype of the sums.
    """
    if sums.ndim == 1 and is_fused(sums):
        return mean_loss(sums.unsqueeze(0), counts.unsqueeze(0), None, shares)
    found = counts.to(widest(counts.device)).unbind(-1)
    pixels = found[0]
    slopes = [shares.pixel / (pixels + 1 if shares.extra else pixels.where(pixels > 0, 1))]
    if shares.regions is not None:
        slopes.append(shares.regions / found[1].where(pixels * found[1] > 0, math.inf))
    return spread_non_finite((sums * torch.stack(slopes, dim=-1).to(sums.dtype)).sum(dim=-1))


def spread_non_finite(loss: Tensor) -> Tensor:
    """The loss itself; but if it is not finite, so is its whole gradient, and a gradient scaler skips the step.

    The derivative of the sigmoid cross entropy at an infinite logit, for one, would be finite.
    """
    return loss * (1 + 0 * loss.detach())  # infinity times 0 is NaN


def is_fused(sums: Tensor) -> bool:
    """True if `mean_loss` can take these sums."""
    if is_transformed() or not is_plain_call(sums):
        return False
    return _is_for_kernel(sums) or sums.device.type == "cpu"


def _is_for_kernel(sums: Tensor) -> bool:
    # Numbers that are arguments of a kernel are float32.
    return sums.dtype == torch.float32 and backends.fastest(sums.device) == "triton"


def mean_loss(sums: Tensor, counts: Tensor, unknown: Tensor | None, shares: Shares) -> Tensor:
    """`loss_of_sums` of the totals of a batch, at once.

    Args:
        sums: (N, K), for which `is_fused` is true.
        counts: (N, K) int64 or float64.
        unknown: (M,) bool or int64; where any is not 0, the loss is NaN. None if there is none.
        shares: See `Shares`.
    """
    loss: Tensor = _Mean.apply(sums, counts, unknown, shares)
    return loss


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, counts: Tensor, unknown: Tensor | None, shares: Shares) -> Tensor:
        if _is_for_kernel(sums):
            from rmiseg.kernels.triton.totals import loss_and_gradient

            loss, gradient = loss_and_gradient(sums, counts, unknown, shares)
        else:
            loss, gradient = _of_numbers(sums, counts, unknown, shares)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (grad_loss * gradient).t(), None, None, None


def _of_numbers(sums: Tensor, counts: Tensor, unknown: Tensor | None, shares: Shares) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient in the sums, (K, N)."""
    pixels, *samples = _totals(counts)
    slopes = [shares.pixel / (pixels + shares.extra or 1)]
    if shares.regions is not None:
        slopes.append(shares.regions / samples[0] if pixels > 0 and samples[0] > 0 else 0.0)
    value = sum(slope * total for slope, total in zip(slopes, _totals(sums)))
    if not abs(value) <= torch.finfo(sums.dtype).max or (unknown is not None and any(unknown.tolist())):
        value, slopes = math.nan, [math.nan] * len(slopes)  # as `spread_non_finite` has it
    return sums.new_tensor(value), sums.new_tensor(slopes).unsqueeze(1).expand(sums.shape[::-1])


def _totals(rows: Tensor) -> list[float]:
    """Sums of the columns of (N, K)."""
    numbers = rows.tolist()
    return [sum(row[column] for row in numbers) for column in range(rows.shape[1])]
