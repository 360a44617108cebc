"""Which implementation computes a loss, and its place in PyTorch: custom operators, opaque to torch.compile.

An implementation is a module with four functions, all of them deterministic and without a host-visible exception for
non-finite logits:

    rmi_forward(logits, target, valid, class_weights, options, with_gradient) -> pixel_sums, rmi, present, gradient_maps
    rmi_backward(grad_pixel, grad_rmi, logits, target, valid, class_weights, gradient_maps, options) -> gradient
    pixel_forward(logits, target, valid, class_weights, pixel_loss, align_corners) -> pixel_sums
    pixel_backward(grad_pixel, logits, target, valid, class_weights, pixel_loss, align_corners) -> gradient

The arguments and the first three results are those of `rmiseg.functional.rmi_sums`, the class weights float64.
What is kept for the backward pass is `gradient_maps` (N, C, *pooled size), float32 or float64: the gradient of each
map's RMI in its pooled probabilities; (N, C, 0, ...) without `with_gradient`.

Images with class ids take "native", "triton" or "chunked". Targets that are maps, and volumes, take "soft".
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rmiseg import functional
from rmiseg.functional import WITHOUT_FLOAT64, RMIOptions, computed_dtype, pooled_size

IMPLEMENTATIONS = ("auto", "native", "triton", "chunked", "plain")


def rmi_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    options: RMIOptions,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`functional.rmi_sums` by one of `IMPLEMENTATIONS`."""
    if logits.device.type in WITHOUT_FLOAT64:
        inputs = _on_cpu(logits, target, valid, class_weights)
        pixel_sums, rmi, present = rmi_sums(*inputs, options, implementation)
        return pixel_sums.to(logits.device), rmi.float().to(logits.device), present.to(logits.device)
    implementation = _resolve(implementation, logits, target)
    if implementation == "plain":
        return functional.rmi_sums(logits, target, valid, class_weights, options)
    pool = options.pool if options.pool_size > 1 else "avg"  # of single pixels they are all the same
    settings = (options.region_size, pool, options.pool_size, options.pixel_loss, options.align_corners, options.alpha)
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    if implementation == "triton":
        with_gradient &= _module("triton").keeps_maps(logits.shape, target.shape, options)
    inputs = logits, target, valid, _doubles(class_weights)
    pixel_sums, rmi, present, _ = rmi_operator(*inputs, *settings, implementation, with_gradient)
    return pixel_sums, rmi, present


def pixel_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    implementation: str,
) -> Tensor:
    """The sums of a pixel loss, "ce" or "bce", over each sample's valid pixels: (N,). Arguments as in `rmi_sums`."""
    if logits.device.type in WITHOUT_FLOAT64:
        inputs = _on_cpu(logits, target, valid, class_weights)
        return pixel_sums(*inputs, pixel_loss, align_corners, implementation).to(logits.device)
    implementation = _resolve(implementation, logits, target)
    if implementation == "plain":
        wide = functional.upsample_logits(functional.widened(logits), valid.shape[1:], align_corners)
        return functional.PIXEL_SUMS[pixel_loss](wide, target, valid, class_weights)
    inputs = logits, target, valid, _doubles(class_weights)
    return pixel_operator(*inputs, pixel_loss, align_corners, implementation)


def check_implementation(implementation: str) -> None:
    """Raises a ValueError that says why, if there is no such implementation here."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}; got {implementation!r}")
    if implementation == "native" and not _native_is_available():
        raise ValueError(
            "implementation='native' is not here: rmiseg was installed without a C++ compiler. Install it again with "
            "one, or use 'auto'"
        )
    if implementation == "triton" and not _triton_is_available():
        raise ValueError("implementation='triton' needs the package triton, which is not installed; use 'auto'")


def _resolve(implementation: str, logits: Tensor, target: Tensor) -> str:
    device = logits.device.type
    devices = {"native": "cpu", "triton": "cuda"}
    if devices.get(implementation, device) != device:
        raise ValueError(
            f"implementation={implementation!r} is for {devices[implementation]} logits, got {device} ones"
        )
    if implementation != "plain" and (logits.ndim != 4 or target.ndim == logits.ndim):
        if implementation in devices:
            raise ValueError(
                f"implementation={implementation!r} is for images with class ids, neither for volumes nor for "
                "targets that are probabilities; use 'auto'"
            )
        return "soft"
    if implementation != "auto":
        return implementation
    if device == "cpu" and _native_is_available():
        return "native"
    return "triton" if device == "cuda" and _triton_is_available() else "chunked"


def _on_cpu(
    logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    return logits.cpu(), target.cpu(), valid.cpu(), None if class_weights is None else class_weights.cpu()


def _doubles(class_weights: Tensor | None) -> Tensor | None:
    return None if class_weights is None else class_weights.detach().double().contiguous()


def _native_is_available() -> bool:
    return importlib.util.find_spec("rmiseg.kernels.native._library") is not None


def _triton_is_available() -> bool:
    return importlib.util.find_spec("triton") is not None


def _module(implementation: str) -> ModuleType:
    name = "triton.launch" if implementation == "triton" else implementation
    return importlib.import_module(f"rmiseg.kernels.{name}")


def without_autocast(logits: Tensor) -> torch.autocast:
    """Products of matrices keep their precision inside a caller's autocast."""
    return torch.autocast(logits.device.type, enabled=False)


