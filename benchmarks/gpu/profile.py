"""Microseconds and launches of each kernel of a step: what to look at first where it is too slow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from gpu.batches import Place
from gpu.speed import CASES, TINY, steps

REPEATED = 5


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """For some cases and losses, kernels with (microseconds, launches) a step; and host operations likewise."""
    names = ("RMI", "F.cross_entropy") if place.tiny else ("RMI", "CELoss", "BCELoss", "F.cross_entropy")
    activities = [torch.profiler.ProfilerActivity.CPU]
    if place.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    for case in TINY if place.tiny else (*CASES[:3], CASES[5]):
        own = steps(place, case)
        for name in names:
            for _ in range(1 if place.tiny else 200):  # until the clocks are up
                own[name]()
            with torch.profiler.profile(activities=activities) as profile:
                for _ in range(REPEATED):
                    own[name]()
                place.wait()
            kernels, host = {}, {}
            for event in profile.key_averages():
                on_device = event.device_type != torch.autograd.DeviceType.CPU
                microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
                table = kernels if on_device else host
                table[event.key[:120]] = (round(microseconds / REPEATED, 1), event.count / REPEATED)
            yield f"{case}: {name}", {"kernels": _largest(kernels, 40), "host": _largest(host, 25)}


def _largest(table: dict[str, tuple[float, float]], count: int) -> dict[str, tuple[float, float]]:
    return dict(sorted(table.items(), key=lambda item: -item[1][0])[:count])
