"""The folder of a run: its files, who may write to it, and how a run goes on."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.config.recipes import flat, read_recipe
from rmiseg.inference.checkpoint import CHECKPOINTS
from rmiseg.runtime.files import locked, printable, replacing, to_json
from rmiseg.training.state import STATES, SavedState, StateFolder

CONFIG_FILE, RESULT_FILE, DIVERGED_FILE, LOCK_FILE = "config.yaml", "result.json", "diverged.txt", ".lock"
CURVES_FILE, EVENT_FILES = "curves.csv", "events.out.tfevents.*"

CHANGEABLE = {
    *("out", "resume", "device", "made_with", "data.root", "data.workers", "data.on_error"),
    *("train.strategy", "train.compile", "train.val_every", "train.log_every", "train.panels", "train.keep"),
    *("train.checkpoint_every", "train.max_skipped", "train.metrics", "train.loggers"),
}
"""Options that may change when a run goes on: the others make another training of it."""


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run; all but its folder are in `result.json` there.

    Attributes:
        out: Folder of the run.
        steps: Optimizer steps taken.
        seconds_per_step: Median time of a step, without loading data.
        peak_memory: Most memory held at once, in bytes: of the GPU, or of the whole process on a CPU.
        last: Validation scores at the end, by name.
        best: Validation scores of the best checkpoint.
    """

    out: Path
    steps: int
    seconds_per_step: float
    peak_memory: int
    last: dict[str, float]
    best: dict[str, float]

    @property
    def scores(self) -> dict[str, float]:
        """Validation scores of the checkpoint that `Predictor.from_run(result.out)` takes: the best one."""
        return self.best or self.last


class RunFolder:
    """The files of one run.

    Args:
        config: The options of the run, complete.

    Attributes:
        path: The folder.
        checkpoints: Folder of the checkpoints in it.
        states: States to go on from.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.path = Path(config.out)
        self.checkpoints = self.path / CHECKPOINTS
        self.states = StateFolder(self.checkpoints / STATES)

    def open(self, stack: ExitStack, console: Console) -> SavedState | None:
        """Make the folder, or go on with the one that is there: its last state. It is locked until `stack` ends.

        Files of a run that ended before its first state are replaced.

        Raises:
            FileExistsError: The folder holds something else.
            BlockingIOError: Another process writes to it.
            ValueError: The run in it has other options.
        """
        out = self.path
        curves = [*out.glob(EVENT_FILES), out / CURVES_FILE]
        leftovers = {*curves, *(out / name for name in (CONFIG_FILE, LOCK_FILE, DIVERGED_FILE, CHECKPOINTS))}
        foreign = out.exists() and (not out.is_dir() or bool(set(out.iterdir()) - leftovers))
        resumed = self.config.resume == "auto" and (out / CONFIG_FILE).is_file()
        if resumed:
            self._check_same()
        elif foreign or any(out.glob(f"{CHECKPOINTS}/**/*.pt")):
            advice = ", go on with it with --resume auto" if (out / CONFIG_FILE).is_file() else ""
            raise FileExistsError(
                f"{out} exists and is not empty; choose another folder with --out{advice}, or remove it"
            )
        out.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(out / LOCK_FILE))
        (out / DIVERGED_FILE).unlink(missing_ok=True)  # this time may be another
        if resumed:
            state = self.states.load(console)
            for path in out.glob(f"{CHECKPOINTS}/**/.*.tmp"):  # of processes that were killed
                path.unlink()
            if state is not None:
                return state
        for file in [*curves, *out.glob(f"{CHECKPOINTS}/*.pt")]:
            file.unlink(missing_ok=True)
        write_config(out / CONFIG_FILE, self.config)
        return None

    def finished(self) -> RunResult | None:
        """Read the result of the run in the folder, if it is over.

        Raises:
            ValueError: The run in it has other options.
        """
        path = self.path / RESULT_FILE
        if not path.is_file():
            return None
        self._check_same()
        return RunResult(out=self.path, **json.loads(path.read_text(encoding="utf-8")))

    def finish(self, result: RunResult) -> None:
        """Write the result, and remove the states, which nobody goes on from any more."""
        content = {name: value for name, value in asdict(result).items() if name != "out"}
        with replacing(self.path / RESULT_FILE) as temporary:
            temporary.write_text(to_json(content), encoding="utf-8")
        self.states.remove()

    def diverged(self, message: str) -> None:
        """Note that the training diverged."""
        with replacing(self.path / DIVERGED_FILE) as temporary:
            temporary.write_text(f"{printable(message)}\n", encoding="utf-8")

    def _check_same(self) -> None:
        """Refuse to go on with a run under options that would have made another run of it."""
        stored = flat(read_recipe(self.path / CONFIG_FILE))
        for name, value in flat(_plain(self.config)).items():
            if name in stored and stored[name] != value and name not in CHANGEABLE:
                raise ValueError(
                    f"the run in {self.path} has {name} {stored[name]}, not {value}: it goes on with the options that "
                    "it was started with. Choose another folder with --out for another run"
                )


def write_config(path: Path, config: TrainConfig) -> None:
    """Write `config` as a YAML file that `rmiseg train` takes as a recipe."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(config), sort_keys=False), encoding="utf-8")


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The options by way of JSON, which turns tuples into the lists that YAML has."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain
