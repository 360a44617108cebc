"""Measurements as a table and a CSV file."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.table import Table

from rmiseg.benchmarks.candidates import CANDIDATES
from rmiseg.benchmarks.measure import Job, Passes, Shape
from rmiseg.runtime.files import write_rows


@dataclass
class Measurement:
    """Findings of one job so far.

    Attributes:
        job: What is measured.
        times: Seconds of each run.
        memory: Peak bytes beyond what was held before.
        compile_seconds: The first run, of a loss that compiles itself.
        problem: Why there are no times.
    """

    job: Job
    times: list[Passes] = field(default_factory=list)
    memory: Passes | None = None
    compile_seconds: float | None = None
    problem: str | None = None

    @property
    def title(self) -> str:
        """The name of the loss, with the pool size where it matters."""
        candidate = CANDIDATES[self.job.name]
        return f"{candidate.title}, pool {self.job.pool_size}" if candidate.pools else candidate.title

    @property
    def seconds(self) -> Passes | None:
        """Median times."""
        if not self.times or self.problem is not None:
            return None
        return Passes(*(statistics.median(values) for values in zip(*self.times)))


@dataclass
class Case:
    """The losses compared on one batch; cross entropy is the first."""

    shape: Shape
    stride: int
    measurements: list[Measurement]

    @property
    def title(self) -> str:
        """The shape and where the logits are."""
        where = "full size" if self.stride == 1 else f"stride {self.stride}"
        return f"{shape_text(self.shape)}, {where}"

    def time_ratio(self, measurement: Measurement) -> Passes | None:
        """Median times, relative to those of cross entropy."""
        return _ratio(measurement.seconds, self.measurements[0].seconds)

    def memory_ratio(self, measurement: Measurement) -> Passes | None:
        """Peak memory, relative to that of cross entropy."""
        return _ratio(measurement.memory, self.measurements[0].memory)


def _ratio(value: Passes | None, reference: Passes | None) -> Passes | None:
    if value is None or reference is None or min(reference) <= 0:
        return None
    return Passes(*(v / r for v, r in zip(value, reference)))


def shape_text(shape: Shape) -> str:
    """4x21x513x513"""
    return "x".join(map(str, shape))


def case_table(case: Case) -> Table:
    """Times and memory of one case; below, why something is missing."""
    table = Table(title=case.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("ms", no_wrap=True)
    for name in ("forward", "backward", "both", "x CE", "peak MB", "x CE"):
        table.add_column(name, justify="right", no_wrap=True)
    notes = []
    for m in case.measurements:
        seconds, times, memory = m.seconds, case.time_ratio(m), case.memory_ratio(m)
        table.add_row(
            m.title,
            *(["-"] * 3 if seconds is None else [digits(1e3 * s) for s in seconds]),
            "-" if times is None else digits(times.both),
            "n/a" if m.memory is None else digits(m.memory.both / 1e6),
            "n/a" if memory is None else digits(memory.both),
            style="bold" if m.job.name == "rmi" else "",
        )
        if m.compile_seconds is not None:
            notes.append(f"{m.title}: compiled in {m.compile_seconds:.0f} s")
        if m.problem is not None:
            notes.append(f"{m.title}: {m.problem}")
    table.caption = "\n".join(notes) or None
    table.caption_justify = "left"
    return table


def digits(value: float) -> str:
    """The value with three significant digits, or all before the point."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def write_csv(path: Path, cases: list[Case], environment: dict[str, str]) -> None:
    """One row for each pass (forward, backward, both) of each loss in each case that has been measured."""
    rows = [
        row
        for case in cases
        for m in case.measurements
        if m.times or m.problem is not None
        for row in _csv_rows(case, m, environment)
    ]
    header = _csv_rows(cases[0], cases[0].measurements[0], environment)[0]
    write_rows(path, [header, *(row.values() for row in rows)])


def _csv_rows(case: Case, m: Measurement, environment: dict[str, str]) -> list[dict[str, object]]:
    pools = CANDIDATES[m.job.name].pools
    seconds, time_ratio, memory_ratio = m.seconds, case.time_ratio(m), case.memory_ratio(m)
    rows: list[dict[str, object]] = []
    for index, name in enumerate(Passes._fields):
        times = [] if seconds is None else [1e3 * run[index] for run in m.times]
        rows.append(
            {
                "shape": shape_text(case.shape),
                "stride": case.stride,
                "loss": m.job.name,
                "pool_size": m.job.pool_size if pools else None,
                "region_size": m.job.region_size if pools else None,
                "pass": name,
                "runs": len(times),
                "median_ms": None if seconds is None else round(1e3 * seconds[index], 4),
                "lowest_ms": round(min(times), 4) if times else None,
                "highest_ms": round(max(times), 4) if times else None,
                "time_ratio": None if time_ratio is None else round(time_ratio[index], 4),
                "peak_bytes": None if m.memory is None else int(m.memory[index]),
                "memory_ratio": None if memory_ratio is None else round(memory_ratio[index], 4),
                "compile_s": None if m.compile_seconds is None else round(m.compile_seconds, 2),
                "problem": m.problem,
                **environment,
            }
        )
    return rows
