"""`rmiseg bench loss`: time and memory of the losses, beside those of cross entropy."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import rmiseg
from rmiseg.benchmarks.candidates import CANDIDATES, Loss, choose
from rmiseg.benchmarks.measure import (
    Job,
    Shape,
    can_measure_memory,
    describe,
    measure_apart,
    memory,
    number_of_threads,
    run_once,
)
from rmiseg.benchmarks.report import Case, Measurement, case_table, write_csv
from rmiseg.config import BenchLossConfig
from rmiseg.runtime.device import select_device
from rmiseg.runtime.extras import remedy
from rmiseg.runtime.words import counted

RESULTS_FILE, PICTURE_FILE = "results.csv", "speed.png"
BUSY = 1.0  # load average from which on a warning is given
LEAST_RUNS = 3  # also of a loss that takes longer than config.max_seconds

# What takes long to import is imported before the processes that measure memory are forked.
_PRELOAD = {"segmentation-models-pytorch": "segmentation_models_pytorch.losses", "rmi-pytorch": "rmi"}


def run_loss_benchmark(config: BenchLossConfig, console: Console) -> None:
    """Measure every case, print a table of each, and leave a CSV file and a picture in the folder `config.out`.

    Raises:
        ValueError: An option that makes no sense.
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from rmiseg.benchmarks.picture import draw
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the picture is drawn with matplotlib ({error}): {remedy('bench')}", name=error.name
        ) from error
    _check(config)
    names, missing = choose(config.losses)
    device = select_device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where the events of this process are recorded
    shapes = [parse_shape(text) for text in config.shapes]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    results, picture = out / RESULTS_FILE, out / PICTURE_FILE

    with number_of_threads(config.threads) as threads:
        environment = describe_environment(device, config.dtype, threads)
        cases = plan(config, shapes, names, device, threads)
        console.print(
            f"{environment['hardware']}, {counted(threads, 'thread')}, torch {environment['torch']}, {config.dtype}"
        )
        if device.type == "cpu" and hasattr(os, "getloadavg") and os.getloadavg()[0] >= BUSY:
            console.print(f"Others compute on this machine (load {os.getloadavg()[0]:.1f}): times will be wrong")
        for package, lost in missing.items():
            console.print(f"Without {', '.join(lost)}: {package} is not installed (pip install {package})")
        if not can_measure_memory(device):
            console.print(f"Memory is not measured: this system does not tell its peak on {device}")
        try:
            with _hushed(), _compile_cache(), LossProgress(console, cases, config.runs) as progress:
                for case in cases:
                    measure_case(case, config.runs, config.max_seconds, device, progress)
                    write_csv(results, cases, environment)
                    console.print(case_table(case))
        except KeyboardInterrupt:
            if any(m.times for case in cases for m in case.measurements):
                write_csv(results, cases, environment)
                console.print(f"What was measured so far is in {results}")
            raise
    draw(picture, cases, environment)
    console.print(f"Results in {results}, picture in {picture}")


def plan(
    config: BenchLossConfig, shapes: list[Shape], names: list[str], device: torch.device, threads: int
) -> list[Case]:
    """The cases, with what is to be measured in each, in turn."""
    strides, pool_sizes = list(dict.fromkeys(config.strides)), list(dict.fromkeys(config.pool_sizes))
    cases = []
    for shape in dict.fromkeys(shapes):
        for stride in strides:
            pools = pool_sizes if stride == strides[0] else pool_sizes[:1]
            jobs = [
                Job(name, shape, stride, pool, config.region_size, config.dtype, str(device), threads)
                for name in names
                for pool in (pools if CANDIDATES[name].pools else pools[:1])
            ]
            cases.append(Case(shape, stride, [Measurement(job) for job in jobs]))
    return cases


