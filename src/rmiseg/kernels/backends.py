"""The implementations of the RMI loss by name: what each computes, whether it is here, and which serves an input.

Images with class ids take "native", "triton" or "chunked"; those with soft targets (probabilities of the classes)
"native" or "soft"; volumes "slices", which are native, or "soft".
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions
from rmiseg.kernels.modes import is_transformed
from rmiseg.kernels.operators import without_autocast
from rmiseg.kernels.regions import gradient_in_rmi, joined_sums

IMPLEMENTATIONS = ("auto", "native", "triton", "chunked", "plain")
DEVICES = {"native": "cpu", "triton": "cuda"}


class Backend(NamedTuple):
    """The four functions of an implementation, all of them deterministic; non-finite logits raise nothing.

    Everywhere logits are (N, C, *low) in any floating dtype; target (N, *size) int64 or, but for "triton" and
    "chunked", also (N, C, *size) floating; valid (N, *size) bool; class_weights (C,) float64 or None; map_weights
    (N, C) float64 or int64, in any strides; "wide" is the dtype of the computation,
    `rmiseg.functional.computed_dtype`.

    Attributes:
        rmi_forward: (logits, target, valid, class_weights, map_weights, options, floor, with_gradient, with_parts) to
            the sums (N, 2) wide of `rmiseg.kernels.rmi.RMISums`; what else it holds, or () without with_parts; and the
            gradient of each map's RMI in its pooled probabilities, (N, C, *pooled size) wide, if with_gradient.
        rmi_backward: (grad_sums, logits, target, valid, class_weights, map_weights, gradient_maps, options) to the
            gradient in the logits, in their shape and dtype, given that in the sums (N, 2) wide, in any strides, and
            the gradient_maps of the forward pass.
        pixel_forward: (logits, target, valid, class_weights, pixel_loss, align_corners) to pixel_sums (N,) wide.
        pixel_backward: (grad_pixel, logits, target, valid, class_weights, pixel_loss, align_corners) to the gradient
            in the logits.
        loss_forward: (logits, target, `rmiseg.kernels.terms.WholeLoss`, with_gradient) to the loss (), for a target of
            any whole numbers; None where there are labels that are no classes, if that can be seen, else NaN; and, if
            with_gradient, tensors that `loss_backward` takes. None where there is no such function.
        loss_backward: (grad_loss, logits, *tensors, WholeLoss) to the gradient in the logits.
    """

    rmi_forward: Callable[
        [Tensor, Tensor, Tensor, Tensor | None, Tensor, RMIOptions, float | None, bool, bool],
        tuple[Tensor, tuple[Tensor, ...], Tensor | None],
    ]
    rmi_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, RMIOptions], Tensor]
    pixel_forward: Callable[[Tensor, Tensor, Tensor, Tensor | None, str, bool], Tensor]
    pixel_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, str, bool], Tensor]
    loss_forward: Callable[[Tensor, Tensor, Any, bool], tuple[Tensor | None, tuple[Tensor | None, ...]]] | None = None
    loss_backward: Callable[..., Tensor] | None = None


def _by_steps(module: Any, join: Callable[..., Tensor] = joined_sums) -> Backend:
    """The backend of a module whose functions know neither of autocast nor of how the sums are joined.

    Its `rmi_forward` (logits, target, valid, class_weights, options, with_gradient, with_perfect) returns pixel_sums
    (N,), rmi, present, perfect and gradient_maps, of which the last two are empty where they were not asked for; its
    `rmi_backward` takes grad_pixel (N,) and grad_rmi (N, C) float64. `join` has the arguments of `joined_sums`.
    """

    def rmi_forward(
        logits: Tensor,
        target: Tensor,
        valid: Tensor,
        class_weights: Tensor | None,
        map_weights: Tensor,
        options: RMIOptions,
        floor: float | None,
        with_gradient: bool,
        with_parts: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        with without_autocast(logits):
            settings = options, with_gradient, with_parts or floor is None
            pixel, rmi, present, perfect, maps = module.rmi_forward(logits, target, valid, class_weights, *settings)
            sums = join(pixel, rmi, perfect, map_weights, floor)
        return sums, (rmi, present, perfect) if with_parts else (), maps

    def rmi_backward(
        grad_sums: Tensor,
        logits: Tensor,
        target: Tensor,
        valid: Tensor,
        class_weights: Tensor | None,
        map_weights: Tensor,
        gradient_maps: Tensor,
        options: RMIOptions,
    ) -> Tensor:
        inputs = logits, target, valid, class_weights, gradient_maps, options
        with without_autocast(logits):
            grad_rmi = gradient_in_rmi(grad_sums, map_weights, options)
            gradient: Tensor = module.rmi_backward(grad_sums[:, 0].contiguous(), grad_rmi, *inputs)
        return gradient

    def pixel_forward(logits: Tensor, *others: Any) -> Tensor:
        with without_autocast(logits):
            sums: Tensor = module.pixel_forward(logits, *others)
        return sums

    def pixel_backward(grad_pixel: Tensor, logits: Tensor, *others: Any) -> Tensor:
        with without_autocast(logits):
            gradient: Tensor = module.pixel_backward(grad_pixel, logits, *others)
        return gradient

    return Backend(rmi_forward, rmi_backward, pixel_forward, pixel_backward)


@functools.cache
def _native() -> Backend:
    from rmiseg.kernels import native
    from rmiseg.kernels.native import loss

    rmi, pixel = (native.rmi_forward, native.rmi_backward), (native.pixel_forward, native.pixel_backward)
    return Backend(*rmi, *pixel, loss.loss_forward, loss.loss_backward)


@functools.cache
def _triton() -> Backend:
    from rmiseg.kernels.triton import launch, loss

    steps = _by_steps(launch, launch.join)
    return steps._replace(loss_forward=loss.loss_forward, loss_backward=loss.loss_backward)


@functools.cache
def _chunked() -> Backend:
    from rmiseg.kernels import chunked

    return _by_steps(chunked)


@functools.cache
def _soft() -> Backend:
    from rmiseg.kernels import soft

    return _by_steps(soft)


@functools.cache
def _slices() -> Backend:
    from rmiseg.kernels import slices

    return _by_steps(slices)


BACKENDS = {"native": _native, "triton": _triton, "chunked": _chunked, "soft": _soft, "slices": _slices}
"""Each imports its module when it is called, since not all can be imported everywhere."""


def check_implementation(implementation: str) -> None:
    """Check that there is such an implementation here.

    Raises:
        ValueError: There is none; the message says why.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}; got {implementation!r}")
    if implementation == "native" and not _native_is_available():
        raise ValueError(
            "implementation='native' is not here: rmiseg was installed without a C++ compiler. Install it again with "
            "one, or use 'auto'"
        )
    if implementation == "triton" and not _triton_is_available():
        raise ValueError("implementation='triton' needs the package triton, which is not installed; use 'auto'")


