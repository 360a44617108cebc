"""Launches of kernels, past what Triton does at each.

Triton looks at every entry of every argument to find the compiled kernel, which takes it 130 microseconds for arguments
like ours; seven launches so were twice the time of the kernels themselves on an H100. Here a compiled kernel is found
by its arguments' exact numbers instead, which are the same from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from triton.runtime.jit import JITFunction

MOST = 4096
"""Launches that are remembered: shapes of images can differ without end."""

_compiled: dict[tuple[Any, ...], Any] = {}


def launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the current device, which is that of its tensors, and the current stream.

    Args:
        kernel: A function of Triton.
        programs: Number of its programs; none are launched for 0.
        arguments: Its first arguments, in order: tensors, numbers, None, and tuples of them.
        constants: The others, which are compiled into it, and options of the compiler.
    """
    if programs == 0:
        return
    if not isinstance(kernel, JITFunction):  # interpreted
        kernel[(programs,)](*arguments, **constants)
        return
    key = (id(kernel), *_likeness(arguments), *constants.values())
    compiled = _compiled.get(key)
    if compiled is not None:
        own = (constants[name] for name in kernel.arg_names[len(arguments) :])
        compiled[(programs, 1, 1)](*arguments, *own)
        return
    compiled = kernel[(programs,)](*arguments, **constants)
    if compiled is not None:  # launched, not compiled alone
        if len(_compiled) >= MOST:
            _compiled.clear()
        _compiled[key] = compiled


def _likeness(arguments: tuple[Any, ...]) -> Iterator[Any]:
    """Everything that a compiled kernel depends on: devices, dtypes and alignment of tensors; numbers as they are."""
    for each in arguments:
        if isinstance(each, Tensor):
            yield each.get_device()
            yield each.dtype
            yield each.data_ptr() % 16 == 0
        elif isinstance(each, tuple):
            yield from _likeness(each)
        else:
            yield each
