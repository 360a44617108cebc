"""Options of the command line that would do nothing."""

from __future__ import annotations

import dataclasses
from itertools import chain

import pytest

from rmiseg.config import LossConfig, OpenConfig, TrainConfig
from rmiseg.config.effects import DISPLACED, NEEDED
from rmiseg.config.parser import parse_command
from rmiseg.config.recipes import flat, nested, value_of


def train(options: str) -> TrainConfig:
    return parse_command(["train", *options.split()])[1]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "loss: {name: rmi, rmi: {pool_size: 2}, affinity: {downsample: 4}}\n"
        "optim: {schedule: poly, poly_power: 0.8, warmup_lr: 0.001}\n"
        "train: {steps: 300, epochs: 7}\n"
    )
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--loss.name ce --loss.rmi.pool_size 4", "loss.rmi.pool_size has no effect, since loss.name is ce"),
        ('--loss={"name":"ce","rmi":{"pool_size":4}}', "loss.rmi.pool_size has no effect"),
        ("--loss.affinity.downsample 2", "loss.affinity.downsample has no effect, since loss.name is rmi"),
        ("--optim.schedule cosine --optim.poly_power 1", "optim.poly_power has no effect, since optim.schedule is cos"),
        ("--optim.step_factor 0.5", "optim.step_factor has no effect, since optim.schedule is poly"),
        ("--optim.warmup_lr 0.1", "give optim.warmup_steps as more than 0"),
        ("--optim.slow_start_lr 0.1", "optim.warmup_lr has no effect"),
        ("--train.epochs 9", "train.epochs has no effect, since train.steps is 300"),
        ("--train.steps null --train.hours 1 --train.epochs 9", "train.epochs has no effect, since train.hours is 1"),
        ("--data.folds 3 --data.val_split test", "data.val_split has no effect, since data.folds is 3"),
    ],
)  # fmt: skip
def test_an_option_that_would_do_nothing_is_refused(options, said, recipe):
    with pytest.raises(ValueError, match=said):
        train(f"{recipe} {options}")


def test_a_recipe_may_prepare_for_other_losses(recipe):
    assert train(f"{recipe} --loss.name ce").loss.rmi.pool_size == 2
    assert train(f"{recipe} --loss.name affinity --loss.affinity.downsample 2").loss.affinity.downsample == 2
    assert train(f"{recipe} --train.steps null --train.epochs 9").train.epochs == 9
    assert train(f"{recipe} --optim.warmup_steps 5 --optim.warmup_lr 0.1").optim.warmup_lr == 0.1


def test_what_is_open_is_not_known_before_it_is_planned():
    config = train("--data.root there --optim.warmup_lr 0.1 --loss.rmi.pool_size 2")
    assert isinstance(config, OpenConfig)
    assert config.on_command_line == ("data.root", "optim.warmup_lr", "loss.rmi.pool_size")
    with pytest.raises(ValueError, match=r"train\.hours is 2"):
        train("--data.root there --train.hours 2 --train.epochs 3")


def test_what_a_recipe_says_is_not_what_the_command_line_says(recipe):
    config = train(f"{recipe} --plan true --optim.lr 0.1")
    assert set(config.on_command_line) == {"plan", "optim.lr"}
    assert "train.steps" in config.given


def test_every_option_of_the_table_is_one():
    known = [*flat(dataclasses.asdict(TrainConfig()))]
    for option in [*NEEDED, *(other for other, _ in NEEDED.values()), *DISPLACED, *chain(*DISPLACED.values())]:
        assert any(f"{each}.".startswith(f"{option}.") for each in known), option
    sections = {
        field.name for field in dataclasses.fields(LossConfig) if dataclasses.is_dataclass(field.default_factory)
    }
    assert sections == {name.removeprefix("loss.") for name in NEEDED if name.startswith("loss.")}
    assert value_of(TrainConfig(), "optim.lr") == nested("optim.lr", TrainConfig().optim.lr)["optim"]["lr"]
