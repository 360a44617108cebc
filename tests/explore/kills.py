"""Kill commands at any moment, give them again, and compare what they end with.

    python tests/explore/kills.py --kills 20 --seed 1 [COMMAND...]

Half of the kills come at a change of a file (a renaming, a removal, an opening for writing, a new folder), which is
drawn from all that the undisturbed command makes; the others at any moment, of the process alone or of all that it
started. Sometimes the disk is full instead, or not writable any more, from such a change on: then it may fail in words.
Then the same command is given again, and must end as the undisturbed one: with the same files, of the same
bits but for times, and nothing left half. The exit status is 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1]))
from miniatures import write_shapes
from rmiseg.cli import main as rmiseg_main
from rmiseg.experiment import trainings
from rmiseg.runtime.files import leftovers
from support.launch import context, start_training

PLUGIN, FAULT = Path(__file__).with_name("kill_plugin.py"), "RMISEG_FAULT"
PATIENCE = 600
"""Seconds after which a command hangs."""
IGNORED = ("events.out.tfevents", ".lock", ".claim", ".report", "log.txt", "results.md", "results.png", "seconds.json")
"""Beginnings of the names of files that hold times, or who held a lock."""
TIMES = ("seconds", "peak_memory", "images_crc32", "crc32", "minutes", "memory", "wait", "checkpoint", "root", "out")
"""Parts of the names of values that are times, follow from them, or name the folder."""
OUTCOMES = ("same", "different", "would not go on", "traceback", "hang", "left half")
RECIPE = {
    "resume": "auto",
    "device": "cpu",
    "data": {"crop_size": [32, 32], "batch_size": 4, "workers": 0},
    "model": {"name": "tiny", "weights": "none"},
    "optim": {"lr": 0.01},
    "train": {"epochs": 2, "checkpoint_every": 1, "log_every": 1, "panels": 0},
}


@dataclass(frozen=True)
class Command:
    """A command to kill.

    Attributes:
        arguments: Returns what stands behind `rmiseg`, for a folder to write to.
        processes: How many torchrun starts; one without it.
        in_a_row: Kills before it may come to its end.
    """

    arguments: Callable[[Path], list[str]]
    processes: int = 1
    in_a_row: int = 1


class Started:
    """A command that runs: forked, or by the real torchrun, in a process group of its own."""

    def __init__(self, arguments: list[str], log: Path, fault: str, processes: int) -> None:
        self.forked: BaseProcess | None = None
        self.popen: subprocess.Popen[bytes] | None = None
        if processes == 1:
            self.forked = context.Process(target=_run, args=(arguments, str(log), fault))
            self.forked.start()
            self.pid = self.forked.pid or 0
            return
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        environment = {**os.environ, **({FAULT: fault} if fault else {})}
        with open(log, "wb") as file:
            self.popen = subprocess.Popen(
                [*launch, "rmiseg", *arguments], env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self.pid = self.popen.pid

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit status; None if it runs still."""
        if self.forked is not None:
            self.forked.join(seconds)
            return self.forked.exitcode
        assert self.popen is not None
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self, whom: str, chance: random.Random) -> None:
        """Kill the process alone, all that it started, or one of these."""
        below = descendants(self.pid)
        victims = {"alone": [self.pid], "all": [self.pid, *below], "one": [chance.choice(below or [self.pid])]}[whom]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _run(arguments: list[str], log: str, fault: str) -> None:
    file = open(log, "w")  # noqa: SIM115  # for as long as the process lives
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    if fault:
        os.environ[FAULT] = fault
    trainings._start = start_training  # type: ignore[assignment]
    sys.exit(rmiseg_main(arguments))


