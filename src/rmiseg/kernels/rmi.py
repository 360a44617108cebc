"""RMI and a pixel loss as a custom operator, and `rmi_sums`, which calls it.

Custom operators take numbers, strings and lists of whole numbers, so `RMIOptions` and the name of the backend travel in
three arguments, which `_pack` makes and `_unpack` reads:

    sizes: [region_size, pool_size, align_corners as 0 or 1]
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
from rmiseg.kernels.modes import is_kept, is_plain_call
from rmiseg.kernels.operators import doubles, on_cpu, refuse, without_autocast


class RMISums(NamedTuple):
    """Sums of a batch.

    Attributes:
        sums: Of each sample (N, 2), float32 or float64: the pixel loss over its valid pixels, and RMI, counted from the
            floor, over its classes, times their weights.
        rmi: RMI of every map (N, C) float64, without a gradient.
        present: The classes that are present in each sample (N, C) bool.
        perfect: RMI of a perfect prediction (N, C) float64; (N, 0) if it was not asked for.
    """

    sums: Tensor
    rmi: Tensor
    present: Tensor
    perfect: Tensor


def rmi_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    options: RMIOptions,
    implementation: str,
    floor: float | None = 0.0,
    with_perfect: bool = False,
) -> RMISums:
    """Pixel loss and RMI of a batch, by one of `backends.IMPLEMENTATIONS`.

    Args:
        logits, target, valid, class_weights, options: See `functional.rmi_sums`.
        map_weights: (N, C) float64, finite: how much RMI of each map counts in the sums.
        implementation: See `RMILoss`.
        floor: What RMI counts from in the sums; None for `functional.perfect_rmi`.
        with_perfect: Return that too.
    """
    if logits.device.type in WITHOUT_FLOAT64:
        here = on_cpu(logits, target, valid, class_weights)
        found = rmi_sums(*here, map_weights.cpu(), options, implementation, floor, with_perfect)
        narrow = (each.float() if each.dtype == torch.float64 else each for each in found)
        return RMISums(*(each.to(logits.device) for each in narrow))
    backend = backends.resolve(implementation, logits, target)
    with_perfect = with_perfect or floor is None
    if backend == "plain":
        pixel, rmi, present = functional.rmi_sums(logits, target, valid, class_weights, options)
        perfect = rmi.new_empty((len(logits), 0))
        if with_perfect:
            perfect = functional.perfect_rmi(target, valid, logits.shape[1], options, computed_dtype(logits)).detach()
        return RMISums(joined_sums(pixel, rmi, perfect, map_weights, floor), rmi.detach(), present, perfect)
    with_gradient = is_kept() or (torch.is_grad_enabled() and logits.requires_grad)
    inputs = logits, target, valid, doubles(class_weights), map_weights
    if is_plain_call(logits):
        return RMISums(*_RMI.apply(*inputs, options, backend, floor, with_gradient, with_perfect)[:4])
    return RMISums(*rmi_operator(*inputs, *_pack(options, backend), floor, with_gradient, with_perfect)[:4])


def joined_sums(pixel: Tensor, rmi: Tensor, perfect: Tensor, map_weights: Tensor, floor: float | None) -> Tensor:
    """`RMISums.sums`, of pixel sums (N,) and RMI (N, C)."""
    if floor is None:
        rmi = rmi - perfect
    elif floor != 0:
        rmi = rmi - floor
    return torch.stack([pixel, (rmi * map_weights).sum(dim=1).to(pixel.dtype)], dim=1)


def _pack(options: RMIOptions, backend: str) -> tuple[list[int], str, float]:
    """sizes, method and alpha, as the operators take them."""
    pool = options.pool if options.pool_size > 1 else "avg"  # of single pixels they are all the same
    sizes = [options.region_size, options.pool_size, int(options.align_corners)]
    return sizes, f"{backend} {pool} {options.pixel_loss}", options.alpha


def _unpack(sizes: Sequence[int], method: str, alpha: float) -> tuple[RMIOptions, str]:
    """The options and the name of the backend that `_pack` packed."""
    region_size, pool_size, align_corners = sizes
    backend, pool, pixel_loss = method.split(" ")
    return RMIOptions(region_size, pool, pool_size, pixel_loss, bool(align_corners), alpha), backend


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
    with_perfect: bool,
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
        with_perfect: Compute the RMI of perfect predictions too; needed if floor is None.

    Returns:
        The fields of `RMISums`, sums (N, 2) in the dtype of the computation, RMI (N, C) float64, present classes (N, C)
        bool, RMI of perfect predictions (N, C) float64, or (N, 0) without with_perfect; and gradient maps
        (N, C, *pooled size), or (N, C, 0, ...) without with_gradient.
    """
    options, backend = _unpack(sizes, method, alpha)
    return _rmi_forward(
        logits, target, valid, class_weights, map_weights, options, backend, floor, with_gradient, with_perfect
    )


def _rmi_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    options: RMIOptions,
    backend: str,
    floor: float | None,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`rmi_operator`, unpacked."""
    functions = BACKENDS[backend]()
    with without_autocast(logits):
        pixel, rmi, present, perfect, gradient_maps = functions.rmi_forward(
            logits, target, valid, class_weights, options, with_gradient, with_perfect
        )
        join = functions.join if functions.join is not None and pixel.dtype == torch.float32 else joined_sums
        return join(pixel, rmi, perfect, map_weights, floor), rmi, present, perfect, gradient_maps


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
    saved = logits, target, valid, class_weights, map_weights, gradient_maps
    return _rmi_backward(grad_sums, *saved, *_unpack(sizes, method, alpha))


def _rmi_backward(
    grad_sums: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    map_weights: Tensor,
    gradient_maps: Tensor,
    options: RMIOptions,
    backend: str,
) -> Tensor:
    """`rmi_backward_operator`, unpacked."""
    grad_rmi = grad_sums[:, 1:] * map_weights
    with without_autocast(logits):
        return BACKENDS[backend]().rmi_backward(
            grad_sums[:, 0].contiguous(), grad_rmi, logits, target, valid, class_weights, gradient_maps, options
        )


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
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    options, _ = _unpack(sizes, method, alpha)
    classes, size = tuple(logits.shape[:2]), valid.shape[1:]
    pooled = pooled_size(size, options.pool, options.pool_size) if with_gradient else (0,) * len(size)
    return (
        logits.new_empty((classes[0], 2), dtype=computed_dtype(logits)),
        logits.new_empty(classes, dtype=torch.float64),
        logits.new_empty(classes, dtype=torch.bool),
        logits.new_empty(classes if with_perfect else (classes[0], 0), dtype=torch.float64),
        logits.new_empty((*classes, *pooled), dtype=computed_dtype(logits)),
    )


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
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:  # those of `_rmi_forward`
        output = _rmi_forward(*inputs)
        ctx.save_for_backward(*inputs[:5], output[4])
        ctx.settings = inputs[5:7]
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_sums is None:
            gradient = None
        elif torch.is_grad_enabled():  # somebody may differentiate again, which the operator refuses
            gradient = rmi_backward_operator(grad_sums, *ctx.saved_tensors, *_pack(*ctx.settings))
        else:
            gradient = _rmi_backward(grad_sums, *ctx.saved_tensors, *ctx.settings)
        return (gradient, *(None,) * 9)


rmi_operator.register_autograd(_rmi_gradient, setup_context=_save_rmi)
rmi_backward_operator.register_autograd(refuse)
