"""What happens to a training is said in a sentence, and its curves stay in order."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rmiseg import Callback
from rmiseg.training.loggers.event_files import EventFileLogger, read_event_files
from rmiseg.training.trainer import Trainer
from support.faults import configuration

pytestmark = pytest.mark.usefixtures("small_model")


class At(Callback):
    """Does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, run, outcome):
        if run.state.step == self.step:
            self.action(run)


def fit(config, *callbacks, **options):
    return Trainer(replace(config, **options), callbacks=callbacks, console=Console(quiet=True)).fit()


@pytest.mark.slow
def test_a_process_that_reads_images_is_killed(data, tmp_path):
    def kill(run):
        for worker in run.batches._iterator._workers:
            os.kill(worker.pid, signal.SIGKILL)

    config = configuration(data, tmp_path / "run", {"workers": 1})
    with pytest.raises(ChildProcessError, match=r"a process that reads images has died .* Fewer data\.workers"):
        fit(config, At(1, kill))
    assert fit(config).steps == 4


@pytest.mark.parametrize("again", [False, True])
def test_the_folder_is_removed(data, tmp_path, again):
    """Or another is in its place: nothing is written into that."""

    def remove(run):
        shutil.rmtree(run.out)
        if again:
            run.out.mkdir()

    with pytest.raises(FileNotFoundError, match=r"run was removed, moved or replaced while it was training"):
        fit(configuration(data, tmp_path / "run"), At(1, remove))
    assert [*tmp_path.rglob("*")] == [tmp_path / "run"] * again


def test_the_folder_is_moved(data, tmp_path):
    config = configuration(data, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="was removed, moved or replaced"):
        fit(config, At(3, lambda run: run.out.rename(tmp_path / "moved")))
    assert fit(config, out=str(tmp_path / "moved")).steps == 4


def test_the_clock_is_set_back(tmp_path, monkeypatch):
    clock = 1_700_000_000.0
    for times, steps in enumerate((range(6), range(4, 9), range(8, 12))):
        monkeypatch.setattr(time, "time", lambda now=clock - 5000 * times: now)
        logger = EventFileLogger()
        logger.open(tmp_path, {}, steps[0] if times else None)
        for step in steps:
            logger.scalars(step, {"loss": step + 100 * times})
        logger.close()
    expected = [(step, step + 100 * (0 if step < 4 else 1 if step < 8 else 2)) for step in range(12)]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == expected
    assert read_event_files(tmp_path)["loss"] == tuple(map(list, zip(*expected)))


def test_files_of_systems_among_the_states(data, tmp_path):
    """As of folders that were looked at in Windows, or on network drives."""
    states = tmp_path / "run" / "checkpoints" / "resume"
    config = configuration(data, tmp_path / "run")
    assert fit(config, At(3, lambda run: (states / "Thumbs.db").write_bytes(b""))).steps == 4
    assert [path.name for path in states.iterdir()] == ["Thumbs.db"]
    assert (tmp_path / "run" / "result.json").is_file()