def descendants(pid: int) -> list[int]:
    """All processes that a process started, and those that they did."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [each for child in children for each in descendants(child)]


def content(folder: Path) -> dict[str, Any]:
    """What a command has written, without times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name.startswith(IGNORED) or "set-aside" in str(path):
            continue
        name, data = str(path.relative_to(folder)), path.read_bytes()
        if path.suffix == ".json":
            found[name] = timeless(json.loads(data))
        elif path.suffix == ".pt":
            found[name] = {key: plain(value) for key, value in torch.load(path, weights_only=True).items()}
        elif path.name == "curves.csv":
            found[name] = [line for line in data.decode().splitlines() if not any(each in line for each in TIMES)]
        elif path.name in ("results.csv",):
            rows = [line.split(",") for line in data.decode().splitlines()]
            kept = [at for at, title in enumerate(rows[0]) if not any(each in title for each in TIMES)]
            found[name] = [[row[at] for at in kept] for row in rows]
        else:
            found[name] = data.replace(str(folder).encode(), b"OUT")
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not any(each in key for each in TIMES)}
        return {key: timeless(item) for key, item in kept.items()}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    return {str(key): plain(item) for key, item in value.items()} if isinstance(value, dict) else repr(value)


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return ", ".join(f"{name} ({'missing' if name not in found else 'changed'})" for name in names[:5])


