"""One loss, forward and backward, against the plain definition: does anything run at all."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from typing import Any

import torch
import triton

from gpu.batches import Case, Place, peak_memory, time_in_turn
from rmiseg import RMILoss, __version__


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """The machine; the error of a loss and its gradient; bandwidth of a copy in bytes per second, both ways counted."""
    yield "rmiseg", __version__
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield "triton", triton.__version__
    if place.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        yield "memory", properties.total_memory
        yield "multiprocessors", properties.multi_processor_count
    logits, target = Case((1, 2, 16, 16) if place.tiny else (2, 21, 129, 161), 1, "float32").batch(place.device)
    started = time.perf_counter()
    found = RMILoss(logits.shape[1], region_size=2, implementation=place.implementation)(logits, target)
    found.backward()
    yield "seconds of the first step", time.perf_counter() - started
    wide = logits.detach().double().requires_grad_()
    expected = RMILoss(logits.shape[1], region_size=2, implementation="plain")(wide, target)
    expected.backward()
    assert logits.grad is not None
    assert wide.grad is not None
    yield "value error", abs(found.item() - expected.item())
    yield "gradient error", ((logits.grad - wide.grad).norm() / wide.grad.norm()).item()
    source = torch.empty(1 << (10 if place.tiny else 28), device=place.device)
    copy = torch.empty_like(source)
    seconds = time_in_turn(place, {"copy": lambda: copy.copy_(source)})["copy"]["seconds"]
    yield "copy bandwidth", 2 * source.nbytes / seconds
    yield "peak of a step", peak_memory(place, lambda: RMILoss(logits.shape[1])(logits, target).backward())
