"""The RMI loss on the CPU, compiled from C++: labels.cpp, pixels.cpp and regions.cpp.

The library is built when rmiseg is installed, if there is a C++ compiler; without it `chunked` serves the CPU. It is
called through ctypes, which lets other Python threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
import sys
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions, computed_dtype, pooled_size
from rmiseg.kernels.interpolation import nearest_target
from rmiseg.kernels.perfect import interpolated_target

ELEMENTS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WHOLE = {torch.int64: 0, torch.int32: 1, torch.int16: 2, torch.int8: 3, torch.uint8: 4, torch.bool: 4}
PIXEL_LOSSES = ("bce", "ce")
POOLS = (None, "avg", "max", "interp")

THREAD_VALUES = 1 << 14
"""Full-size logits, or values of pooled maps, that are worth a thread of their own."""


class _Problem(ctypes.Structure):
    """See native/interface.h."""

    _fields_ = (
        *((name, c_int64) for name in ["threads", "samples", "classes", "h", "w", "height", "width"]),
        *((name, c_int64) for name in ["element", "soft_element", "align_corners", "pixel_loss"]),
        *((name, c_int64) for name in ["pool", "pool_size", "ph", "pw"]),
        *((name, c_int64 * 4) for name in ("logits_strides", "gradient_strides")),
        *((name, c_void_p) for name in ("logits", "target", "soft", "valid", "class_weights")),
        *((name, c_void_p) for name in ("pixel_sums", "probabilities", "labels")),
        *((name, c_void_p) for name in ("grad_pixel", "gradient_maps", "grad_rmi", "gradient")),
    )


class _Regions(ctypes.Structure):
    """See native/interface.h."""

    _fields_ = (
        *((name, c_int64) for name in ["threads", "maps", "depth", "height", "width"]),
        *((name, c_int64) for name in ["region_size", "is_double", "with_gradient"]),
        ("alpha", c_double),
        *((name, c_void_p) for name in ["probabilities", "labels", "rmi", "perfect", "present"]),
    )


class _Labels(ctypes.Structure):
    """See native/interface.h."""

    _fields_ = (
        *((name, c_int64) for name in ["threads", "samples", "pixels", "classes", "ignored_count"]),
        *((name, c_int64) for name in ["element", "is_soft", "is_mask"]),
        *((name, c_void_p) for name in ["ignored", "target", "ids", "soft", "valid", "counts", "unknown"]),
    )


STRUCTURES = {"rmiseg_labels_size": _Labels, "rmiseg_problem_size": _Problem, "rmiseg_regions_size": _Regions}
"""The functions of the library that return the bytes of a structure, and that structure here."""


@functools.cache
def _library() -> Any:
    spec = importlib.util.find_spec("rmiseg.kernels.native._library")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    _check_sizes(library, spec.origin)
    library.rmiseg_use_threads(_torch_library().torch_parallel_for)
    return library


def _torch_library() -> ctypes.CDLL:
    """The library of torch/csrc/stable/c/shim.h, or, where a library shows what it depends on, one that does."""
    if sys.platform == "win32":
        return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "torch_cpu.dll"))
    return ctypes.CDLL(torch._C.__file__)


def _check_sizes(library: Any, path: str) -> None:
    """Check that the library was built from the structures that stand here.

    Raises:
        ImportError: It was not: calling it would read other memory than was meant.
    """
    for name, structure in STRUCTURES.items():
        function = getattr(library, name, None)
        if function is not None:
            function.restype = c_int64
        found, expected = function and function(), ctypes.sizeof(structure)
        if found != expected:
            raise ImportError(
                f"{path} was built from other sources: {name[:-5]} has {found or 'an unknown number of'} bytes there "
                f"and {expected} here; build it again with: pip install . (or python setup.py build_ext --inplace)"
            )


def is_available() -> bool:
    """True if the library was built."""
    return _library() is not None


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
        values = torch.empty((len(target), 1, *size), dtype=torch.float32)
    else:
        values = target if keeps else torch.empty(target.shape, dtype=torch.int64)
    valid = torch.empty((len(target), *size), dtype=torch.bool)
    counts, unknown = torch.empty(len(target), dtype=torch.int64), torch.empty(len(target), dtype=torch.bool)
    numbers = (c_int64 * len(ignored))(*ignored)
    _call(
        "rmiseg_read_labels",
        _Labels,
        samples=len(target),
        pixels=math.prod(size),
        classes=target.shape[1] if is_soft else num_classes,
        ignored_count=len(ignored),
        element=ELEMENTS.index(target.dtype) if is_soft else WHOLE[target.dtype],
        is_soft=is_soft,
        is_mask=is_mask,
        ignored=ctypes.addressof(numbers),
        target=target,
        ids=None if keeps or is_mask else values,
        soft=values if is_mask else None,
        valid=valid,
        counts=counts,
        unknown=unknown,
    )
    return values, valid, counts, unknown


def rmi_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `rmiseg.kernels.backends.Backend`."""
    pixel_sums, probabilities, labels = pooled_maps(logits, target, valid, class_weights, options)
    own_perfect = with_perfect and options.pool != "interp"
    rmi, perfect, present = regions(probabilities, labels, options, with_gradient, own_perfect)
    if with_perfect and not own_perfect:
        certain = interpolated_target(target, valid, labels)
        perfect = regions(certain, labels, options, False, False)[0]
    # The gradient has taken the place of the probabilities.
    gradient_maps = probabilities if with_gradient else probabilities.new_empty((*labels.shape[:2], 0, 0))
    return pixel_sums, rmi, present, perfect, gradient_maps


