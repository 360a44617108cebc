"""The kernels that `speed` and `profile` need, compiled side by side, so that these have only to measure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gpu.batches import Case, Place, in_processes
from gpu.speed import CASES, TINY, steps


def compile_case(given: tuple[Place, Case]) -> float:
    """Every step once; seconds that it took."""
    started = time.perf_counter()
    for step in steps(*given).values():
        step()
    given[0].wait()
    return time.perf_counter() - started


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Seconds of the first steps of each case, of all losses together."""
    cases = TINY if place.tiny else CASES
    for (_, case), seconds in in_processes(compile_case, [(place, case) for case in cases], place.workers):
        yield str(case), seconds
