"""Plans that a stranger wrote, or a slip of the keyboard: each refused in words, and none leads out of its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from rmiseg.experiment.plan import read_plan
from rmiseg.experiment.timing import Seconds, find_or_time
from rmiseg.experiment.trainings import _claim
from rmiseg.runtime.files import locked
from rmiseg.training.run_folder import LOCK_FILE
from support.launch import run

METHODS = "methods: {CE: {}, RMI: {}}\n"
MANY = ", ".join(f"o.p{number}: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]" for number in range(12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("baseline: [CE]", "baseline .* is none of the methods"),
        (f"baseline: {9000 * 'x'}", "baseline 'xxx"),
        (f"seeds: {9000 * 'x'}", "`seeds` must be a list"),
        ("sweep: {3: [1]}", "`sweep` must map names"),
        ("sweep: {seed: [1, 2]}", "`sweep` cannot vary seed"),
        ("sweep: {out: [/etc/x]}", "`sweep` cannot vary out"),
        ("sweep: {optim.lr: [0.1, 0.1]}", "is a value given twice"),
        (f"sweep: {{{MANY}}}", "it is a plan of 2000000000000 runs, and may be one of 1000"),
        ("crf: {CE: [99999999999999999999]}", "each at most 10000"),
        ("published: {CE: true}", "no percent"),
        ("predict: {split: ../.., write: voc, methods: {CE: [0]}}", "which is no split"),
        ("predict: {split: test, write: ../x, methods: {CE: [0]}}", "must write one of"),
        ("recipe: [a]", "`recipe` must be the name of a recipe"),
        ("recipe: .", "is no folder of a run"),
        ("recipe: my.yaml\ntrain: [1]", "the options of train must be a mapping"),
        (f"recipe: {5000 * 'x'}", "does not exist"),
    ],
)
def test_refused(tmp_path, text, message):
    plan = tmp_path / "plan.yaml"
    plan.write_text(METHODS + text)
    with pytest.raises(ValueError, match=message) as raised:
        read_plan(plan)
    assert str(plan) in str(raised.value)
    assert len(str(raised.value)) < 2000


def test_no_value_leads_out_of_the_folder(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"{METHODS}sweep: {{init: [../../../etc/x, /etc/x, '..', {300 * 'x'}]}}\n")
    names = [run.name for run in read_plan(plan).all_runs()]
    assert len(set(names)) == 8
    for name in names:
        assert len(Path(name).parts) == 2
        assert len(name) < 100
        assert ".." not in Path(name).parts


def test_a_training_that_goes_on_without_its_experiment_is_waited_for(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run" / LOCK_FILE):
        assert run(_claimed, recipe, False) == [0]
    assert run(_claimed, recipe, True) == [0]


def _claimed(recipe: Path, free: bool) -> None:
    claim = _claim(recipe)
    assert (claim is not None) == free
    if not free:  # and nothing is held meanwhile
        with locked(recipe.with_name(".claim")):
            pass


@pytest.mark.parametrize("text", ["[", "3", '{"CE": 3}', '{"CE": {}}', '{"CE": {"step": "x", "image": 1}}'])
def test_times_that_are_none(tmp_path, text):
    (tmp_path / "seconds.json").write_text(text)
    with pytest.raises(ValueError, match=r"seconds\.json holds no times"):
        find_or_time({"CE": None}, tmp_path / "seconds.json", Console(quiet=True))
    (tmp_path / "seconds.json").write_text(json.dumps({"CE": {"step": 1, "image": 2}}))
    found = find_or_time({"CE": None}, tmp_path / "seconds.json", Console(quiet=True))
    assert found == {"CE": Seconds(1.0, 2.0)}
