"""A training step of the paper's network, DeepLabv3 with ResNet-101 at stride 16 on 16 crops of 513 pixels.

The original code needs 24 GB for it (its README), without saying of which network.
"""

from __future__ import annotations

import itertools
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu.batches import IGNORED, Place
from rmiseg import RMILoss
from rmiseg.models import build_model

CLASSES = 21


def full_size_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    full = F.interpolate(logits.float(), target.shape[-2:], mode="bilinear")
    return F.cross_entropy(full, target, ignore_index=IGNORED)


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Seconds a step and peak bytes of all that is allocated, by precision, loss, and with torch.compile or without."""
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "RMI": RMILoss(CLASSES),
        "F.cross_entropy, full size": full_size_cross_entropy,
    }
    precisions = ("bf16",) if place.tiny else ("bf16", "TF32", "float32")
    for compiled, precision, name in itertools.product((False, True), precisions, losses):
        if compiled and (precision != "bf16" or place.tiny):
            continue
        label = f"{precision}, {name}{', torch.compile' if compiled else ''}"
        try:
            yield label, _train(place, precision, losses[name], compiled)
        except Exception:
            yield label, traceback.format_exc()[-1500:]


def _train(place: Place, precision: str, loss: Callable[[Tensor, Tensor], Tensor], compiled: bool) -> dict[str, float]:
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "TF32"
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    backbone, batch, crop = ("resnet18", 2, 65) if place.tiny else ("resnet101", 16, 513)
    model = build_model("deeplabv3", num_classes=CLASSES, backbone=backbone, output_stride=16, weights="none")
    model = model.to(place.device, memory_format=torch.channels_last).train()

    def forward(images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(place.device, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        return loss(logits[0] if isinstance(logits, tuple) else logits, target)

    step = torch.compile(forward) if compiled else forward
    optimizer = torch.optim.SGD(model.parameters(), 0.007, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(batch, 3, crop, crop, device=place.device).contiguous(memory_format=torch.channels_last)
    target = torch.randint(CLASSES, (batch, crop, crop), device=place.device)
    times = []
    if place.device == "cuda":
        torch.cuda.empty_cache()
    for number in range(2 if place.tiny else 10):
        if place.device == "cuda" and number == 1:
            torch.cuda.reset_peak_memory_stats()  # the first step tries algorithms in workspaces of any size
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        step(images, target).backward()
        optimizer.step()
        place.wait()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if place.device == "cuda" else 0
    return {"seconds": statistics.median(times[len(times) // 2 :]), "peak": peak, "first": times[0]}
