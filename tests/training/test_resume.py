"""Whatever happens to a training, the same command again leads to the same weights, bit for bit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rmiseg.config import OptimConfig
from rmiseg.training.state import StateFolder
from rmiseg.training.trainer import Trainer
from support.faults import configuration, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert train(configuration(data, out, checkpoint_every=100)) == [0]
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["weights"]


def assert_same_run(run: Path, other: Path) -> None:
    first, second = weights(run), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, other)]
    assert [results[0][name] for name in ("steps", "last", "best")] == [
        results[1][name] for name in ("steps", "last", "best")
    ]
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*.pt")) for folder in (run, other)]
    assert names[0] == names[1]
    assert not [*run.rglob("*.tmp"), *run.rglob("resume/*")]
    curves = [curve(folder) for folder in (run, other)]
    assert curves[0] == curves[1]


def curve(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in ("train/loss", "val/mIoU")}


def test_kills_and_termination(data, undisturbed, tmp_path):
    config = configuration(data, tmp_path / "run")
    faults = ["step 2", "write 1", "rename 2", "terminate 1"]
    statuses = [train(config, fault, log=tmp_path / "log")[0] for fault in faults]
    assert statuses == [75 if fault.startswith("terminate") else -9 for fault in faults]
    assert "the same command with --resume auto goes on" in (tmp_path / "log").read_text()
    assert train(config) == [0]
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_run_of_an_older_version_goes_on_with_its_schedule(data, tmp_path):
    """Its config.yaml does not say to which rate the warmup rises; it rises to the curve, as it did then."""
    optim = OptimConfig(lr=0.05, warmup_steps=3, warmup_to="curve")
    config = replace(configuration(data, tmp_path / "run"), optim=optim)
    assert train(replace(config, out=str(tmp_path / "whole"))) == [0]
    assert train(config, "step 3")[0] == -9
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("  warmup_to: curve\n", ""))
    assert train(replace(config, optim=replace(optim, warmup_to="lr"))) == [0]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_goes_on_without_the_weights_that_it_began_with(data, undisturbed, tmp_path, capsys):
    first = tmp_path / "first.pt"
    first.write_bytes((undisturbed / "checkpoints" / "last.pt").read_bytes())
    config = replace(configuration(data, tmp_path / "run"), init=str(first))
    assert train(replace(config, out=str(tmp_path / "whole"))) == [0]
    assert train(config, "step 3")[0] == -9
    first.rename(tmp_path / "elsewhere.pt")
    assert train(config) == [0]
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert train(replace(config, out=str(tmp_path / "new"))) == [1]  # which begins with them


def test_evaluated_in_between(data, undisturbed, tmp_path):
    config = configuration(data, tmp_path / "run")
    assert train(config, "step 3") == [-9]
    (tmp_path / "run" / "evaluation" / "val").mkdir(parents=True)
    (tmp_path / "run" / "evaluation" / "val" / "scores.json").write_text("{}")
    assert train(config) == [0]
    assert_same_run(tmp_path / "run", undisturbed)


HOLD = """
import sys
from pathlib import Path
from rmiseg.runtime.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_folder_in_use(data, tmp_path):
    """Such as by processes that torchrun left alone when it was killed: they go on."""
    config = configuration(data, tmp_path / "run")
    assert train(config, "step 2") == [-9]
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        assert train(config, log=tmp_path / "log") == [1]
        assert f"run is in use by process {other.pid} on" in (tmp_path / "log").read_text()
        (tmp_path / "log").unlink()
        assert sorted(tmp_path.rglob("*")) == before
        other.kill()
    assert train(config) == [0]


def test_two_processes(data, tmp_path):
    configs = [configuration(data, tmp_path / name, {"workers": 1}, epochs=1) for name in "ab"]
    assert train(configs[0], processes=2) == [0, 0]
    assert train(configs[1], "step 2", processes=2) == [-9, -9]
    assert train(configs[1], processes=2) == [0, 0]
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_damaged_state_is_skipped_for_the_one_before(data, undisturbed, tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    config = configuration(data, out)
    assert train(config, "step 3") == [-9]
    newest, older = StateFolder(out / "checkpoints" / "resume").files()
    newest.write_bytes(newest.read_bytes()[:-1000])
    whole = {path: path.read_bytes() for path in (newest, older)}
    for path in whole:
        path.write_bytes(b"")
    assert train(config, log=log) == [1]
    assert "none of the training states in" in " ".join(log.read_text().split())
    for path, content in whole.items():
        path.write_bytes(content)
    assert train(config, log=log) == [0]
    text = "".join(log.read_text().split())
    assert f"warning:{newest}cannotbereadasacheckpoint,itmaybecutshort" in text
    assert "Goingonafterstep1" in text
    assert_same_run(out, undisturbed)


def test_full_disk(data, undisturbed, tmp_path):
    """The training goes on while nothing can be saved; at the end that is an error; nothing that was there is lost."""
    out, log = tmp_path / "run", tmp_path / "log"
    config = configuration(data, out)
    assert train(config, "step 2") == [-9]
    before = {path.name: path.read_bytes() for path in out.glob("checkpoints/resume/*.pt")}
    assert len(before) == 1
    assert train(config, "full 100000", log=log) == [1]
    text = " ".join(log.read_text().split())
    assert re.search(r"warning: .*File too large.* The training goes on; the file before it is whole", text)
    assert re.search(r"error: .*last\.pt could not be written: .*File too large", text)
    assert {path.name: path.read_bytes() for path in out.glob("checkpoints/resume/*.pt")} == before
    assert train(config) == [0]
    assert_same_run(out, undisturbed)


def test_folders_that_are_not_gone_on_with(data, undisturbed, capsys, small_model):
    config = configuration(data, undisturbed, checkpoint_every=100)
    before = (undisturbed / "result.json").read_text()
    Trainer(config, console=Console()).fit()
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"has optim\.lr 0\.01, not 0\.02"):
        Trainer(replace(config, optim=OptimConfig(lr=0.02)), console=Console()).fit()
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        Trainer(replace(config, resume="never"), console=Console()).fit()
    assert (undisturbed / "result.json").read_text() == before
