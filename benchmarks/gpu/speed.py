"""Time and peak memory of the losses beside F.cross_entropy, forward and backward, as users call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu.batches import IGNORED, Case, Place, peak_memory, time_in_turn
from rmiseg import BCELoss, CELoss, RMILoss

CASES = (
    Case((16, 21, 513, 513), 1, "float32"),
    Case((16, 21, 513, 513), 4, "float32"),
    Case((16, 21, 513, 513), 1, "bfloat16"),
    Case((8, 19, 769, 769), 1, "float32"),
    Case((8, 19, 1024, 1024), 4, "bfloat16"),
    Case((16, 150, 512, 512), 4, "float32"),
    Case((16, 150, 512, 512), 4, "bfloat16"),
    Case((16, 2, 513, 513), 1, "float32"),
    Case((2, 21, 65, 65), 1, "float32"),
)
TINY = (Case((1, 2, 20, 20), 1, "float32"),)

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """What users would write, interpolated to full size; in half precision under autocast."""
    half = logits.dtype != torch.float32
    with torch.autocast(logits.device.type, dtype=torch.bfloat16, enabled=half):
        if logits.shape[-2:] != target.shape[-2:]:
            logits = F.interpolate(logits, target.shape[-2:], mode="bilinear")
        return F.cross_entropy(logits, target, ignore_index=IGNORED)


def losses(place: Place, classes: int) -> dict[str, Loss]:
    """By name; the first is what the others are compared with."""
    options: dict[str, Any] = {"implementation": place.implementation}
    small = {"region_size": 1} if place.tiny else {}
    modules: dict[str, Loss] = {
        "F.cross_entropy": cross_entropy,
        "RMI": RMILoss(classes, **options, **small),
        "RMI pool 2": RMILoss(classes, pool_size=2, **options, **small),
        "RMI R 5": RMILoss(classes, region_size=5, **options),
        "RMI of the batch": RMILoss(classes, covariance="batch", **options, **small),
        "CELoss": CELoss(classes, **options),
        "BCELoss": BCELoss(classes, **options),
    }
    return modules


def steps(place: Place, case: Case) -> dict[str, Callable[[], None]]:
    """Forward and backward of each loss, and the forward pass alone of RMI."""
    logits, target = case.batch(place.device)

    def both(loss: Loss) -> Callable[[], None]:
        def step() -> None:
            torch.autograd.grad(loss(logits, target), logits)

        return step

    own = losses(place, case.shape[1])
    if place.tiny:
        own.pop("RMI R 5")
    found = {name: both(loss) for name, loss in own.items()}
    found["RMI forward"] = lambda: own["RMI"](logits, target)  # type: ignore[assignment, return-value]
    return found


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """For each case, seconds of device and host, peak bytes, and the bytes of the logits.

    Kernels that `compilation` has not left behind are compiled one after the other.
    """
    for case in TINY if place.tiny else CASES:
        own = steps(place, case)
        result: dict[str, Any] = {"times": time_in_turn(place, own)}
        result["peak"] = {name: peak_memory(place, step) for name, step in own.items()}
        n, c, h, w = case.shape
        low = n * c * -(-h // case.stride) * -(-w // case.stride)
        result["logits bytes"] = low * getattr(torch, case.dtype).itemsize
        yield str(case), result
        del own
        if place.device == "cuda":
            torch.cuda.empty_cache()
