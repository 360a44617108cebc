"""Launches of kernels, past what Triton does at each.

Triton looks at every entry of every argument to find the compiled kernel, which takes it 130 microseconds for arguments
like ours; seven launches so were twice the time of the kernels themselves on an H100. Here a compiled kernel is found
by its arguments' exact numbers instead, which are the same from step to step.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from triton.runtime.jit import JITFunction

from rmiseg.kernels.triton.arguments import Bands, Tiles
from rmiseg.kernels.triton.region_kernels import MapsCut, SumsCut

MOST = 4096
"""Launches that are remembered: shapes of images can differ without end."""

ALIKE_IF_EQUAL = {int, float, type(None), Bands, MapsCut, SumsCut, Tiles}
"""Types of most arguments that are not tensors, and have none in them."""

_compiled: dict[tuple[Any, ...], tuple[Any, list[Any]]] = {}
"""Compiled kernels, and the constants that they are called with."""


def launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the current device, which is that of its tensors, and the current stream.

    Args:
        kernel: A function of Triton.
        programs: Number of its programs; none are launched for 0.
        arguments: Its first arguments, in order: tensors, numbers, None, and tuples of them. The first is a tensor, or
            a tuple that begins with one.
        constants: The others, which are compiled into it, and options of the compiler.
    """
    if programs == 0:
        return
    if not isinstance(kernel, JITFunction):  # interpreted
        kernel[(programs,)](*arguments, **constants)
        return
    first = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
    key: list[Any] = [id(kernel), first.get_device(), *constants.values()]
    _add_likeness(arguments, key)
    like = tuple(key)
    found = _compiled.get(like)
    if found is not None:
        compiled, own = found
        compiled[programs, 1, 1](*arguments, *own)
        return
    compiled = kernel[(programs,)](*arguments, **constants)
    if compiled is not None:  # launched, not compiled alone
        if len(_compiled) >= MOST:
            _compiled.clear()
        _compiled[like] = compiled, [constants[name] for name in kernel.arg_names[len(arguments) :]]


def _add_likeness(arguments: tuple[Any, ...], key: list[Any]) -> None:
    """All that a compiled kernel depends on beside the device: dtypes and alignment of tensors; numbers as they are."""
    for each in arguments:
        kind = type(each)
        if kind in ALIKE_IF_EQUAL:
            key.append(each)
        elif kind is Tensor or isinstance(each, Tensor):
            key += (each.dtype, each.data_ptr() & 15 == 0)
        elif isinstance(each, tuple):
            _add_likeness(each, key)
        else:
            key.append(each)
