"""Other sizes of tiles than the chosen ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu.batches import Case, Place, in_processes, time_in_turn
from gpu.speed import CASES, TINY, steps
from rmiseg.kernels.triton import launch, regions

VALUES = (
    (launch, "TILE", (256, 512, 1024, 2048)),
    (launch, "SMALL_TILE", (128, 256, 512, 1024)),
    (regions, "ROWS", (16, 32, 64, 128)),
    (regions, "GRADIENT_ROWS", (4, 8, 16)),
    (launch, "LOW_ROWS", (4, 8, 16)),
)


def changes(place: Place) -> list[tuple[str, int]]:
    return [(name, value) for _, name, values in VALUES for value in values][: 1 if place.tiny else None]


def set_constant(name: str, value: int) -> int:
    """Set a constant; returns what it was."""
    module = next(module for module, each, _ in VALUES if each == name)
    before: int = getattr(module, name)
    setattr(module, name, value)
    return before


def compile_change(given: tuple[Place, Case, str, int]) -> str:
    place, case, name, value = given
    set_constant(name, value)
    for each in ("RMI", "CELoss"):
        steps(place, case)[each]()
    place.wait()
    return ""


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Seconds of RMI and CELoss for each constant, in full-size and in small logits."""
    cases = TINY if place.tiny else CASES[:3]
    jobs = [(place, case, *change) for case in cases for change in changes(place)]
    for _ in in_processes(compile_change, jobs, place.workers):
        pass
    for case in cases:
        own = steps(place, case)
        for name, value in changes(place):
            before = set_constant(name, value)
            times = time_in_turn(place, {each: own[each] for each in ("RMI", "CELoss")}, runs=3, calls=5)
            set_constant(name, before)
            mark = " (chosen)" if value == before else ""
            yield f"{case}: {name}={value}{mark}", {each: time["seconds"] for each, time in times.items()}
