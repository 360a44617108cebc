"""The implementations of the RMI loss by name: what each computes, whether it is here, and which serves an input.

Images with class ids take "native", "triton" or "chunked"; those with soft targets (probabilities of the classes)
"native" or "soft"; volumes "slices", which are native, or "soft".
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions
from rmiseg.kernels.modes import is_transformed

IMPLEMENTATIONS = ("auto", "native", "triton", "chunked", "plain")
DEVICES = {"native": "cpu", "triton": "cuda"}


class Backend(NamedTuple):
    """The four functions of an implementation, all of them deterministic; non-finite logits raise nothing.

    Everywhere logits are (N, C, *low) in any floating dtype; target (N, *size) int64 or, but for "triton" and
    "chunked", also (N, C, *size) floating; valid (N, *size) bool; class_weights (C,) float64 or None; "wide" is the
    dtype of the computation, `rmiseg.functional.computed_dtype`.

    Attributes:
        rmi_forward: (logits, target, valid, class_weights, options, with_gradient, with_perfect) to what
            `functional.rmi_sums` returns, pixel_sums (N,) wide, rmi (N, C) float64 and present (N, C) bool; perfect,
            `functional.perfect_rmi`, (N, C) float64, or (N, 0) without with_perfect; and gradient_maps: the gradient of
            each map's RMI in its pooled probabilities, (N, C, *pooled size) wide, or (N, C, 0, ...) without
            with_gradient.
        rmi_backward: (grad_pixel, grad_rmi, logits, target, valid, class_weights, gradient_maps, options) to the
            gradient in the logits, in their shape and dtype, given those in pixel_sums (N,) wide and rmi (N, C)
            float64, and the gradient_maps of the forward pass.
        pixel_forward: (logits, target, valid, class_weights, pixel_loss, align_corners) to pixel_sums (N,) wide.
        pixel_backward: (grad_pixel, logits, target, valid, class_weights, pixel_loss, align_corners) to the gradient
            in the logits.
        join: (pixel_sums (N,) float32, rmi, perfect, map_weights, floor) to `rmiseg.kernels.rmi.joined_sums`; None
            where ordinary operations do that.
    """

    rmi_forward: Callable[
        [Tensor, Tensor, Tensor, Tensor | None, RMIOptions, bool, bool], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    ]
    rmi_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, RMIOptions], Tensor]
    pixel_forward: Callable[[Tensor, Tensor, Tensor, Tensor | None, str, bool], Tensor]
    pixel_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, str, bool], Tensor]
    join: Callable[[Tensor, Tensor, Tensor, Tensor, float | None], Tensor] | None = None


@functools.cache
def _native() -> Backend:
    from rmiseg.kernels import native

    return Backend(native.rmi_forward, native.rmi_backward, native.pixel_forward, native.pixel_backward)


@functools.cache
def _triton() -> Backend:
    from rmiseg.kernels.triton import launch

    return Backend(launch.rmi_forward, launch.rmi_backward, launch.pixel_forward, launch.pixel_backward, launch.join)


@functools.cache
def _chunked() -> Backend:
    from rmiseg.kernels import chunked

    return Backend(chunked.rmi_forward, chunked.rmi_backward, chunked.pixel_forward, chunked.pixel_backward)


@functools.cache
def _soft() -> Backend:
    from rmiseg.kernels import soft

    return Backend(soft.rmi_forward, soft.rmi_backward, soft.pixel_forward, soft.pixel_backward)


@functools.cache
def _slices() -> Backend:
    from rmiseg.kernels import slices

    return Backend(slices.rmi_forward, slices.rmi_backward, slices.pixel_forward, slices.pixel_backward)


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
