"""A pixel loss alone as a custom operator, and `pixel_sums`, which calls it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rmiseg import functional
from rmiseg.functional import WITHOUT_FLOAT64, computed_dtype
from rmiseg.kernels import backends
from rmiseg.kernels.backends import BACKENDS
from rmiseg.kernels.modes import is_plain_call, written
from rmiseg.kernels.operators import doubles, on_cpu, refuse


def pixel_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    implementation: str,
) -> Tensor:
    """The sums of a pixel loss, "ce" or "bce", over each sample's valid pixels: (N,).

    Arguments as in `rmi.rmi_sums`.
    """
    if logits.device.type in WITHOUT_FLOAT64:
        inputs = on_cpu(logits, target, valid, class_weights)
        return pixel_sums(*inputs, pixel_loss, align_corners, implementation).to(logits.device)
    backend = backends.resolve(implementation, logits, target)
    if backend == "plain":
        wide = functional.upsample_logits(functional.widened(logits), valid.shape[1:], align_corners)
        return functional.PIXEL_SUMS[pixel_loss](wide, target, valid, class_weights)
    inputs = logits, target, valid, doubles(class_weights)
    apply = _Pixel.apply if is_plain_call(logits) else pixel_operator
    sums: Tensor = apply(*inputs, pixel_loss, align_corners, backend)
    return sums


@torch.library.custom_op("rmiseg::pixel", mutates_args=())
def pixel_operator(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    backend: str,
) -> Tensor:
    """A pixel loss alone.

    Args:
        logits, target, valid, class_weights: See `rmi.rmi_operator`.
        pixel_loss: "bce" or "ce".
        align_corners: Corner convention of the interpolation of small logits.
        backend: A key of `BACKENDS`.

    Returns:
        Sums over each sample's valid pixels (N,), in the dtype of the computation.
    """
    return BACKENDS[backend]().pixel_forward(logits, target, valid, class_weights, pixel_loss, align_corners)


@torch.library.custom_op("rmiseg::pixel_backward", mutates_args=())
def pixel_backward_operator(
    grad_pixel: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    backend: str,
) -> Tensor:
    """The gradient of `pixel_operator` in the logits.

    Args:
        grad_pixel: (N,), the gradient in the pixel sums, in their dtype.
        logits, target, valid, class_weights: See `rmi.rmi_operator`.
        pixel_loss, align_corners, backend: See `pixel_operator`.

    Returns:
        (N, C, *low), in the dtype of the logits.
    """
    inputs = logits, target, valid, class_weights, pixel_loss, align_corners
    return BACKENDS[backend]().pixel_backward(grad_pixel, *inputs)


@pixel_operator.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape[:1], dtype=computed_dtype(logits))


@pixel_backward_operator.register_fake
def _(grad_pixel: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _save_pixel(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _pixel_gradient(ctx: Any, grad_pixel: Tensor) -> tuple[Tensor | None, ...]:
    gradient = pixel_backward_operator(grad_pixel, *ctx.saved_tensors, *ctx.settings)
    return (gradient, *(None,) * (3 + len(ctx.settings)))


class _Pixel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor,
        class_weights: Tensor | None,
        pixel_loss: str,
        align_corners: bool,
        backend: str,
    ) -> Tensor:
        ctx.save_for_backward(logits, target, valid, class_weights)
        ctx.settings = pixel_loss, align_corners, backend
        return BACKENDS[backend]().pixel_forward(logits, target, valid, class_weights, pixel_loss, align_corners)

    @staticmethod
    def backward(ctx: Any, grad_pixel: Tensor) -> tuple[Tensor | None, ...]:
        pixel_loss, align_corners, backend = ctx.settings
        if torch.is_grad_enabled():  # somebody may differentiate again, which the operator refuses
            gradient = pixel_backward_operator(grad_pixel, *ctx.saved_tensors, *ctx.settings)
        else:
            saved: tuple[Any, ...] = (*ctx.saved_tensors, pixel_loss, align_corners)
            gradient = BACKENDS[backend]().pixel_backward(written(grad_pixel), *saved)
        return gradient, None, None, None, None, None, None


pixel_operator.register_autograd(_pixel_gradient, setup_context=_save_pixel)
pixel_backward_operator.register_autograd(refuse)