class Trial:
    """Kills of one command.

    Args:
        name: Its name.
        command: The command.
        scratch: Folder for what it writes.
        start: Folder whose content is there before it starts; None for none.
        chance: Draws the moments.
    """

    def __init__(self, name: str, command: Command, scratch: Path, start: Path | None, chance: random.Random) -> None:
        self.name, self.command, self.start, self.chance = name, command, start, chance
        self.scratch = scratch / name.replace(" ", "-")
        self.out, self.log, self.counter = (self.scratch / each for each in ("out", "log", "count"))
        self.scratch.mkdir()
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def launch(self, fault: str = "") -> Started:
        self.counter.unlink(missing_ok=True)
        words = f"{fault} {self.out} {self.counter}" if fault else ""
        arguments = [*self.command.arguments(self.out), "--plugin", str(PLUGIN)]
        return Started(arguments, self.log, words, self.command.processes)

    def fresh(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if self.start is not None:
            shutil.copytree(self.start, self.out)

    def undisturbed(self) -> None:
        """Run once without a fault: what it writes, in how many changes and how much time."""
        self.fresh()
        begin = time.monotonic()
        if (status := self.launch("count 0").wait()) != 0:
            raise SystemExit(f"{self.name} fails by itself, status {status}:\n{self.log.read_text()[-3000:]}")
        self.seconds = time.monotonic() - begin
        self.changes = self.counter.stat().st_size
        self.expected = content(self.out)

    def case(self, kinds: list[str]) -> None:
        """Disturb the command as often as there are kinds, then let it come to its end."""
        self.fresh()
        words = "; ".join(self.disturb(kind) for kind in kinds)
        broken = self.log.read_text(errors="replace")
        status = self.launch().wait()
        log = self.log.read_text(errors="replace")
        detail = difference(self.expected, content(self.out)) if status == 0 else log[-1500:]
        half = [str(path) for folder in (self.out, *self.out.rglob("*/")) for path in leftovers(folder)]
        if status is None:
            outcome = "hang"
        elif "Traceback" in log or ("Traceback" in broken and self.command.processes == 1):
            outcome, detail = "traceback", (broken if "Traceback" in broken else log)[-1500:]
        elif status != 0:
            outcome = "would not go on"
        elif detail:
            outcome = "different"
        else:
            outcome, detail = ("left half", str(half)) if half else ("same", "")
        self.outcomes[outcome] += len(kinds)
        if outcome != "same":
            print(f"{self.name}: {outcome} after {words}: {detail}", file=sys.stderr, flush=True)

    def disturb(self, kind: str) -> str:
        """Start the command and disturb it; says when."""
        if kind == "at any moment":
            started = self.launch()
            whom = self.chance.choice(("alone", "all") if self.command.processes == 1 else ("all", "one"))
            moment = self.chance.uniform(0, self.seconds)
            if started.wait(moment) is None:
                self.kinds[f"{kind}, {whom}"] += 1
                started.kill(whom, self.chance)
                words = f"{kind} ({moment:.1f} s, {whom})"
            else:
                self.kinds["none: it had ended"] += 1
                words = "none"
            started.wait()
            return words
        number = self.chance.randint(1, self.changes)
        self.kinds[kind] += 1
        self.launch(f"{kind} {number}").wait()
        return f"{kind} {number} of {self.changes}"


def commands(scratch: Path) -> dict[str, tuple[Command, Path | None]]:
    """The commands, and the folders that they begin with."""
    data, images = scratch / "data", scratch / "data" / "images"
    write_shapes(data, count=10)
    (scratch / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "data": {**RECIPE["data"], "root": str(data)}}))
    plan = {
        "recipe": "recipe.yaml",
        "methods": {"CE": {"loss": {"name": "ce"}}, "RMI": {}},
        "train": {"train": {"steps": 2}},
    }
    (scratch / "plan.yaml").write_text(yaml.safe_dump(plan))
    (scratch / "trained").mkdir()
    run, train = scratch / "trained" / "run", ["train", str(scratch / "recipe.yaml"), "--out"]
    started = Started([*train, str(run), "--plugin", str(PLUGIN)], scratch / "log", "", 1)
    if started.wait() != 0:
        raise SystemExit((scratch / "log").read_text())
    shutil.rmtree(run / "evaluation")

    def training(out: Path) -> list[str]:
        return [*train, str(out)]

    def experimenting(out: Path) -> list[str]:
        return ["experiment", str(scratch / "plan.yaml"), "--out", str(out), "--device", "cpu"]

    def predicting(out: Path) -> list[str]:
        return ["predict", str(run), str(images), "--out", str(out), "--resume", "auto", "--device", "cpu"]

    def exporting(out: Path) -> list[str]:
        return ["export", str(out / "run"), "--format", "safetensors,torch-export,onnx", "--overwrite"]

    def reporting(out: Path) -> list[str]:
        return ["report", str(out / "run"), "--out", str(out / "page.html"), "--device", "cpu"]

    return {
        "train": (Command(training), None),
        "train, torchrun": (Command(training, processes=2, in_a_row=4), None),
        "experiment": (Command(experimenting, in_a_row=2), None),
        "predict": (Command(predicting), None),
        "evaluate": (Command(lambda out: ["evaluate", str(out / "run"), "--device", "cpu"]), scratch / "trained"),
        "report": (Command(reporting), scratch / "trained"),
        "export": (Command(exporting), scratch / "trained"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--full", type=int, default=4, help="times that the disk is full or read-only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    context.set_forkserver_preload(["rmiseg.training.trainer", "rmiseg.reports.page", "rmiseg.experiment.driver"])
    table = Table("command", "changes of files", "disturbed", *OUTCOMES)
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        every = commands(Path(scratch))
        for name in options.commands or every:
            command, start = every[name]
            trial = Trial(name, command, Path(scratch), start, random.Random(f"{name} {options.seed}"))
            trial.undisturbed()
            kinds = ["kill", "at any moment"] * (options.kills // 2)
            kinds += ["full", "read-only"] * (options.full // 2 if command.processes == 1 else 0)
            for first in range(0, len(kinds), command.in_a_row):
                trial.case(kinds[first : first + command.in_a_row])
            bad += sum(trial.outcomes[outcome] for outcome in OUTCOMES[1:])
            happened = ", ".join(f"{times} {kind}" for kind, times in trial.kinds.items())
            counts = [str(trial.outcomes[outcome]) for outcome in OUTCOMES]
            table.add_row(name, str(trial.changes), happened, *counts)
            print(name, happened, dict(trial.outcomes), file=sys.stderr, flush=True)
    Console(width=140).print(table)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
