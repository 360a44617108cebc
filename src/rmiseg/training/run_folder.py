"""The folder of a run: its files, who may write to it, and how a run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from rmiseg.config import TrainConfig
from rmiseg.config.recipes import CONFIG_FILE, flat, read_recipe, shortened
from rmiseg.data import LabeledImages
from rmiseg.data.fingerprint import changes, fingerprints
from rmiseg.evaluation.results import EVALUATIONS, FILES
from rmiseg.inference.checkpoint import CHECKPOINTS
from rmiseg.runtime.checksums import sealed, unsealed
from rmiseg.runtime.distributed import is_main
from rmiseg.runtime.files import leftovers, locked, printable, read_json, to_json, write_text
from rmiseg.runtime.places import check_places, check_room, writable_folder
from rmiseg.runtime.signals import Preempted
from rmiseg.training.loggers.base import EVENT_FILES
from rmiseg.training.loggers.table import CURVES_FILE
from rmiseg.training.state import STATES, SavedState, StateFolder
from rmiseg.training.stored_options import plain_options, stored_options, with_defaults, write_config

SET_ASIDE = "set-aside"
"""Beginning of the names of the folders that curves go to where a run starts over; a number follows."""
NO_VALUES = 200
"""Size in bytes up to which a file of curves holds no values."""

RESULT_FILE, DIVERGED_FILE, LOCK_FILE = "result.json", "diverged.txt", ".lock"

BALANCED = "balanced"
"""Value of loss.class_weights in whose place the run has numbers, which follow from its data."""

CHANGEABLE = {
    *("out", "resume", "device", "plan", "made_with", "data.root", "data.workers", "data.on_error"),
    *("train.strategy", "train.compile", "train.val_every", "train.log_every", "train.panels", "train.keep"),
    *("train.checkpoint_every", "train.max_skipped", "train.patience", "train.metrics", "train.loggers"),
}
"""Options that may change when a run goes on: the others make another training of it."""

CHOSEN = ("data.bands", "data.value_range", "data.picture")
"""Options that the data decide, where nothing is asked for."""


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
        scope: The classes that mean IoUs are the mean of, in words, if they are not all; see `Scores.scope`.
    """

    out: Path
    steps: int
    seconds_per_step: float
    peak_memory: int
    last: dict[str, float]
    best: dict[str, float]
    scope: str = ""

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """Read the file of a result; see `read_result`."""
        return read_result(path)[0]

    @property
    def scores(self) -> dict[str, float]:
        """Validation scores of the checkpoint that `Predictor.from_run(result.out)` takes: the best one."""
        return self.best or self.last


