"""Which implementation computes the RMI loss."""

from __future__ import annotations

import torch
from torch import Tensor

from rmiseg.losses import functional

IMPLEMENTATIONS = ("auto", "chunked", "plain")


def rmi_sums(
    logits: Tensor, target: Tensor, valid: Tensor, options: functional.RMIOptions, implementation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """`functional.rmi_sums` by one of `IMPLEMENTATIONS`."""
    if implementation == "plain" or (implementation == "auto" and torch.compiler.is_compiling()):
        return functional.rmi_sums(logits, target, valid, options)
    from rmiseg.kernels import chunked  # late: it is built on the definitions in rmiseg.losses

    return chunked.rmi_sums(logits, target, valid, options)
