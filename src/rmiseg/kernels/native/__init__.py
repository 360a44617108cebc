"""The RMI loss on the CPU, compiled from C++: labels.cpp, pixels.cpp and regions.cpp.

The library is built when rmiseg is installed, if there is a C++ compiler; without it `chunked` serves the CPU. It is
called through ctypes, which lets other Python threads run meanwhile.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions, computed_dtype, counted_maps, pooled_size
from rmiseg.kernels.interpolation import nearest_target
from rmiseg.kernels.native.library import Labels, Problem, Regions, call, is_available
from rmiseg.kernels.perfect import interpolated_target
from rmiseg.kernels.regions import gradient_in_rmi, joined_sums

__all__ = ["argmax", "is_available", "pixel_backward", "pixel_forward", "pooled_maps", "read_labels", "regions"]
__all__ += ["rmi_backward", "rmi_forward"]

ELEMENTS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
WHOLE = {torch.int64: 0, torch.int32: 1, torch.int16: 2, torch.int8: 3, torch.uint8: 4, torch.bool: 4}
PIXEL_LOSSES = {"bce": 0, "ce": 1}
POOLS = {"avg": 1, "max": 2, "interp": 3}
NO_POOLING = NO_STRIDES = 0, 0, 0, 0

THREAD_VALUES = 1 << 14
"""Full-size logits, or values of pooled maps, that are worth a thread of their own."""

CPU = torch.device("cpu")


def memory(size: Sequence[int] | int, dtype: torch.dtype) -> Tensor:
    """A tensor that holds anything, on the CPU, whatever `torch.set_default_device` says."""
    return torch.empty(size, dtype=dtype, device=CPU)


def read_labels(
    target: Tensor, kind: str, num_classes: int, ignored: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fields of `rmiseg.kernels.labels.Labels`; arguments as `rmiseg.kernels.labels.read_labels` has them."""
    is_soft = kind == "soft"
    if target.dtype not in (ELEMENTS if is_soft else WHOLE):
        target = target.float() if is_soft else target.long()
    target = target.contiguous()
    size = target.shape[2 if is_soft else 1 :]
    keeps, is_mask = is_soft or target.dtype == torch.int64, kind == "masks"
    if is_mask:
        values = memory((len(target), 1, *size), torch.float32)
    else:
        values = target if keeps else memory(target.shape, torch.int64)
    samples, pixels = target.shape[0], math.prod(size)
    valid = memory((samples, *size), torch.bool)
    counts, unknown = memory((samples, 2), torch.int64), memory(samples, torch.bool)
    classes = target.shape[1] if is_soft else num_classes
    numbers = array("q", ignored)
    call(
        "rmiseg_read_labels",
        Labels(
            threads=_threads(samples * pixels * classes),
            samples=samples,
            pixels=pixels,
            classes=classes,
            ignored_count=len(ignored),
            element=ELEMENTS[target.dtype] if is_soft else WHOLE[target.dtype],
            is_soft=is_soft,
            is_mask=is_mask,
            ignored=numbers.buffer_info()[0],
            target=target.data_ptr(),
            ids=0 if keeps or is_mask else values.data_ptr(),
            soft=values.data_ptr() if is_mask else 0,
            valid=valid.data_ptr(),
            counts=counts.data_ptr(),
            unknown=unknown.data_ptr(),
        ),
    )
    return values, valid, counts, unknown


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
    """See `rmiseg.kernels.backends.Backend`."""
    pixel_sums, probabilities, labels = pooled_maps(logits, target, valid, class_weights, options)
    with_perfect = with_parts or floor is None
    maps = probabilities, labels, valid
    if options.pool == "interp":
        rmi, perfect, present, _ = regions(*maps, options, with_gradient, False)
        if with_perfect:
            certain = interpolated_target(target, valid, labels)
            perfect = regions(certain, labels, valid, options, False, False)[0]
        sums = joined_sums(pixel_sums, rmi, perfect, map_weights, floor)
    else:
        joined = _Joined(pixel_sums, map_weights, floor)
        rmi, perfect, present, sums = regions(*maps, options, with_gradient, with_perfect, joined)
    # The gradient has taken the place of the probabilities.
    return sums, (rmi, present, perfect) if with_parts else (), probabilities if with_gradient else None


