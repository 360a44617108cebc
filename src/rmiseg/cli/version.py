"""`rmiseg --version`: what to name in a report of a problem."""

from __future__ import annotations

import platform

from rmiseg import __version__


def version_text() -> str:
    """Versions of rmiseg, Python and PyTorch, and the implementations of the RMI loss that are here."""
    lines = [f"rmiseg {__version__}", f"Python {platform.python_version()} on {platform.platform()}"]
    try:
        import torch
    except ImportError as error:
        return "\n".join([*lines, f"PyTorch cannot be imported: {error}"])
    return "\n".join([*lines, f"PyTorch {torch.__version__}", f"CPU: {_native()}", f"GPU: {_gpu()}"])


def _native() -> str:
    from rmiseg.kernels import native

    try:
        available = native.is_available()
    except (ImportError, OSError) as error:
        return f"the compiled code cannot be used, and every RMI loss on the CPU fails: {error}"
    return "compiled code" if available else "PyTorch operations, 3 to 7 times slower: the C++ code was not built"


def _gpu() -> str:
    import torch

    from rmiseg.kernels.backends import resolve

    if not torch.cuda.is_available():
        return "none that PyTorch can use"
    pixel = torch.zeros(1, 1, 1, 1, device="cuda")
    by = {"triton": "Triton kernels", "chunked": "PyTorch operations"}[resolve("auto", pixel, pixel[0].long())]
    return f"{torch.cuda.get_device_name()}, {by}"
