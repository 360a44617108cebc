"""RMI and a pixel loss as a custom operator, and `rmi_sums`, which calls it.

Custom operators take numbers, strings and lists of whole numbers, so `RMIOptions` and the name of the backend travel in
three arguments, which `_pack` makes and `_unpack` reads:

    sizes: [region_size, pool_size, align_corners as 0 or 1, batch]
    method: "BACKEND POOL PIXEL_LOSS"
    alpha: what is added to the diagonal of region covariances
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmiseg import functional
from rmiseg.functional import WITHOUT_FLOAT64, RMIOptions, computed_dtype, pooled_size
from rmiseg.kernels import backends
from rmiseg.kernels.backends import BACKENDS
from rmiseg.kernels.modes import is_kept, is_plain_call, written
from rmiseg.kernels.operators import doubles, on_cpu, refuse
from rmiseg.kernels.regions import joined_sums


class RMISums(NamedTuple):
    """Sums of a batch, and, if they were asked for, parts.

    Attributes:
        sums: Of each sample (N, 2), float32 or float64: the pixel loss over its valid pixels, and RMI, counted from the
            floor, over its classes, times their weights.
        rmi: RMI of every map (N, C) float64, without a gradient.
        present: The classes that are present in each sample (N, C) bool.
        perfect: RMI of a perfect prediction (N, C) float64.
    """

    sums: Tensor
    rmi: Tensor | None = None
    present: Tensor | None = None
    perfect: Tensor | None = None


def rmi_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    options: RMIOptions,
    implementation: str,
    floor: float | None = 0.0,
    with_parts: bool = True,
) -> RMISums:
    """Pixel loss and RMI of a batch, by one of `backends.IMPLEMENTATIONS`.

    Args:
        logits, target, valid, class_weights, options: See `functional.rmi_sums`.
        map_weights: (N, C) float64, or int64, finite: how much RMI of each map counts in the sums.
        implementation: See `RMILoss`.
        floor: What RMI counts from in the sums; None for `functional.perfect_rmi`.
        with_parts: Return more than the sums.
    """
    if logits.device.type in WITHOUT_FLOAT64:
        here = on_cpu(logits, target, valid, class_weights)
        found = rmi_sums(*here, map_weights.cpu(), options, implementation, floor, with_parts)
        narrow = (each.float() if each.dtype == torch.float64 else each for each in found if each is not None)
        return RMISums(*(each.to(logits.device) for each in narrow))
    backend = backends.resolve(implementation, logits, target)
    if backend == "plain":
        return _plain_sums(logits, target, valid, class_weights, map_weights, options, floor, with_parts)
    inputs = logits, target, valid, doubles(class_weights), map_weights
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    if is_plain_call(logits):
        found = _RMI.apply(*inputs, options, backend, floor, with_gradient, with_parts)
        return RMISums(*found) if with_parts else RMISums(found)
    with_gradient = with_gradient or is_kept()
    outputs = rmi_operator(*inputs, *_pack(options, backend), floor, with_gradient, with_parts)
    return RMISums(*outputs[:4]) if with_parts else RMISums(outputs[0])


def _plain_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    options: RMIOptions,
    floor: float | None,
    with_parts: bool,
) -> RMISums:
    """`rmi_sums` by the plain definition."""
    pixel, rmi, present = functional.rmi_sums(logits, target, valid, class_weights, options)
    perfect = rmi
    if with_parts or floor is None:
        perfect = functional.perfect_rmi(target, valid, logits.shape[1], options, computed_dtype(logits)).detach()
    return RMISums(joined_sums(pixel, rmi, perfect, map_weights, floor), rmi.detach(), present, perfect)


def _pack(options: RMIOptions, backend: str) -> tuple[list[int], str, float]:
    """sizes, method and alpha, as the operators take them."""
    pool = options.pool if options.pool_size > 1 else "avg"  # of single pixels they are all the same
    sizes = [options.region_size, options.pool_size, int(options.align_corners), options.batch]
    return sizes, f"{backend} {pool} {options.pixel_loss}", options.alpha


def _unpack(sizes: Sequence[int], method: str, alpha: float) -> tuple[RMIOptions, str]:
    """The options and the name of the backend that `_pack` packed."""
    region_size, pool_size, align_corners, batch = sizes
    backend, pool, pixel_loss = method.split(" ")
    return RMIOptions(region_size, pool, pool_size, pixel_loss, bool(align_corners), alpha, batch), backend


@torch.library.custom_op("rmiseg::rmi", mutates_args=())
def rmi_operator(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    sizes: Sequence[int],
    method: str,
    alpha: float,
    floor: float | None,
    with_gradient: bool,
    with_parts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pixel loss and RMI of a batch.

    Args:
        logits: (N, C, *low), any floating dtype, at label resolution or below.
        target: (N, *size) int64, or, of the backends but "triton" and "chunked", also (N, C, *size) floating.
        valid: (N, *size) bool.
        class_weights: (C,) float64, or None.
        map_weights, floor: See `rmi_sums`.
        sizes, method, alpha: See the module.
        with_gradient: Keep the gradient maps for the backward pass.
        with_parts: Compute what is not None of `RMISums` then.

    Returns:
        The fields of `RMISums`: sums (N, 2) in the dtype of the computation, RMI (N, C) float64, present classes (N, C)
        bool, RMI of perfect predictions (N, C) float64; these three are (N, 0) without with_parts. And gradient maps
        (N, C, *pooled size), or (N, C, 0, ...) without with_gradient.
    """
    options, backend = _unpack(sizes, method, alpha)
    inputs = logits, target, valid, class_weights, map_weights
    sums, parts, maps = BACKENDS[backend]().rmi_forward(*inputs, options, floor, with_gradient, with_parts)
    rmi, present, perfect = parts or _empty_parts(logits, 0)
    if maps is None:
        maps = sums.new_empty((*logits.shape[:2], *(0,) * (valid.ndim - 1)))
    return sums, rmi, present, perfect, maps


