"""Other constants of the kernels than the chosen ones, each alone, then the best of all together.

`gpu_check.py --best` runs the parts after this one with the best.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from gpu.batches import Case, Place, in_processes, set_constants, time_in_turn
from gpu.speed import CASES, TINY, steps

TILINGS = (
    *((256, 1, True), (512, 1, True), (1024, 1, True), (512, 2, True), (1024, 2, True), (2048, 2, True)),
    *((1024, 4, True), (512, 1, False), (1024, 2, False)),
)
FULL, LOW, HALF = CASES[0], CASES[1], CASES[2]
Sweep = tuple[str, tuple[Any, ...], tuple[tuple[Case, str], ...]]

REGIONS = (FULL, "RMI"), (FULL, "RMI pool 2"), (FULL, "RMI R 5")
REGION_SWEEPS: tuple[Sweep, ...] = (
    ("regions.GRADIENT_COLUMNS", (2, 3, 6), REGIONS),
    ("regions.COLUMNS", (3, 6), REGIONS),
    ("regions.GRADIENT_REGISTERS", (255, 168, 128), REGIONS[:2]),
    ("regions.AT_ONCE", (2, 3), REGIONS[:2]),
    ("regions.ROWS", (21, 25, 32, 63), REGIONS[:2]),
    ("regions.GRADIENT_ROWS", (17, 33, 65), REGIONS[:2]),
)
LAUNCH_SWEEPS: tuple[Sweep, ...] = (
    ("launch.FORWARD", TILINGS, ((FULL, "RMI"), (HALF, "RMI"))),
    ("launch.BACKWARD", TILINGS, ((FULL, "RMI"), (HALF, "RMI"))),
    ("launch.SMALL", TILINGS[:6], ((LOW, "RMI"), (FULL, "CELoss"))),
    ("launch.LOW_ROWS", (8, 16, 32), ((LOW, "RMI"),)),
    ("launch.LOW_COLUMNS", (4, 8, 16, 32), ((LOW, "RMI"),)),
    ("launch.LOW_CLASSES", (1, 2, 3, 4, 6), ((LOW, "RMI"),)),
    ("regions.TILE_VALUES", (4, 8, 16, 32), ((FULL, "RMI"),)),
)


def compile_change(given: tuple[Place, Case, str, str, Any]) -> str:
    """One step with another constant, so that its kernels are there."""
    place, case, loss, name, value = given
    before = set_constants({name: value})
    steps(place, case)[loss]()
    place.wait()
    set_constants(before)
    return ""


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Seconds of the device for each value of each constant and case; and the best values."""
    best: dict[str, Any] = {}
    tiny: tuple[Sweep, ...] = (("regions.TILE_VALUES", (8, 16), ((TINY[0], "RMI"),)),)
    started = time.monotonic()
    # Those of regions are compiled and measured first, lest time be over before all are compiled.
    for sweeps in (tiny,) if place.tiny else (REGION_SWEEPS, LAUNCH_SWEEPS):
        if time.monotonic() - started > place.seconds / 2:
            return
        jobs = [
            (place, case, loss, name, value)
            for name, values, cases in sweeps
            for value, (case, loss) in itertools.product(values, cases)
        ]
        for _ in in_processes(compile_change, jobs, place.workers):
            pass
        for name, values, cases in sweeps:
            ratios = dict.fromkeys(values, 1.0)
            for case, loss in cases:
                seconds = _seconds(place, case, loss, name, values)
                for value in values:
                    ratios[value] *= seconds[value] / min(seconds.values())
                yield f"{name}, {loss}, {case}", {str(value): found for value, found in seconds.items()}
            best[name] = min(values, key=lambda value: ratios[value])
            yield "best", best


def _seconds(place: Place, case: Case, loss: str, name: str, values: tuple[Any, ...]) -> dict[Any, float]:
    """Seconds of the device for a step with each value of a constant."""
    step = steps(place, case)[loss]
    seconds = {}
    for value in values:
        before = set_constants({name: value})
        times = time_in_turn(place, {loss: step}, runs=2, calls=5)[loss]
        set_constants(before)
        graph = times.get("graph")
        seconds[value] = graph if isinstance(graph, float) else times["seconds"]
    return seconds
