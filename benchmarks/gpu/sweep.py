"""Other constants of the kernels than the chosen ones, each alone, then the best of all together.

`gpu_check.py --best` runs the parts after this one with the best.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gpu.batches import Case, Place, in_processes, set_constants, time_in_turn
from gpu.speed import CASES, TINY, steps

TILINGS = (
    *((256, 1, True), (512, 1, True), (1024, 1, True), (512, 2, True), (1024, 2, True), (2048, 2, True)),
    *((1024, 4, True), (512, 1, False), (1024, 2, False)),
)
FULL, LOW, HALF = CASES[0], CASES[1], CASES[2]
SWEEPS: tuple[tuple[str, tuple[Any, ...], tuple[tuple[Case, str], ...]], ...] = (
    ("launch.FORWARD", TILINGS, ((FULL, "RMI"), (HALF, "RMI"))),
    ("launch.BACKWARD", TILINGS, ((FULL, "RMI"), (HALF, "RMI"))),
    ("launch.SMALL", TILINGS[:6], ((LOW, "RMI"), (FULL, "CELoss"))),
    ("launch.LOW_ROWS", (8, 16, 32), ((LOW, "RMI"),)),
    ("launch.LOW_COLUMNS", (4, 8, 16, 32), ((LOW, "RMI"),)),
    ("launch.LOW_CLASSES", (1, 2, 3, 4, 6), ((LOW, "RMI"),)),
    ("regions.ROWS", (16, 32, 64, 128), ((FULL, "RMI"),)),
    ("regions.GRADIENT_ROWS", (2, 4, 8), ((FULL, "RMI"),)),
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
    sweeps = SWEEPS
    if place.tiny:
        sweeps = (("regions.TILE_VALUES", (8, 16), ((TINY[0], "RMI"),)),)
    jobs = [
        (place, case, loss, name, value)
        for name, values, cases in sweeps
        for value, (case, loss) in itertools.product(values, cases)
    ]
    for _ in in_processes(compile_change, jobs, place.workers):
        pass
    best: dict[str, Any] = {}
    for name, values, cases in sweeps:
        ratios = dict.fromkeys(values, 1.0)
        for case, loss in cases:
            step = steps(place, case)[loss]
            seconds = {}
            for value in values:
                before = set_constants({name: value})
                time = time_in_turn(place, {loss: step}, runs=2, calls=5)[loss]
                set_constants(before)
                graph = time.get("graph")
                seconds[value] = graph if isinstance(graph, float) else time["seconds"]
            for value in values:
                ratios[value] *= seconds[value] / min(seconds.values())
            yield f"{name}, {loss}, {case}", {str(value): time for value, time in seconds.items()}
        best[name] = min(values, key=lambda value: ratios[value])
        yield "best", best
