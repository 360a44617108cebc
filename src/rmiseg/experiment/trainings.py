"""Train recipes, several at a time if there is room, each in a process of its own: so peak memory is its own too.

Several machines may work at the same recipes, in a folder that they share: whoever trains one holds a lock beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rmiseg.config.registry import plugin_arguments
from rmiseg.runtime.files import locked
from rmiseg.runtime.signals import EX_TEMPFAIL, Preempted, TerminationRequest, interrupts_ignored
from rmiseg.training.run_folder import LOCK_FILE

LOG_FILE = "log.txt"
CLAIM_FILE = ".claim"
RUN_FOLDER = "run"
"""Folder of the run, beside its recipe."""
POLL_SECONDS = 0.2
CLAIM_SECONDS = 5.0
"""Time between two looks at what another machine is doing."""


def train_all(
    titles: Mapping[Path, str],
    jobs: int,
    device: str,
    console: Console,
    result: Callable[[Path], str | None],
    report: Callable[[], None],
    write: Callable[[Path], None],
) -> None:
    """Train recipes, in their order, `jobs` at a time; those that another process is training come last.

    One at a time has the terminal to itself; of several, each writes into log.txt beside its recipe. Those that run at
    the same time share the processor, and are dealt the GPUs in turn. If this one ends before they do, for whatever
    reason but SIGKILL, they save where they stand first.

    Args:
        titles: What to call each recipe, by its path.
        jobs: How many to train at a time.
        device: The device that the recipes ask for.
        console: Where to show what is going on.
        result: What came of a recipe, in a line, once its training is over; None if nothing came of it.
        report: Writes a report; called after each training.
        write: Writes the recipe; called when nobody else can be training it.

    Raises:
        OSError: A training failed, and nothing came of it.
        Preempted: SIGTERM arrived, here or at a training.
    """
    waiting, slots = deque(titles), list(range(jobs))
    running: dict[subprocess.Popen[bytes], tuple[Path, int, ExitStack]] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        TerminationRequest() as request,
        request.at_once(),
        Progress(*columns, console=console, disable=jobs == 1) as progress,
    ):
        bar = progress.add_task("runs", total=len(titles))
        try:
            while waiting or running:
                for recipe in list(waiting):
                    if not slots or (claim := _claim(recipe)) is None:
                        continue
                    waiting.remove(recipe)
                    if result(recipe) is not None:  # of another process, meanwhile
                        claim.close()
                        progress.advance(bar)
                        continue
                    write(recipe)
                    slot = slots.pop(0)
                    if jobs == 1:
                        console.rule(titles[recipe])
                    else:
                        console.print(f"{titles[recipe]}: begins, its output is in {recipe.with_name(LOG_FILE)}")
                    running[_start(recipe, slot, jobs, device)] = recipe, slot, claim
                time.sleep(POLL_SECONDS if running else CLAIM_SECONDS)
                for process in [process for process in running if process.poll() is not None]:
                    recipe, slot, claim = running.pop(process)
                    claim.close()
                    line = _line(process.returncode, recipe, titles[recipe], jobs, result)
                    report()
                    if jobs > 1:
                        console.print(line)
                    slots.append(slot)
                    progress.advance(bar)
        finally:
            for process in running:
                process.terminate()
            for process, (_, _, claim) in running.items():
                process.wait()
                claim.close()


def _claim(recipe: Path) -> ExitStack | None:
    """The lock on the training of a recipe; None if another process has it.

    So does a training that goes on although its experiment was killed.
    """
    claim, run = ExitStack(), recipe.with_name(RUN_FOLDER) / LOCK_FILE
    try:
        claim.enter_context(locked(recipe.with_name(CLAIM_FILE)))
        if run.is_file():
            with locked(run):
                pass
    except BlockingIOError:
        claim.close()
        return None
    return claim


@contextmanager
def alone(file: Path, console: Console) -> Iterator[None]:
    """Hold the lock `file` in a folder that is shared; wait while another process holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    told = False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(file))
                break
            except BlockingIOError as error:
                if not told:
                    console.print(f"waiting: {error}", markup=False)
                told = True
                time.sleep(CLAIM_SECONDS)
        yield


def environment(slot: int, jobs: int, device: str) -> dict[str, str]:
    """Environment variables of a training: its share of the processor, and which GPU is its own."""
    if jobs == 1:
        return {}
    shares = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))}
    if device in ("auto", "cuda") and (count := torch.cuda.device_count()):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        shares["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % count]
    return shares


def _start(recipe: Path, slot: int, jobs: int, device: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rmiseg", "train", "--recipe", str(recipe), *plugin_arguments()]
    with ExitStack() as stack:
        stack.enter_context(interrupts_ignored())  # Ctrl-C is for `train_all` to hear
        log = stack.enter_context(open(recipe.with_name(LOG_FILE), "ab")) if jobs > 1 else None
        return subprocess.Popen(
            command, env={**os.environ, **environment(slot, jobs, device)}, stdout=log, stderr=log and subprocess.STDOUT
        )


def _line(status: int, recipe: Path, title: str, jobs: int, result: Callable[[Path], str | None]) -> str:
    """The outcome of a training that ended with this exit status, in a line."""
    if status == EX_TEMPFAIL:
        raise Preempted
    line = result(recipe)
    if line is None:
        why = f"\nThe end of {log}:\n{_end(log)}" if jobs > 1 and (log := recipe.with_name(LOG_FILE)) else ""
        raise OSError(f"{title}: failed (status {status}); start the experiment again to go on from here{why}")
    return f"{title}: {line}"


def _end(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
