"""The folder of a run: who may write to it, and how a run goes on."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.inference.checkpoint import CHECKPOINTS
from rmiseg.runtime.files import locked, replacing
from rmiseg.training.state import StateFolder, TrainingState

CONFIG_FILE, RESULT_FILE, DIVERGED_FILE, LOCK_FILE = "config.yaml", "result.json", "diverged.txt", ".lock"

CHANGEABLE = {
    *("out", "resume", "device", "data.root", "data.workers", "train.strategy", "train.compile"),
    *("train.val_every", "train.log_every", "train.panels", "train.keep", "train.checkpoint_every"),
    *("train.max_skipped", "data.on_error"),
}
"""Options that may change when a run goes on: the others make another training of it."""


@dataclass(frozen=True)
class RunResult:
    """What `result.json` in a run's folder holds once the run is over.

    Attributes:
        steps: Optimizer steps taken.
        seconds_per_step: Median time of a step, without loading data.
        peak_memory: Most memory held at once, in bytes: of the GPU, or of the whole process on a CPU.
        last: Validation scores at the end, by name.
        best: Validation scores of the best checkpoint.
    """

    steps: int
    seconds_per_step: float
    peak_memory: int
    last: dict[str, float]
    best: dict[str, float]


def open_run_folder(
    config: TrainConfig, states: StateFolder, stack: ExitStack, console: Console
) -> TrainingState | None:
    """Make the folder of the run, or go on with the one that is there: its last state. It is locked until `stack` ends.

    What is left of a run that ended before its first state is replaced.
    """
    out = Path(config.out)
    events = list(out.glob("events.out.tfevents.*"))
    leftovers = {*events, *(out / name for name in (CONFIG_FILE, LOCK_FILE, DIVERGED_FILE, CHECKPOINTS))}
    foreign = out.exists() and (not out.is_dir() or bool(set(out.iterdir()) - leftovers))
    resumed = config.resume == "auto" and (out / CONFIG_FILE).is_file()
    if resumed:
        _check_same(config)
    elif foreign or any(out.glob(f"{CHECKPOINTS}/**/*.pt")):
        advice = ", go on with it with --resume auto" if (out / CONFIG_FILE).is_file() else ""
        raise FileExistsError(f"{out} exists and is not empty; choose another folder with --out{advice}, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    stack.enter_context(locked(out / LOCK_FILE))
    (out / DIVERGED_FILE).unlink(missing_ok=True)  # this time may be another
    if resumed:
        state = states.load(console)
        for path in out.glob(f"{CHECKPOINTS}/**/.*.tmp"):  # of processes that were killed
            path.unlink()
        if state is not None:
            return state
    for file in [*events, *out.glob(f"{CHECKPOINTS}/*.pt")]:
        file.unlink()
    write_config(out / CONFIG_FILE, config)
    return None


def finished_result(config: TrainConfig) -> RunResult | None:
    """The result of the run in the folder `config.out`, if it is over."""
    path = Path(config.out) / RESULT_FILE
    if not path.is_file():
        return None
    _check_same(config)
    return RunResult(**json.loads(path.read_text()))


def write_config(path: Path, config: TrainConfig) -> None:
    """Write `config` as a YAML file that `rmiseg train` takes as a recipe."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(config), sort_keys=False))


def _check_same(config: TrainConfig) -> None:
    """Refuse to go on with a run under options that would have made another run of it."""
    stored = _flat(yaml.safe_load((Path(config.out) / CONFIG_FILE).read_text()))
    for name, value in _flat(_plain(config)).items():
        if name in stored and stored[name] != value and name not in CHANGEABLE:
            raise ValueError(
                f"the run in {config.out} has {name} {stored[name]}, not {value}: it goes on with the options that it "
                "was started with. Choose another folder with --out for another run"
            )


def _plain(config: TrainConfig) -> dict[str, Any]:
    """By way of JSON, which turns tuples into the lists that YAML has."""
    return json.loads(json.dumps(asdict(config)))


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