def pooled_maps(
    logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, options: RMIOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel sums (N,), pooled probabilities and pooled labels (N, C, ph, pw); see `functional.rmi_maps`."""
    n, c = logits.shape[:2]
    pooled = pooled_size(valid.shape[1:], options.pool, options.pool_size)
    probabilities = logits.new_empty((n, c, *pooled), dtype=computed_dtype(logits))
    if options.pool == "interp":
        labels = nearest_target(target, valid, c, pooled, probabilities.dtype)
    else:
        labels = torch.empty_like(probabilities)
    maps = {**_pooling(options, probabilities), "probabilities": probabilities, "labels": labels}
    pixel_sums = _forward(logits, target, valid, class_weights, options.pixel_loss, options.align_corners, maps)
    return pixel_sums, probabilities, labels


def rmi_backward(
    grad_pixel: Tensor,
    grad_rmi: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    gradient_maps: Tensor,
    options: RMIOptions,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    maps: dict[str, Any] = {"gradient_maps": gradient_maps, "grad_rmi": grad_rmi.double().contiguous()}
    inputs = logits, target, valid, class_weights, options.pixel_loss, options.align_corners
    return _backward(grad_pixel, *inputs, {**_pooling(options, gradient_maps), **maps})


def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    return _forward(logits, target, valid, class_weights, pixel_loss, align_corners, {})


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
    return _backward(grad_pixel, logits, target, valid, class_weights, pixel_loss, align_corners, {})


def argmax(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Class ids (N, H, W) uint8 of the largest logit at each pixel of `size`, of logits (N, C, h, w), C at most 256."""
    n, classes, h, w = logits.shape
    height, width = size
    ids = torch.empty(n, height, width, dtype=torch.uint8)
    shape = {"samples": n, "classes": classes, "h": h, "w": w, "height": height, "width": width}
    options = {"element": ELEMENTS.index(logits.dtype), "align_corners": align_corners, "pool": POOLS.index(None)}
    strides = (c_int64 * 4)(*logits.stride())
    _call("rmiseg_argmax", _Problem, **shape, **options, logits_strides=strides, logits=logits, labels=ids)
    return ids


def _forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    maps: dict[str, Any],
) -> Tensor:
    """Pixel sums (N,); `maps` are the fields of `_Problem` that say what is pooled, and where to."""
    sums = torch.empty(len(target), dtype=computed_dtype(logits))
    problem = _problem(logits, target, valid, class_weights, pixel_loss, align_corners)
    _call("rmiseg_forward", _Problem, **problem, **maps, pixel_sums=sums)
    return sums


