"""Whatever happens to a training, the same command again leads to the same weights, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from faults import arguments, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import write_shapes
from rmiseg.cli import main
from rmiseg.engine.state import StateFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data"), count=16)  # 13 to train on


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert train(arguments(data, out, train__checkpoint_every="100")) == [0]
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
    out = tmp_path / "run"
    faults = ["step 1", "step 2", "write 1", "step 3", "rename 1", "write 2", "rename 2", "terminate 1", "rename 3"]
    statuses = [train(arguments(data, out), fault)[0] for fault in faults]
    assert statuses == [75 if fault.startswith("terminate") else -9 for fault in faults]
    assert train(arguments(data, out)) == [0]
    assert_same_run(out, undisturbed)


def test_two_processes(data, tmp_path):
    options = {"data__workers": "1", "train__epochs": "1"}
    assert train(arguments(data, tmp_path / "a", **options), processes=2) == [0, 0]
    assert train(arguments(data, tmp_path / "b", **options), "step 3", processes=2) == [-9, -9]
    assert train(arguments(data, tmp_path / "b", **options), processes=2) == [0, 0]
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_damaged_state_is_skipped_for_the_one_before(data, undisturbed, tmp_path, capsys):
    out, log = tmp_path / "run", tmp_path / "log"
    assert train(arguments(data, out, train__checkpoint_every="1"), "step 3") == [-9]
    newest, older = StateFolder(out / "checkpoints" / "resume").files()
    newest.write_bytes(newest.read_bytes()[:-1000])
    shutil.copytree(out, tmp_path / "worse")
    assert train(arguments(data, out), log=str(log)) == [0]
    text = " ".join(log.read_text().split())
    assert f"warning: {newest} cannot be read as a checkpoint, it may be cut short" in text
    assert "Going on after step 1" in text
    assert_same_run(out, undisturbed)

    for path in (tmp_path / "worse").glob("checkpoints/resume/*"):
        path.write_bytes(b"")
    assert main(arguments(data, tmp_path / "worse")) == 1
    assert "none of the training states in" in capsys.readouterr().err


def test_full_disk(data, undisturbed, tmp_path):
    """The training goes on while nothing can be saved; at the end that is an error; afterwards it can be mended."""
    out, log = tmp_path / "run", tmp_path / "log"
    assert train(arguments(data, out, train__checkpoint_every="1"), "step 3") == [-9]
    before = {path.name: path.read_bytes() for path in out.glob("checkpoints/resume/*.pt")}
    assert train(arguments(data, out), "full", log=str(log)) == [1]
    text = " ".join(log.read_text().split())
    assert "File too large. The training goes on; the file before it is whole" in text
    assert "error:" in text
    assert "Traceback" not in text
    assert {path.name: path.read_bytes() for path in out.glob("checkpoints/resume/*.pt")} == before
    assert train(arguments(data, out)) == [0]
    assert_same_run(out, undisturbed)


def test_folders_that_are_not_gone_on_with(data, undisturbed, capsys):
    before = weights(undisturbed)
    assert main(arguments(data, undisturbed, train__checkpoint_every="100")) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(arguments(data, undisturbed, optim__lr="0.01")) == 1
    assert "has optim.lr 0.02, not 0.01" in capsys.readouterr().err
    assert main(arguments(data, undisturbed, resume="never")) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(undisturbed).items())
