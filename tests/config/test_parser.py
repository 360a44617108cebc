"""Options as they are written on the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

import pytest
import yaml

from rmiseg.cli import main
from rmiseg.config import TrainConfig
from rmiseg.config.arguments import bracketed


def test_print_config_is_a_recipe(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--optim.lr", "0.5", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["optim"]["lr"] == 0.5
    assert set(printed) == set(TrainConfig.__dataclass_fields__)


def test_help_is_quick_and_shows_defaults():
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rmiseg", "train", "--help"], capture_output=True, text=True
    )
    assert "default: 0.007" in result.stdout
    assert "Learning rate of the backbone" in result.stdout
    assert " torch\n" not in result.stderr  # the reason why it is quick
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("train --data.crop_size 64,48", ["train", "--data.crop_size", "[64,48]"]),
        ("train --data.crop_size=64,48", ["train", "--data.crop_size=[64,48]"]),
        ("train --data.crop_size [64,48]", ["train", "--data.crop_size", "[64,48]"]),
        ("train --loss.class_weights 1,2", ["train", "--loss.class_weights", "[1,2]"]),
        ("train --loss.class_weights balanced", ["train", "--loss.class_weights", "balanced"]),
        ("train --data.root a,b --train.steps 3", ["train", "--data.root", "a,b", "--train.steps", "3"]),
        ("data check --splits train", ["data", "check", "--splits", "[train]"]),
        ("data check --splits null", ["data", "check", "--splits", "null"]),
        ("bench loss --strides 1,4 --losses rmi", ["bench", "loss", "--strides", "[1,4]", "--losses", "[rmi]"]),
        ("predict a,b --images", ["predict", "a,b", "--images"]),
        ("train --help", ["train", "--help"]),
        ("", []),
    ],
)
def test_lists_without_brackets(written, meant):
    assert bracketed(written.split()) == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("data check FOLDER", "is given by --root"),
        ("train FOLDER", "is no folder of a run; one with images is given by --data.root"),
        ("plan FOLDER", "is no folder of a run; one with images is given by --data.root"),
        ("train --train.steps 2 recipe.yaml FOLDER", "is given by --data.root"),
        ("data check --rot FOLDER", "did you mean --root"),
        ("evaluate --checkpoint runs/a", "no option --checkpoint: give CHECKPOINT without it"),
    ],
)
def test_a_folder_where_none_is_taken(written, said, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("optim: {lr: 0.02}\n")
    places = {"FOLDER": str(tmp_path), "recipe.yaml": str(tmp_path / "recipe.yaml")}
    with suppress(SystemExit):  # where options are wrong
        main([places.get(each, each) for each in written.split()])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "usage", "said"),
    [
        ("evaluate", "rmiseg evaluate CHECKPOINT ", "checkpoint is missing"),
        ("compare runs/a", "rmiseg compare A B ", "b is missing"),
        ("data import x", "rmiseg data import SOURCE ", "out is missing"),
        ("data", "rmiseg", "data alone is no command; there are data check, data import"),
        ("train --optim.lr", "rmiseg train [RECIPE.yaml] ", "--optim.lr: a value is missing"),
        ("trian", "rmiseg", "there is no command trian; did you mean train?"),
    ],
)
def test_what_is_missing_is_said_with_the_usage_of_the_command(written, usage, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(written.split())
    text = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"usage: {usage}" in text
    assert f"error: {said}" in text
    command = usage.split()[1:2] if len(usage.split()) > 1 else []
    command = written.split()[:2] if written.startswith("data ") else command
    assert f"run: {' '.join(['rmiseg', *command, '--help'])}" in text


def test_recipe_may_stand_behind_options(tmp_path, capsys):
    (tmp_path / "lr.yaml").write_text("optim: {lr: 0.02}\n")
    with pytest.raises(SystemExit):
        main(["train", "--optim.lr", "0.5", "--recipe", str(tmp_path / "lr.yaml"), "--print_config"])
    assert "lr: 0.5" in capsys.readouterr().out