def _backward(
    grad_pixel: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
    maps: dict[str, Any],
) -> Tensor:
    """Gradient in the logits (N, C, h, w); `maps` are the fields of `_Problem` of the pooled maps."""
    gradient = torch.empty_like(logits)
    problem = _problem(logits, target, valid, class_weights, pixel_loss, align_corners)
    strides = (c_int64 * 4)(*gradient.stride())
    rest = {"grad_pixel": grad_pixel.contiguous(), "gradient": gradient, "gradient_strides": strides}
    _call("rmiseg_backward", _Problem, **problem, **maps, **rest)
    return gradient


def regions(
    probabilities: Tensor, labels: Tensor, options: RMIOptions, with_gradient: bool, with_perfect: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """RMI, that of perfect predictions (or (N, 0)), and present classes, of pooled maps.

    The maps are (N, C, height, width) of images, (N, C, depth, height, width) of volumes. The gradient takes the place
    of the probabilities, if asked for.
    """
    (n, c), size = labels.shape[:2], labels.shape[2:]
    depth, height, width = size if len(size) == 3 else (1, *size)
    rmi, present = torch.empty((n, c), dtype=torch.float64), torch.empty((n, c), dtype=torch.bool)
    perfect = torch.empty((n, c if with_perfect else 0), dtype=torch.float64)
    _call(
        "rmiseg_regions",
        _Regions,
        maps=n * c,
        depth=depth,
        height=height,
        width=width,
        region_size=options.region_size,
        is_double=labels.dtype == torch.float64,
        with_gradient=with_gradient,
        alpha=options.alpha,
        probabilities=probabilities,
        labels=labels,
        rmi=rmi,
        perfect=perfect if with_perfect else None,
        present=present,
    )
    return rmi, perfect, present


def _problem(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> dict[str, Any]:
    """Fields of `_Problem`, less those of pooled maps and results."""
    n, classes, h, w = logits.shape
    is_soft, values = target.ndim == logits.ndim, target.contiguous()
    return {
        "samples": n,
        "classes": classes,
        "h": h,
        "w": w,
        "height": valid.shape[1],
        "width": valid.shape[2],
        "element": ELEMENTS.index(logits.dtype),
        "align_corners": align_corners,
        "pixel_loss": PIXEL_LOSSES.index(pixel_loss),
        "logits_strides": (c_int64 * 4)(*logits.stride()),
        "logits": logits,
        "target": None if is_soft else values,
        "soft": values if is_soft else None,
        "soft_element": ELEMENTS.index(values.dtype) if is_soft else 0,
        "valid": valid.contiguous(),
        "class_weights": class_weights,
    }


def _pooling(options: RMIOptions, pooled: Tensor) -> dict[str, Any]:
    """Fields of `_Problem` that say what is pooled, and how."""
    ph, pw = pooled.shape[2:]
    return {"pool": POOLS.index(options.pool), "pool_size": options.pool_size, "ph": ph, "pw": pw}


def _call(function: str, structure: type[ctypes.Structure], **fields: Any) -> None:
    """Call a function of the library; it sees tensors by their addresses."""
    sides = [
        fields[name] for name in ("samples", "maps", "classes", "depth", "height", "width", "pixels") if name in fields
    ]
    threads = min(torch.get_num_threads(), max(1, math.prod(sides) // THREAD_VALUES))
    for name, value in fields.items():
        if type(value) is not int and isinstance(value, Tensor):  # which most are not, and which takes long to ask
            fields[name] = value.data_ptr()
    getattr(_library(), function)(ctypes.byref(structure(threads=threads, **fields)))