def parse_shape(text: str) -> Shape:
    """The shape written as, for example, 4x21x513x513.

    Raises:
        ValueError: It is not of this form.
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", text):
        raise ValueError(f"shapes: {text!r} is not of the form NxCxHxW, as 4x21x513x513 is")
    n, c, h, w = map(int, text.split("x"))
    return n, c, h, w


def measure_case(case: Case, runs: int, max_seconds: float, device: torch.device, progress: LossProgress) -> None:
    """Measure memory, loss by loss, and then time, in turn. What a loss cannot do is noted, and the others go on."""
    if any(CANDIDATES[m.job.name].compiled for m in case.measurements):
        torch.compiler.reset()  # or else the limit on compiled versions of one function is reached
    batch = case.measurements[0].job.make_batch()
    apart = device.type == "cpu" and can_measure_memory(device)
    losses: dict[int, Loss] = {}
    for index, measurement in enumerate(case.measurements):
        progress.describe(case, measurement, "memory")
        if apart:
            _measure_memory_apart(case, measurement)
        if measurement.problem is None:
            with _noting_problems(measurement):
                losses[index] = measurement.job.build()
                seconds = measurement.job.warm_up(losses[index], batch)
                if CANDIDATES[measurement.job.name].compiled and measurement.compile_seconds is None:
                    measurement.compile_seconds = seconds
                if not apart and can_measure_memory(device):
                    measurement.memory = memory(losses[index], batch)
        progress.advance(measurement)
    for run in range(runs):
        for index, measurement in enumerate(case.measurements):
            enough = run >= LEAST_RUNS and sum(t.both for t in measurement.times) > max_seconds
            if measurement.problem is None and not enough:
                progress.describe(case, measurement, f"run {run + 1}")
                with _noting_problems(measurement):
                    measurement.times.append(run_once(losses[index], batch))
            progress.advance(measurement)


def _measure_memory_apart(case: Case, measurement: Measurement) -> None:
    packages = dict.fromkeys(CANDIDATES[m.job.name].package for m in case.measurements)
    found = measure_apart(measurement.job, [_PRELOAD[package] for package in packages if package is not None])
    measurement.memory, measurement.problem = found.memory, found.problem
    if CANDIDATES[measurement.job.name].compiled and found.problem is None:
        measurement.compile_seconds = found.warm_up_seconds


@contextmanager
def _noting_problems(measurement: Measurement) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of whatever kind: much of the code is not ours
        measurement.problem = describe(error)
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()


def describe_environment(device: torch.device, dtype: str, threads: int) -> dict[str, str]:
    """Circumstances that a figure depends on, beside the loss and the batch."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": str(device),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": str(threads),
        "torch": torch.__version__,
        "rmiseg": rmiseg.__version__,
        "dtype": dtype,
    }


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _check(config: BenchLossConfig) -> None:
    for name in ("runs", "region_size", "threads"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name in ("shapes", "strides", "pool_sizes"):
        values = getattr(config, name)
        if not values:
            raise ValueError(f"{name} must not be empty")
        for value in values:
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@contextmanager
def _hushed() -> Iterator[None]:
    """Without warnings, which are about code of others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _compile_cache() -> Iterator[None]:
    """A compiler cache of our own, so that what an earlier benchmark compiled does not shorten the compile time."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="rmiseg-bench-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


class LossProgress:
    """One bar over everything, in which a slow loss counts for more, so that the remaining time is about right."""

    def __init__(self, console: Console, cases: list[Case], runs: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=120,
            auto_refresh=False,  # the thread that refreshes it would take a core from what is timed
        )
        total = sum((runs + 1) * self._weight(m) for case in cases for m in case.measurements)
        self.task = self.progress.add_task("", total=total)

    def __enter__(self) -> LossProgress:
        self.progress.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.progress.update(self.task, description="measured")
        self.progress.stop()

    def describe(self, case: Case, measurement: Measurement, what: str) -> None:
        """Say what is being measured."""
        self.progress.update(self.task, description=f"{case.title}: {measurement.title}, {what}", refresh=True)

    def advance(self, measurement: Measurement) -> None:
        """One run, or the measurement of memory, is done."""
        self.progress.advance(self.task, self._weight(measurement))

    @staticmethod
    def _weight(measurement: Measurement) -> float:
        n, c, h, w = measurement.job.shape
        return CANDIDATES[measurement.job.name].cost * n * c * h * w