@torch.library.custom_op("rmiseg::rmi", mutates_args=())
def rmi_operator(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    region_size: int,
    pool: str,
    pool_size: int,
    pixel_loss: str,
    align_corners: bool,
    alpha: float,
    implementation: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    options = RMIOptions(region_size, pool, pool_size, pixel_loss, align_corners, alpha)
    with without_autocast(logits):
        return _module(implementation).rmi_forward(  # type: ignore[no-any-return]
            logits, target, valid, class_weights, options, with_gradient
        )


@torch.library.custom_op("rmiseg::rmi_backward", mutates_args=())
def rmi_backward_operator(
    grad_pixel: Tensor,
    grad_rmi: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    gradient_maps: Tensor,
    region_size: int,
    pool: str,
    pool_size: int,
    pixel_loss: str,
    align_corners: bool,
    alpha: float,
    implementation: str,
) -> Tensor:
    options = RMIOptions(region_size, pool, pool_size, pixel_loss, align_corners, alpha)
    with without_autocast(logits):
        return _module(implementation).rmi_backward(  # type: ignore[no-any-return]
            grad_pixel, grad_rmi, logits, target, valid, class_weights, gradient_maps, options
        )


@torch.library.custom_op("rmiseg::pixel", mutates_args=())
def pixel_operator(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    implementation: str,
) -> Tensor:
    with without_autocast(logits):
        return _module(implementation).pixel_forward(  # type: ignore[no-any-return]
            logits, target, valid, class_weights, pixel_loss, align_corners
        )


@torch.library.custom_op("rmiseg::pixel_backward", mutates_args=())
def pixel_backward_operator(
    grad_pixel: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    implementation: str,
) -> Tensor:
    with without_autocast(logits):
        return _module(implementation).pixel_backward(  # type: ignore[no-any-return]
            grad_pixel, logits, target, valid, class_weights, pixel_loss, align_corners
        )


# What torch.compile needs to know: shapes and dtypes of results.


@rmi_operator.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    region_size: int,
    pool: str,
    pool_size: int,
    pixel_loss: str,
    align_corners: bool,
    alpha: float,
    implementation: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    classes, size = tuple(logits.shape[:2]), valid.shape[1:]
    pooled = pooled_size(size, pool, pool_size) if with_gradient else (0,) * len(size)
    return (
        logits.new_empty(classes[:1], dtype=computed_dtype(logits)),
        logits.new_empty(classes, dtype=torch.float64),
        logits.new_empty(classes, dtype=torch.bool),
        logits.new_empty((*classes, *pooled), dtype=computed_dtype(logits)),
    )


@rmi_backward_operator.register_fake
def _(grad_pixel: Tensor, grad_rmi: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


@pixel_operator.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape[:1], dtype=computed_dtype(logits))


@pixel_backward_operator.register_fake
def _(grad_pixel: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


# Gradients.


def _save_rmi(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, present, gradient_maps = output
    ctx.save_for_backward(*inputs[:4], gradient_maps)
    ctx.settings = inputs[4:-1]
    ctx.mark_non_differentiable(present, gradient_maps)


def _rmi_gradient(ctx: Any, grad_pixel: Tensor, grad_rmi: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    gradient = rmi_backward_operator(grad_pixel, grad_rmi, *ctx.saved_tensors, *ctx.settings)
    return (gradient, *(None,) * (4 + len(ctx.settings)))


def _save_pixel(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _pixel_gradient(ctx: Any, grad_pixel: Tensor) -> tuple[Tensor | None, ...]:
    gradient = pixel_backward_operator(grad_pixel, *ctx.saved_tensors, *ctx.settings)
    return (gradient, *(None,) * (3 + len(ctx.settings)))


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "this loss cannot be differentiated twice; build it with implementation='plain', which is slower, but can"
    )


rmi_operator.register_autograd(_rmi_gradient, setup_context=_save_rmi)
pixel_operator.register_autograd(_pixel_gradient, setup_context=_save_pixel)
rmi_backward_operator.register_autograd(_refuse)
pixel_backward_operator.register_autograd(_refuse)
