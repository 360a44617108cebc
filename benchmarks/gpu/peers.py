"""Other implementations beside RMI: the plain definition, compiled, and Dice and Lovasz of SMP."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gpu.batches import IGNORED, Case, Place, peak_memory, time_in_turn
from gpu.speed import TINY, Loss, cross_entropy
from rmiseg import RMILoss

CASE = Case((4, 21, 513, 513), 1, "float32")


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Seconds and peak bytes of each."""
    case = TINY[0] if place.tiny else CASE
    logits, target = case.batch(place.device)
    classes = case.shape[1]
    small: dict[str, Any] = {"region_size": 1} if place.tiny else {}
    plain = RMILoss(classes, implementation="plain", **small)
    candidates: dict[str, Callable[[], Loss]] = {
        "F.cross_entropy": lambda: cross_entropy,
        "RMI": lambda: RMILoss(classes, implementation=place.implementation, **small),
        "Dice (smp)": lambda: _smp("DiceLoss"),
        "Lovasz (smp)": lambda: _smp("LovaszLoss"),
        "RMI chunked": lambda: RMILoss(classes, implementation="chunked", **small),
        "RMI plain": lambda: plain,
        "RMI plain, torch.compile": lambda: torch.compile(plain),
    }
    for name, make in candidates.items():
        try:
            loss = make()

            def step(loss: Loss = loss) -> None:
                logits.grad = None
                loss(logits, target).backward()

            times = time_in_turn(place, {"step": step}, runs=3, calls=3)["step"]
            yield name, {**times, "peak": peak_memory(place, step)}
        except Exception:
            yield name, traceback.format_exc()[-1500:]


def _smp(name: str) -> Loss:
    losses = importlib.import_module("segmentation_models_pytorch.losses")
    made: Loss = getattr(losses, name)("multiclass", ignore_index=IGNORED)
    return made
