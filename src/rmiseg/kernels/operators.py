"""Parts that the custom operators in `rmi` and `pixel` share.

Custom operators are the losses' place in PyTorch: opaque to torch.compile, they call one of the `backends`. Where
nothing but autograd looks on, an `autograd.Function` takes the place of each, without PyTorch's dispatcher, which costs
more than a small loss itself.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def on_cpu(
    logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The same tensors on the CPU, for devices without float64."""
    return logits.cpu(), target.cpu(), valid.cpu(), None if class_weights is None else class_weights.cpu()


def doubles(class_weights: Tensor | None) -> Tensor | None:
    """Class weights as the backends take them."""
    return None if class_weights is None else class_weights.detach().double().contiguous()


def without_autocast(logits: Tensor) -> AbstractContextManager[Any]:
    """Products of matrices keep their precision inside a caller's autocast."""
    device = logits.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def refuse(ctx: Any, *_: Any) -> None:
    """Refuse a second derivative."""
    raise RuntimeError(
        "this loss cannot be differentiated twice; build it with implementation='plain', which is slower, but can"
    )