def pooled_maps(
    logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, options: RMIOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel sums (N,), pooled probabilities and pooled labels (N, C, ph, pw); see `functional.rmi_maps`."""
    n, c = logits.shape[:2]
    ph, pw = pooled_size(valid.shape[1:], options.pool, options.pool_size)
    probabilities = memory((n, c, ph, pw), computed_dtype(logits))
    if options.pool == "interp":
        labels = nearest_target(target, valid, c, (ph, pw), probabilities.dtype)
    else:
        labels = torch.empty_like(probabilities)
    pixel_sums = memory(n, probabilities.dtype)
    _run(
        "rmiseg_forward",
        *(logits, target, valid, class_weights, options.pixel_loss, options.align_corners),
        (POOLS[options.pool], options.pool_size, ph, pw),
        probabilities=probabilities.data_ptr(),
        labels=labels.data_ptr(),
        pixel_sums=pixel_sums.data_ptr(),
    )
    return pixel_sums, probabilities, labels


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
    """See `rmiseg.kernels.backends.Backend`."""
    ph, pw = gradient_maps.shape[2:]
    if options.batch:
        map_weights = gradient_in_rmi(grad_sums, map_weights, options)
        grad_sums = torch.stack([grad_sums[:, 0], torch.ones_like(grad_sums[:, 1])], dim=1)
    grad_n, grad_k = grad_sums.stride()
    gradient = torch.empty_like(logits)
    _run(
        "rmiseg_backward",
        *(logits, target, valid, class_weights, options.pixel_loss, options.align_corners),
        (POOLS[options.pool], options.pool_size, ph, pw),
        gradient,
        grad_n=grad_n,
        grad_k=grad_k,
        grad_sums=grad_sums.data_ptr(),
        gradient_maps=gradient_maps.data_ptr(),
        **_weights_of_maps(map_weights),
    )
    return gradient


def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    sums = memory(logits.shape[0], computed_dtype(logits))
    inputs = logits, target, valid, class_weights, pixel_loss, align_corners
    _run("rmiseg_forward", *inputs, NO_POOLING, pixel_sums=sums.data_ptr())
    return sums


def pixel_backward(
    grad_pixel: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    gradient = torch.empty_like(logits)
    inputs = logits, target, valid, class_weights, pixel_loss, align_corners
    grad: dict[str, Any] = {"grad_n": grad_pixel.stride(0), "grad_sums": grad_pixel.data_ptr()}
    _run("rmiseg_backward", *inputs, NO_POOLING, gradient, **grad)
    return gradient


def argmax(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Class ids (N, H, W) uint8 of the largest logit at each pixel of `size`, of logits (N, C, h, w), C at most 256."""
    ids = memory((logits.shape[0], *size), torch.uint8)
    _run("rmiseg_argmax", logits, ids, ids, None, "ce", align_corners, NO_POOLING, labels=ids.data_ptr())
    return ids


class _Joined(NamedTuple):
    """Pixel sums, weights of maps and floor, which `regions` makes sums of: arguments of `joined_sums`."""

    pixel_sums: Tensor
    map_weights: Tensor
    floor: float | None


def regions(
    probabilities: Tensor,
    labels: Tensor,
    valid: Tensor,
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
    joined: _Joined | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """RMI, that of perfect predictions (or (N, 0)), and present classes, of pooled maps; and sums, or nothing.

    The maps are (N, C, height, width) of images, (N, C, depth, height, width) of volumes; `valid` (N, ...) is not
    pooled. The gradient takes the place of the probabilities, if asked for.
    """
    (n, c), size = labels.shape[:2], labels.shape[2:]
    depth, height, width = size if len(size) == 3 else (1, *size)
    rmi, present = memory((n, c), torch.float64), memory((n, c), torch.bool)
    perfect = memory((n, c if with_perfect else 0), torch.float64)
    sums, floor, more = rmi, None if joined is None else joined.floor, dict[str, Any]()
    if joined is not None:
        sums = memory((n, 2), labels.dtype)
        more = {"sums": sums.data_ptr(), "pixel_sums": joined.pixel_sums.data_ptr()}
        more.update(_weights_of_maps(joined.map_weights))
    counted = counted_maps(valid, labels, options).expand(-1, options.batch).contiguous() if options.batch else None
    call(
        "rmiseg_regions",
        Regions(
            threads=_threads(labels.numel()),
            maps=n * c,
            depth=depth,
            height=height,
            width=width,
            region_size=options.region_size,
            is_double=labels.dtype == torch.float64,
            with_gradient=with_gradient,
            batch=options.batch,
            samples=n,
            from_perfect=floor is None,
            alpha=options.alpha,
            floor=floor or 0.0,
            probabilities=probabilities.data_ptr(),
            labels=labels.data_ptr(),
            counted=0 if counted is None else counted.data_ptr(),
            rmi=rmi.data_ptr(),
            perfect=perfect.data_ptr() if with_perfect else 0,
            present=present.data_ptr(),
            **more,
        ),
    )
    return rmi, perfect, present, sums


def _run(
    function: str,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    pooling: tuple[int, int, int, int],
    gradient: Tensor | None = None,
    **fields: Any,
) -> None:
    """Call a function that takes a `Problem`.

    `pooling` are its pool, pool_size, ph and pw; `gradient` is what is written, if it is one; `fields` are others that
    have a default.
    """
    (n, classes, h, w), (_, height, width) = logits.shape, valid.shape
    sample, klass, row, column = logits.stride()
    own_sample, own_klass, own_row, own_column = NO_STRIDES if gradient is None else gradient.stride()
    values, valid = target.contiguous(), valid.contiguous()
    is_soft = values.ndim == 4
    problem = Problem(
        _threads(n * classes * height * width),
        *(n, classes, h, w, height, width),
        ELEMENTS[logits.dtype],
        ELEMENTS[values.dtype] if is_soft else 0,
        align_corners,
        PIXEL_LOSSES[pixel_loss],
        *pooling,
        *(sample, klass, row, column),
        *(own_sample, own_klass, own_row, own_column),
        gradient=0 if gradient is None else gradient.data_ptr(),
        logits=logits.data_ptr(),
        target=0 if is_soft else values.data_ptr(),
        soft=values.data_ptr() if is_soft else 0,
        valid=valid.data_ptr(),
        class_weights=0 if class_weights is None else class_weights.data_ptr(),
        **fields,
    )
    call(function, problem)


def _weights_of_maps(weights: Tensor) -> dict[str, Any]:
    """Fields of `Problem` and of `Regions`, of weights (N, C) float64 or int64."""
    n, c = weights.stride()
    is_whole = weights.dtype == torch.int64
    return {
        "map_weights": weights.data_ptr(),
        "map_weights_are_whole": is_whole,
        "map_weights_n": n,
        "map_weights_c": c,
    }


def _threads(values: int) -> int:
    return min(torch.get_num_threads(), max(1, values // THREAD_VALUES))
