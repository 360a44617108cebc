"""A whole loss of class ids in one call: from the checking of labels to the mean over the batch.

Every operation, every view and every function between them takes as long as a small batch's work, or longer. So where
nothing but autograd looks on, and only the mean is asked for, backends do all of it at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rmiseg.kernels import backends
from rmiseg.kernels.backends import BACKENDS, Backend
from rmiseg.kernels.modes import is_plain_call, is_transformed, written
from rmiseg.kernels.operators import refuse
from rmiseg.kernels.terms import WholeLoss


def whole_loss(logits: Tensor, target: Tensor, loss: WholeLoss, implementation: str) -> Tensor | None:
    """The loss (), or None where it must be computed step by step: also where labels are no classes, on the CPU.

    Args:
        logits: (N, C, h, w), floating.
        target: (N, H, W), whole numbers, on the same device.
        loss: What is computed.
        implementation: See `RMILoss`.
    """
    if is_transformed() or not is_plain_call(logits, target):
        return None
    backend = BACKENDS.get(backends.resolve(implementation, logits, target))
    if backend is None or (functions := backend()).loss_forward is None:
        return None
    if torch.is_grad_enabled() and logits.requires_grad:
        found: Tensor | None = _Loss.apply(logits, target, loss, functions)
        return found
    return functions.loss_forward(logits, target, loss, False)[0]


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, loss: WholeLoss, functions: Backend) -> Tensor | None:
        assert functions.loss_forward is not None
        value, saved = functions.loss_forward(logits, target, loss, True)
        ctx.save_for_backward(logits, *saved)
        ctx.settings = loss, functions
        return value

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        # With gradients enabled somebody may differentiate again, which is refused then.
        gradient_of = _Gradient.apply if torch.is_grad_enabled() else _gradient
        return gradient_of(*ctx.settings, written(grad_loss), *ctx.saved_tensors), None, None, None


def _gradient(loss: WholeLoss, functions: Backend, grad_loss: Tensor, *saved: Tensor | None) -> Tensor:
    assert functions.loss_backward is not None
    return functions.loss_backward(grad_loss, *saved, loss)


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        return _gradient(*inputs)

    backward = staticmethod(refuse)
