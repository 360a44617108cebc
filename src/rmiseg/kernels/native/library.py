"""The compiled library: loading it, the structures that its functions take, and calling it."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import struct
import sys
from collections.abc import Sequence
from ctypes import c_char_p, c_int64
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch


class Problem(NamedTuple):
    """See native/interface.h, whose order this is; tensors by their addresses, 0 for none."""

    threads: int
    samples: int
    classes: int
    h: int
    w: int
    height: int
    width: int
    element: int
    soft_element: int
    align_corners: int
    pixel_loss: int
    pool: int
    pool_size: int
    ph: int
    pw: int
    logits_n: int
    logits_c: int
    logits_h: int
    logits_w: int
    gradient_n: int = 0
    gradient_c: int = 0
    gradient_h: int = 0
    gradient_w: int = 0
    grad_n: int = 0
    grad_k: int = 0
    logits: int = 0
    target: int = 0
    soft: int = 0
    valid: int = 0
    class_weights: int = 0
    pixel_sums: int = 0
    probabilities: int = 0
    labels: int = 0
    grad_sums: int = 0
    map_weights: int = 0
    map_weights_are_whole: int = 0
    map_weights_n: int = 0
    map_weights_c: int = 0
    gradient_maps: int = 0
    gradient: int = 0


class Regions(NamedTuple):
    """See native/interface.h."""

    threads: int
    maps: int
    depth: int
    height: int
    width: int
    region_size: int
    is_double: int
    with_gradient: int
    batch: int
    samples: int
    from_perfect: int
    alpha: float
    floor: float
    probabilities: int
    labels: int
    counted: int
    rmi: int
    perfect: int
    present: int
    sums: int = 0
    pixel_sums: int = 0
    map_weights: int = 0
    map_weights_are_whole: int = 0
    map_weights_n: int = 0
    map_weights_c: int = 0


class Labels(NamedTuple):
    """See native/interface.h."""

    threads: int
    samples: int
    pixels: int
    classes: int
    ignored_count: int
    element: int
    is_soft: int
    is_mask: int
    ignored: int
    target: int
    ids: int
    soft: int
    valid: int
    counts: int
    unknown: int


def _layout(fields: Any) -> struct.Struct:
    """The memory of a structure: 8 bytes a field."""
    return struct.Struct("".join("d" if kind is float else "q" for kind in get_type_hints(fields).values()))


LAYOUTS = {
    "labels": _layout(Labels),
    "problem": _layout(Problem),
    "regions": _layout(Regions),
    "loss": struct.Struct("28q 4d 9q"),
}
"""By the name in the function of the library that returns the bytes of a structure."""

FUNCTIONS = {
    "rmiseg_read_labels": LAYOUTS["labels"],
    "rmiseg_forward": LAYOUTS["problem"],
    "rmiseg_backward": LAYOUTS["problem"],
    "rmiseg_argmax": LAYOUTS["problem"],
    "rmiseg_regions": LAYOUTS["regions"],
    "rmiseg_loss_forward": LAYOUTS["loss"],
    "rmiseg_loss_backward": LAYOUTS["loss"],
}
"""The functions of the library, and the structure that each takes."""

LEVELS = {"AVX2": "_v3", "AVX512": "_v4"}
"""By PyTorch's name for what a CPU can do: the end of the name of its library; others have the one without."""


def find() -> ModuleSpec | None:
    """Find the best library that the machine can run; None where none was built."""
    name = "rmiseg.kernels.native._library"
    level = LEVELS.get(torch.backends.cpu.get_cpu_capability(), "")
    return importlib.util.find_spec(name + level) or importlib.util.find_spec(name)


@functools.cache
def load() -> Any:
    """The library; None where it was not built."""
    spec = find()
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    _check_sizes(library, spec.origin)
    library.rmiseg_use_threads(_torch_library().torch_parallel_for)
    for name in FUNCTIONS:
        getattr(library, name).argtypes = [c_char_p]
        getattr(library, name).restype = c_int64 if name == "rmiseg_loss_forward" else None
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
    for name, layout in LAYOUTS.items():
        function = getattr(library, f"rmiseg_{name}_size", None)
        if function is not None:
            function.restype = c_int64
        found, expected = function and function(), layout.size
        if found != expected:
            raise ImportError(
                f"{path} was built from other sources: rmiseg_{name} has {found or 'an unknown number of'} bytes there "
                f"and {expected} here; build it again with: pip install . (or python setup.py build_ext --inplace)"
            )


def is_available() -> bool:
    """True if the library was built."""
    return load() is not None


def call(function: str, fields: Sequence[float]) -> Any:
    """Call a function of the library; returns what it does."""
    return getattr(load(), function)(FUNCTIONS[function].pack(*fields))
