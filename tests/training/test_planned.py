"""Trainings that decide for themselves, from the command line to config.yaml."""

from __future__ import annotations

import re
import shutil
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from miniatures import write_image, write_mask, write_shapes
from rmiseg.cli import main
from rmiseg.planning.pace import Pace
from rmiseg.training import cost
from rmiseg.training.budget import Budget
from rmiseg.training.loop import TrainingRun
from rmiseg.training.trainer import Trainer
from support.commands import error_of, small_recipe

SMALL = ["--model.backbone", "test_efficientnet", "--model.weights", "none"]
SMALL += ["--train.steps", "2", "--device", "cpu"]


def options(run) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.fixture(scope="module")
def planned(shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("planned") / "run"
    assert main(["train", "--data.root", str(shapes), "--out", str(out), *SMALL]) == 0
    return out


@pytest.mark.slow
def test_decisions_are_stored_as_plain_values(planned):
    stored = options(planned)
    assert stored["data"]["crop_size"] == [32, 64]
    assert stored["data"]["repeat"] == 25
    assert len(stored["data"]["options"]["val"]) == 2
    assert stored["model"]["backbone"] == "test_efficientnet"
    assert stored["train"]["steps"] == 2
    assert "given" not in stored


@pytest.mark.slow
def test_a_training_from_the_weights_of_another_has_its_network(planned, shapes, tmp_path, capsys):
    """Whatever the rules would decide now; here the head of another width."""
    length = ["--train.steps", "1", "--device", "cpu"]
    first, second = tmp_path / "first", tmp_path / "second"
    narrow = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--model.options.width", "24"]
    assert main(["train", "--data.root", str(shapes), "--out", str(first), *narrow, *length]) == 0
    capsys.readouterr()
    assert main(["train", "--data.root", str(shapes), "--init", str(first), "--out", str(second), *length]) == 0
    assert options(second)["model"] == options(first)["model"]
    tensors = re.search(r": (\d+) of (\d+) tensors", capsys.readouterr().out)
    assert tensors is not None
    assert tensors[1] == tensors[2]


@pytest.mark.slow
def test_the_stored_options_are_a_recipe_that_repeats_the_run(planned, shapes, tmp_path, capsys):
    again = ["train", str(planned / "config.yaml"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert "because" not in capsys.readouterr().out
    assert options(tmp_path / "again") == {**options(planned), "out": str(tmp_path / "again")}


@pytest.mark.slow
def test_a_run_that_goes_on_decides_nothing_again(planned, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rmiseg.training.planned.decide", lambda *_: pytest.fail("decided again"))
    command = ["train", "--data.root", str(shapes), "--out", str(planned), "--resume", "auto", *SMALL]
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out
    other = [*command[:-4], "--train.steps", "3", "--device", "cpu"]
    assert "has train.steps 2, not 3" in error_of(other, capsys)
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    shutil.copy(planned / "config.yaml", unfinished)
    assert main([*command[:4], str(unfinished), *command[5:]]) == 0
    assert options(unfinished)["data"]["crop_size"] == [32, 64]


@pytest.mark.slow
def test_an_older_run_goes_on_as_it_was(shapes, tmp_path):
    """Its config.yaml says nothing of what came later."""
    recipe = small_recipe(tmp_path, shapes, train={"epochs": 1})
    out = tmp_path / "run"
    assert main(["train", recipe, "--out", str(out), "--train.steps", "1"]) == 0
    stored = options(out)
    for section, name in (("data", "repeat"), ("data", "rare_share"), ("train", "hours"), ("data", "options")):
        del stored[section][name]
    stored["data"]["options"] = {}
    del stored["plan"]
    shutil.rmtree(out)
    out.mkdir()
    (out / "config.yaml").write_text(yaml.safe_dump(stored))
    assert main(["train", "--data.root", str(shapes), "--out", str(out), "--resume", "auto"]) == 0
    assert (out / "result.json").is_file()
    assert main(["train", recipe, "--out", str(out), "--train.steps", "1", "--resume", "auto"]) == 0


@pytest.mark.slow
def test_hours_become_steps(shapes, tmp_path, capsys, monkeypatch):
    """Of a machine that is slower by far, so that there are few."""

    def measured_pace(*arguments):
        assert cost.measured_pace(*arguments).step > 0
        return Pace(step=20.0, evaluation=5.0)

    monkeypatch.setattr("rmiseg.training.planned.measured_pace", measured_pace)
    monkeypatch.setattr(Budget, "follow", lambda budget, step: f"{budget.hours} hours, {budget.steps} steps")
    recipe = small_recipe(tmp_path, shapes)
    out = tmp_path / "run"
    command = ["train", recipe, "--out", str(out), "--train.hours", "0.02"]
    assert main(command) == 0
    stored = options(out)["train"]
    assert stored["hours"] is None
    assert stored["steps"] >= 1
    out_text = capsys.readouterr().out
    assert f"train.steps {stored['steps']}" in out_text
    assert f"0.02 hours, {stored['steps']} steps" in out_text
    assert main([*command, "--resume", "auto"]) == 0
    both = ["train", recipe, "--out", str(tmp_path / "b"), "--train.hours", "1", "--train.steps", "2"]
    assert "not both" in error_of(both, capsys)


def test_a_training_that_will_be_late_says_so():
    seconds = [0.0]
    budget = Budget(hours=1, steps=100, clock=lambda: seconds[0])
    told = []
    for step in range(1, 101):
        seconds[0] += 36 if step < 30 else 108  # from then on three times as slow
        told.append(budget.follow(step))
    (first, text), *others = [(step, each) for step, each in enumerate(told, 1) if each]
    assert 30 < first < 40
    assert "train.hours 1: at the pace so far the 100 steps take 1.1 hours" in text
    assert "begin again with train.steps 88" in text
    assert len(others) == 3  # again at each quarter more, up to 2.4 hours


def test_a_training_in_time_says_nothing():
    seconds = [0.0]
    budget = Budget(hours=1, steps=100, clock=lambda: seconds[0])
    seconds[0] = 600.0  # a slow start
    for step in range(1, 101):
        seconds[0] += 30
        assert budget.follow(step) is None or step < 30


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.slow
def test_few_images(tmp_path, count, capsys):
    root = write_shapes(tmp_path / "data", count=count)
    assert main(["train", "--data.root", str(root), "--out", str(tmp_path / "run"), *SMALL]) == 0
    note = "there is one image to train on" if count == 2 else "there are 4 images to train on"
    assert note in " ".join(capsys.readouterr().out.split())
    assert options(tmp_path / "run")["data"]["batch_size"] == {2: 2, 5: 4}[count]


@pytest.mark.slow
def test_bad_data_are_refused_in_words(tmp_path, capsys):
    def error(root):
        return error_of(["train", "--data.root", str(root), "--out", str(tmp_path / "run"), *SMALL], capsys)

    one = write_shapes(tmp_path / "one", count=1)
    assert "split val of data set folder" in error(one)
    empty = write_shapes(tmp_path / "empty", count=2)
    (empty / "train.txt").write_text("")
    (empty / "val.txt").write_text("shape00\n")
    assert "split train of data set folder" in error(empty)
    ignored = write_shapes(tmp_path / "ignored", count=3)
    for path in (ignored / "masks").glob("*.png"):
        Image.new("L", Image.open(path).size, 255).save(path)
    assert "255" in error(ignored)
    assert not (tmp_path / "run").exists()


def test_data_in_python_are_not_planned(tmp_path):
    images = [(Image.new("RGB", (32, 32)), np.eye(32, dtype=np.uint8))] * 4
    options = {"plan": True, "out": str(tmp_path / "run")}
    trainer = Trainer(options, train=images, val=images, classes=["a", "b"])
    with pytest.raises(ValueError, match="image files"):
        trainer.fit()


@pytest.mark.slow
def test_plan_prints_decisions_and_cost(shapes, tmp_path, capsys):
    arguments = ["--data.root", str(shapes), *SMALL[:4]]
    assert main(["plan", *arguments, "--gpu", "6 GB"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in ("because", "data.crop_size", "million", "steps of 8 images", "fits 4 GB", "a GPU with 6 GB"):
        assert text in out
    assert "24 GB" in error_of(["plan", *arguments, "--gpu", "some"], capsys)
    assert "leave --gpu out" in error_of(["plan", *arguments, "--gpu", "6 GB", "--train.hours", "1"], capsys)


@pytest.mark.slow
def test_plan_of_a_recipe_decides_nothing(shapes, tmp_path, capsys):
    assert main(["plan", small_recipe(tmp_path, shapes)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "because" not in out
    assert "6 steps of 4 images, 3 epochs" in out
    assert "s, measured on a CPU" in out


def test_a_plan_is_for_the_bands_of_the_images(tmp_path, monkeypatch):
    """Whose cost could not be measured, of other bands than red, green and blue."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        for name in "ab":
            write_image(root / "images" / split / f"{name}.png")
            write_mask(root / "masks" / split / f"{name}.png")
    (root / "dataset.yaml").write_text("classes: [a, b]\nbands: 1\n")
    for path in (root / "images").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    asked = []
    monkeypatch.setattr("rmiseg.training.estimate.measured_pace", lambda config, *rest: asked.append(config))
    monkeypatch.setattr("rmiseg.training.estimate.cost_table", lambda *rest: "")
    assert main(["plan", "--data.root", str(root), *SMALL]) == 0
    assert asked[0].data.bands == 1


@pytest.mark.slow
def test_the_device_chooses_the_precision(shapes, tmp_path, capsys, monkeypatch):
    """Once: a run that goes on where the choice would be another keeps it."""
    command = ["train", small_recipe(tmp_path, shapes), "--out", str(tmp_path / "run"), "--train.precision", "auto"]
    monkeypatch.setattr("rmiseg.training.trainer.has_fast_bf16", lambda device: True)
    monkeypatch.setattr(TrainingRun, "train", lambda run: sys.exit("killed"))
    with pytest.raises(SystemExit, match="killed"):
        main(command)
    assert options(tmp_path / "run")["train"]["precision"] == "bf16"
    monkeypatch.undo()
    monkeypatch.setattr("rmiseg.training.trainer.has_fast_bf16", lambda device: False)
    assert main([*command, "--resume", "auto"]) == 0
    assert options(tmp_path / "run")["train"]["precision"] == "bf16"
    assert "ten times as long" in capsys.readouterr().out
    command[3] = str(tmp_path / "another")
    assert main(command) == 0
    assert options(tmp_path / "another")["train"]["precision"] == "fp32"
    assert "ten times as long" not in capsys.readouterr().out