def _empty_parts(logits: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the last three of `RMISums`."""
    shape = logits.shape[0], classes
    rmi, perfect = (logits.new_empty(shape, dtype=torch.float64) for _ in range(2))
    return rmi, logits.new_empty(shape, dtype=torch.bool), perfect


@torch.library.custom_op("rmiseg::rmi_backward", mutates_args=())
def rmi_backward_operator(
    grad_sums: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    gradient_maps: Tensor,
    sizes: Sequence[int],
    method: str,
    alpha: float,
) -> Tensor:
    """The gradient of `rmi_operator` in the logits.

    Args:
        grad_sums: (N, 2), the gradient in the sums, in their dtype.
        logits, target, valid, class_weights, map_weights: See `rmi_operator`.
        gradient_maps: (N, C, *pooled size) or (N, C, 0, ...), as `rmi_operator` returned them.
        sizes, method, alpha: See the module.

    Returns:
        (N, C, *low), in the dtype of the logits.
    """
    options, backend = _unpack(sizes, method, alpha)
    saved = logits, target, valid, class_weights, map_weights, gradient_maps
    return BACKENDS[backend]().rmi_backward(grad_sums, *saved, options)


@rmi_operator.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    sizes: Sequence[int],
    method: str,
    alpha: float,
    floor: float | None,
    with_gradient: bool,
    with_parts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    options, _ = _unpack(sizes, method, alpha)
    (n, classes), size = logits.shape[:2], valid.shape[1:]
    pooled = pooled_size(size, options.pool, options.pool_size) if with_gradient else (0,) * len(size)
    dtype = computed_dtype(logits)
    parts = _empty_parts(logits, classes if with_parts else 0)
    return logits.new_empty((n, 2), dtype=dtype), *parts, logits.new_empty((n, classes, *pooled), dtype=dtype)


@rmi_backward_operator.register_fake
def _(grad_sums: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _save_rmi(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[4])
    ctx.settings = inputs[5:8]
    ctx.mark_non_differentiable(*output[1:])


def _rmi_gradient(ctx: Any, grad_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return (rmi_backward_operator(grad_sums, *ctx.saved_tensors, *ctx.settings), *(None,) * 10)


class _RMI(torch.autograd.Function):
    """`rmi_operator`, without what it does not return to `rmi_sums`."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor,
        class_weights: Tensor | None,
        map_weights: Tensor,
        options: RMIOptions,
        backend: str,
        floor: float | None,
        with_gradient: bool,
        with_parts: bool,
    ) -> Any:
        inputs = logits, target, valid, class_weights, map_weights
        sums, parts, maps = BACKENDS[backend]().rmi_forward(*inputs, options, floor, with_gradient, with_parts)
        if with_gradient:
            ctx.save_for_backward(*inputs, maps)
            ctx.settings = options, backend
        if not with_parts:
            return sums
        ctx.mark_non_differentiable(*parts)
        ctx.set_materialize_grads(False)
        return sums, *parts

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        options, backend = ctx.settings
        if grad_sums is None:
            gradient = None
        elif torch.is_grad_enabled():  # somebody may differentiate again, which the operator refuses
            gradient = rmi_backward_operator(grad_sums, *ctx.saved_tensors, *_pack(options, backend))
        else:
            saved: tuple[Any, ...] = (*ctx.saved_tensors, options)
            gradient = BACKENDS[backend]().rmi_backward(written(grad_sums), *saved)
        return gradient, None, None, None, None, None, None, None, None, None


rmi_operator.register_autograd(_rmi_gradient, setup_context=_save_rmi)
rmi_backward_operator.register_autograd(refuse)