def resolve(implementation: str, logits: Tensor, target: Tensor) -> str:
    """The key in `BACKENDS`, or "plain", that serves an input.

    Args:
        implementation: One of `IMPLEMENTATIONS`.
        logits: (N, C, *low).
        target: (N, *size), or soft (N, C, *size).

    Inside of function transforms and forward-mode differentiation the plain definition serves everything: operators
    have no derivatives of that kind.

    Raises:
        ValueError: The implementation is for another device, or not for such targets.
    """
    device = logits.device.type
    if DEVICES.get(implementation, device) != device:
        raise ValueError(
            f"implementation={implementation!r} is for {DEVICES[implementation]} logits, got {device} ones"
        )
    if is_transformed():
        return "plain"
    found = fastest(logits.device) if implementation == "auto" else implementation
    is_soft = target.ndim == logits.ndim
    if found == "plain" or (logits.ndim == 4 and (found == "native" or not is_soft)):
        return found
    if implementation == "triton":
        raise ValueError(
            "implementation='triton' is for images with class ids, neither for volumes nor for targets that are "
            "probabilities; use 'auto'"
        )
    return "slices" if found == "native" else "soft"


def fastest(device: torch.device) -> str:
    """The key in `BACKENDS` that serves images with class ids on a device."""
    if device.type == "cpu" and _native_is_available():
        return "native"
    return "triton" if device.type == "cuda" and triton_serves() else "chunked"


def triton_serves() -> bool:
    """True if the Triton kernels serve "cuda" devices here: not AMD's, which are such too, but where nobody tried."""
    return torch.version.hip is None and _triton_is_available()


def _constant(function: Callable[[], bool]) -> Callable[[], bool]:
    """Have torch.compile call a function rather than read it, as `torch.compiler.assume_constant_result` does, which
    imports the compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def _native_is_available() -> bool:
    return _exists("rmiseg.kernels.native._library")


@_constant
def _triton_is_available() -> bool:
    return _exists("triton")


@functools.cache
def _exists(module: str) -> bool:
    """True if a module is here; to look costs as much as a small loss."""
    return importlib.util.find_spec(module) is not None
