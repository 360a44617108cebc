"""A folder keeps what a run made, whatever happened to it."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rmiseg.runtime.checksums import sealed
from rmiseg.runtime.files import leftovers, locked, replacing, to_json
from rmiseg.training.run_folder import RunFolder
from rmiseg.training.trainer import Trainer
from support.faults import configuration, train

pytestmark = pytest.mark.usefixtures("small_model")


def fit(config, **options):
    console = Console(width=2000)
    return Trainer(replace(config, **options), console=console).fit()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unchanged(before: dict[str, bytes], folder: Path) -> bool:
    after = content(folder)
    return {name: after.get(name) for name in before if name != ".lock"} == {
        name: value for name, value in before.items() if name != ".lock"
    }


@pytest.mark.slow
def test_checkpoints_without_a_state_are_not_touched(data, tmp_path):
    """Such as of a quota between the sizes of checkpoint and state, or a result.json that was lost."""
    config = configuration(data, tmp_path / "run")
    fit(config)
    (tmp_path / "run" / "result.json").unlink()
    before = content(tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"no training state to go on from and no result\.json.*Nothing was"):
        fit(config)
    assert unchanged(before, tmp_path / "run")
    assert fit(config, out=str(tmp_path / "new"), init=str(tmp_path / "run")).steps == 4


@pytest.mark.slow
def test_states_that_cannot_be_read_are_not_touched(data, tmp_path):
    config = configuration(data, tmp_path / "run")
    assert train(config, "step 4") == [-9]
    for path in (tmp_path / "run").glob("checkpoints/resume/*.pt"):
        path.write_bytes(b"damaged")
    before = content(tmp_path / "run")
    with pytest.raises(ValueError, match=r"none of the training states in .*Nothing was touched"):
        fit(config)
    assert unchanged(before, tmp_path / "run")


HUGE = '{"last": {}, "best": {}, "steps": 1e999, "peak_memory": 1, "seconds_per_step": 1}'


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"last": 3}', '{"last": {}, "best": {}, "steps": "many"}', "\0", HUGE]
)
def test_damaged_result(data, tmp_path, content):
    out = tmp_path / "run"
    out.mkdir()
    trainer = Trainer(configuration(data, out))
    with ExitStack() as stack:
        RunFolder(trainer.config).open(
            stack, Console(quiet=True), *trainer._data(trainer.config, Console(quiet=True))[1:]
        )
    (out / "result.json").write_text(content)
    with pytest.raises(ValueError, match=r"result\.json cannot be read as the result of a run"):
        fit(configuration(data, out))
    assert (out / "result.json").read_text() == content


def test_scores_without_a_value_are_read_back(data, tmp_path):
    fit(configuration(data, tmp_path / "run"))
    path = tmp_path / "run" / "result.json"
    content = {**json.loads(path.read_text()), "last": {"mean_iou": None}, "seconds_per_step": None}
    path.write_text(to_json(sealed({name: value for name, value in content.items() if name != "crc32"})))
    result = fit(configuration(data, tmp_path / "run"))
    assert result.last["mean_iou"] != result.last["mean_iou"]


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_curves_of_a_run_without_a_state_are_set_aside(data, tmp_path, capsys, resume):
    out = tmp_path / "run"
    config = configuration(data, out, checkpoint_every=None)
    assert train(config, "step 2") == [-9]
    with open(out / "curves.csv", "a") as file:
        file.write("".join(f"{step},train/loss,1.5\n" for step in range(1, 20)))
    before = (out / "curves.csv").read_bytes()
    fit(config, resume=resume)
    assert (out / "set-aside-1" / "curves.csv").read_bytes() == before
    assert (out / "set-aside-1" / "config.yaml").is_file()
    assert f"its curves are in {out / 'set-aside-1'}" in capsys.readouterr().out
    assert b"1.5\n" not in (out / "curves.csv").read_bytes()


@pytest.mark.slow
def test_killed_while_the_first_file_is_written(data, tmp_path):
    """config.yaml does not exist yet, but something of it does."""
    out = tmp_path / "run"
    config = configuration(data, out, epochs=1)
    for _ in range(2):
        assert train(config, "rename 1") == [-9]
        assert [path.name.split(".")[1] for path in leftovers(out)] == ["config"]
    assert train(config) == [0]
    assert not leftovers(out)
    again = configuration(data, tmp_path / "other", epochs=1)
    assert train(again, "rename 1") == [-9]
    assert fit(again, resume="never").steps == 2


def test_a_folder_of_something_else_is_refused(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("...")
    before = content(tmp_path / "run")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        fit(configuration(data, tmp_path / "run"))
    assert content(tmp_path / "run") == before


def test_symbolic_links_to_nowhere_are_not_followed(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(FileExistsError, match=r"is a symbolic link to .*elsewhere, where there is nothing"),
        replacing(link),
    ):
        raise AssertionError
    with pytest.raises(OSError, match="link"), locked(link):
        raise AssertionError
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "elsewhere").write_text("old")
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "new"


@pytest.mark.parametrize("name", ["a", "b" * 255, "ü" * 127, "x.1.tmp"])
def test_names_of_any_length_are_written(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("new")
        assert leftovers(tmp_path) == leftovers(tmp_path, [name]) == [temporary]
        assert leftovers(tmp_path, ["another"]) == []
    assert os.listdir(tmp_path) == [name]