class RunFolder:
    """The files of one run.

    Args:
        config: The options of the run, complete.
        asked: The same with what follows from the data left open, such as balanced class weights.

    Attributes:
        options: The same, plain values by dotted names.
        path: The folder.
        checkpoints: Folder of the checkpoints in it.
        states: States to go on from.
        is_there: Returns whether the folder is still where it was opened.
    """

    def __init__(self, config: TrainConfig, asked: TrainConfig | None = None) -> None:
        self.config = config
        self.options = flat(plain_options(config))
        self.asked = flat(plain_options(asked or config))
        self.path = Path(config.out)
        self.checkpoints = self.path / CHECKPOINTS
        self.states = StateFolder(self.checkpoints / STATES)

    def open(self, stack: ExitStack, console: Console, train: LabeledImages, val: LabeledImages) -> SavedState | None:
        """Make the folder, or go on with the one that is there: its last state. It is locked until `stack` ends.

        Curves of a run that ended before its first state are set aside; nothing that a run made is removed.

        Args:
            stack: See above.
            console: Where to say what is going on.
            train: The images to train on.
            val: The images to score on.

        Raises:
            FileExistsError: The folder holds something else, or checkpoints without a state to go on from.
            BlockingIOError: Another process writes to it.
            ValueError: The run in it has other options or data, or its files are damaged.
        """
        self._check()  # before anything is touched
        writable_folder(self.path)
        self.is_there = stack.enter_context(locked(self.path / LOCK_FILE))
        self._check()  # by now another process may have been here
        self.data = fingerprints(self.config.data, train, val)
        for folder in (self.path, self.checkpoints, self.states.path):
            for file in leftovers(folder):  # of processes that were killed
                file.unlink()
        state = self.states.load(console) if self._goes_on() else None
        if state is not None:
            self._compare_data(state.data, console)
            self._compare(state.options, self.options if self.config.resume == "auto" else self.asked)
            (self.path / DIVERGED_FILE).unlink(missing_ok=True)  # this time may be another
            return state
        if made := sorted(self.checkpoints.glob("*.pt")):
            raise FileExistsError(
                f"{self.path} holds checkpoints, such as {made[-1].name}, but no training state to go on from and no "
                f"{RESULT_FILE}: either its training was over, or no state could be saved. Nothing was touched. Its "
                f"checkpoints can be used as they are; choose another folder with --out to train again, with --init "
                f"{self.path} from these weights"
            )
        self._set_aside(console)
        write_config(self.path / CONFIG_FILE, self.config)
        return None

    def class_weights(self, count: int) -> list[float] | None:
        """The weights of so many classes that the run in the folder has, if it goes on as it was started.

        Whether its images are still the same is seen when it is opened.
        """
        if self.config.resume != "auto" or not self._goes_on() or not self.states.files():
            return None
        weights = stored_options(self.path).get("loss.class_weights")
        return weights if isinstance(weights, list) and len(weights) == count else None

    def to_build(self) -> TrainConfig:
        """The options to build the network with: one that goes on has its weights, and those of `init` may be gone."""
        return replace(self.config, init=None) if self._goes_on() and self.states.files() else self.config

    def _goes_on(self) -> bool:
        return self.config.resume != "never" and (self.path / CONFIG_FILE).is_file()

    def _check(self) -> None:
        """See whether a run can be started in the folder, or gone on with; see `open`."""
        self._check_places()
        if self._goes_on():
            self._check_same()
        self.check_free()

    def check_room(self) -> None:
        """See whether a run can be started in the folder, or gone on with, as far as its files tell.

        Raises:
            OSError: As `check_free`, or nothing can be written to it.
        """
        check_room(self.path)
        self.check_free()

    def check_free(self) -> None:
        """See whether the folder has room for a run that starts; nothing is asked of one that goes on.

        Raises:
            FileExistsError: There is something else in it.
            OSError: A file is in the place of one of its folders, or a folder in that of a file.
        """
        self._check_places()
        if self._goes_on():
            return
        out = self.path
        own = {CONFIG_FILE, LOCK_FILE, DIVERGED_FILE, CHECKPOINTS, *(path.name for path in self._curves())}
        own |= {path.name for path in [*leftovers(out), *out.glob(f"{SET_ASIDE}-*")]}
        foreign = out.exists() and (not out.is_dir() or bool({path.name for path in out.iterdir()} - own))
        if foreign or any(out.glob(f"{CHECKPOINTS}/**/*.pt")):
            raise occupied(out, (out / CONFIG_FILE).is_file())

    def _check_places(self) -> None:
        names = CONFIG_FILE, CURVES_FILE, RESULT_FILE, DIVERGED_FILE, LOCK_FILE
        evaluations = list(self.path.glob(f"{EVALUATIONS}/*"))
        check_places(
            [self.path, self.states.path, self.path / EVALUATIONS, *evaluations],
            [
                *(self.path / name for name in names),
                *self.checkpoints.glob("*.pt"),
                *(folder / name for folder in evaluations for name in FILES),
            ],
        )

    def _curves(self) -> list[Path]:
        return [path for path in (*self.path.glob(EVENT_FILES), self.path / CURVES_FILE) if path.exists()]

    def _set_aside(self, console: Console) -> None:
        """Make room for a run that starts over: move the curves of an earlier one, if they hold anything."""
        curves = self._curves()
        if all(path.stat().st_size <= NO_VALUES for path in curves):
            for path in [*curves, self.path / DIVERGED_FILE]:
                path.unlink(missing_ok=True)
            return
        place = next(path for n in count(1) if not (path := self.path / f"{SET_ASIDE}-{n}").exists())
        place.mkdir()
        for path in [*curves, self.path / DIVERGED_FILE, self.path / CONFIG_FILE]:
            if path.exists():
                path.rename(place / path.name)
        console.print(
            f"The training in {self.path} ended before its first state was saved, and starts over; its curves are in "
            f"{place}",
            markup=False,
        )

    def finished(self) -> RunResult | None:
        """Read the result of the run in the folder, if it is over.

        Raises:
            ValueError: The run in it has other options, or its result is damaged.
        """
        path = self.path / RESULT_FILE
        if not path.is_file():
            return None
        self._check_same()
        result, options = read_result(path)
        self._compare(options, self.asked)
        return result

    def finish(self, result: RunResult) -> None:
        """Write the result, and remove the states, which nobody goes on from any more."""
        write_result(self.path / RESULT_FILE, result, {"options": self.options})
        self.states.remove()

    def check_there(self) -> None:
        """See whether the folder is still the one that was opened.

        Raises:
            FileNotFoundError: It was removed, moved or replaced.
        """
        if not self.is_there():
            raise FileNotFoundError(
                f"the folder {self.path} of the run was removed, moved or replaced while it was training. What is left "
                "of it is as it was; the training has ended, since nothing that it makes could be found there"
            )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Have an error of writing say so, if the folder is gone: whoever writes may notice before `check_there`."""
        try:
            yield
        except OSError:
            if is_main():
                self.check_there()
            raise

    @contextmanager
    def interruptible(self, console: Console) -> Iterator[None]:
        """Have a training that is interrupted, or asked to end, say how it goes on."""
        try:
            yield
        except (KeyboardInterrupt, Preempted):
            if is_main() and self.states.files():
                console.print("The training is saved: the same command with --resume auto goes on")
            raise

    def save_state(self, state: SavedState) -> None:
        """Write a state, with the options and the data of the run.

        Raises:
            OSError: It could not be written.
        """
        self.states.save(replace(state, options=self.options, data=self.data))

    def diverged(self, message: str) -> None:
        """Note that the training diverged."""
        write_text(self.path / DIVERGED_FILE, f"{printable(message)}\n")

    def _check_same(self) -> None:
        """Refuse to go on with a run under options that would have made another run of it."""
        path = self.path / CONFIG_FILE
        stored = stored_options(self.path)
        if not flat(read_recipe(path)):
            raise ValueError(
                f"{path} is empty, so that nothing says which run this is. Put a copy of it back, or the recipe that "
                "the run was started with; or choose another folder with --out"
            )
        self._compare(stored, self.asked)

    def _compare(self, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        stored = with_defaults(stored)
        for name, value in wanted.items():
            decided = value == BALANCED or (name in CHOSEN and value is None)  # by the data
            before = stored.get(name, value)
            if before != value and name not in CHANGEABLE and not decided:
                raise ValueError(
                    f"the run in {self.path} has {name} {shortened(str(before))}, not {shortened(str(value))}: "
                    "it goes on with the options that it was started with. Choose another folder with --out for "
                    "another run"
                )

    def _compare_data(self, before: Mapping[str, Any], console: Console) -> None:
        """Refuse to go on with other images, unless that is asked for."""
        now = self.data
        if (change := changes(before, now)) is None:
            return
        if self.config.resume != "changed":
            raise ValueError(
                f"the data of the run in {self.path} have changed: {change}. Give --resume changed to go on with them "
                "as they are now, or choose another folder with --out"
            )
        if any(len(before[split]["classes"]) != len(now[split]["classes"]) for split in before if split in now):
            raise ValueError(f"the run in {self.path} cannot go on: {change}")
        console.print(f"warning: the data have changed: {change}. The training goes on with them", markup=False)


@contextmanager
def going_on_without(console: Console) -> Iterator[None]:
    """Warn of a file that cannot be written: no reason to stop a training while the one before it is whole."""
    try:
        yield
    except OSError as error:
        console.print(f"warning: {error}. The training goes on; the file before it is whole", markup=False)


def occupied(out: Path, can_go_on: bool) -> FileExistsError:
    """The error that something else is in the folder of a run, or one that could go on and is not asked to."""
    advice = ", go on with it with --resume auto" if can_go_on else ""
    return FileExistsError(f"{out} exists and is not empty; choose another folder with --out{advice}, or remove it")


def write_result(path: Path, result: RunResult, more: Mapping[str, Any]) -> None:
    """Write a result and what else is to be known of it, with a checksum."""
    content = {name: value for name, value in asdict(result).items() if name != "out"} | {**more}
    write_text(path, to_json(sealed(content)))


def read_result(path: Path) -> tuple[RunResult, dict[str, Any]]:
    """The result that a file holds, and the options of the run by their dotted names.

    Raises:
        ValueError: It is damaged.
    """
    try:
        content = unsealed(read_json(path))
        scores = {name: {key: _number(score) for key, score in content[name].items()} for name in ("last", "best")}
        steps, memory, seconds = int(content["steps"]), int(content["peak_memory"]), content["seconds_per_step"]
        options = {str(name): value for name, value in content.get("options", {}).items()}
        scope = str(content.get("scope", ""))
        return RunResult(path.parent, steps, _number(seconds), memory, **scores, scope=scope), options
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        why = shortened(str(error)) if type(error) is ValueError else "it lacks something, or holds it in another way"
        raise ValueError(
            f"{path} cannot be read as the result of a run ({why}). The run is over, and its "
            "checkpoints can be used as they are; choose another folder with --out to train again"
        ) from error


def _number(value: Any) -> float:
    """A number of a JSON file, in which what is not a number is null."""
    return math.nan if value is None else float(value)
