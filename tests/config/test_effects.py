"""Options of the command line that would do nothing."""

from __future__ import annotations

import dataclasses
from itertools import chain

import pytest

from rmiseg.config import LossConfig, OpenConfig, TrainConfig
from rmiseg.config.effects import DISPLACED, NEEDED
from rmiseg.config.parser import parse_command
from rmiseg.config.recipes import flat, nested, value_of
from rmiseg.config.wording import option_kinds


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
        ("--optim.warmup_lr 0.1", "since there is no optim.warmup_steps: leave it out, or give optim.warmup_steps too"),
        ("--optim.slow_start_lr 0.1", "optim.warmup_lr has no effect"),
        ("--train.epochs 9", "train.epochs has no effect, since train.steps is 300"),
        ("--train.steps null --train.hours 1 --train.epochs 9", "train.epochs has no effect, since train.hours is 1"),
        ("--data.folds 3 --data.val_split test", "data.val_split has no effect, since data.folds is 3"),
        ("--model.name smp:Unet --loss.aux_weight 0.4", "loss.aux_weight has no effect, since model is smp:Unet"),
        ("--loss.aux_loss bce", "since model is deeplabv3plus.*: leave it out, or give model an auxiliary head"),
        ("--train.loggers [] --train.panels 2", "train.panels has no effect, since there is no train.loggers"),
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


@pytest.mark.parametrize(
    "model", ["pspnet", 'deeplabv3 --model.options={"auxiliary":true}', "torchvision:fcn_resnet50", "plugins-own"]
)
def test_the_loss_of_an_auxiliary_head_is_for_networks_that_may_have_one(model, recipe):
    assert train(f"{recipe} --model.name {model} --loss.aux_weight 0.3 --loss.aux_loss bce").loss.aux_weight == 0.3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("predict run a.png --opacity 0.3 --write index,color", "opacity.*since write is index, color.*with overlay"),
        ("predict run a.png --tolerance 2", "tolerance has no effect, since write is index, overlay"),
        ("predict run a.png --tolerance 2 --write kaggle-rows", "tolerance has no effect"),
        ("predict run a.png --root there", "root has no effect, since there is no split: .* give split too"),
        ("predict run a.png --overlap 0.1", "overlap has no effect, since there is no window"),
        ("app run --overlap 0.1", "overlap has no effect"),
        ("evaluate run --dense_crf.workers 2", "dense_crf.workers has no effect, since there is no crf"),
        ("export run --images 9", "images has no effect, since format is onnx: .* with onnx-int8"),
        ("export run --format openvino --root there", "root has no effect"),
        ("export run --private false", "private has no effect, since there is no push"),
    ],
)  # fmt: skip
def test_an_option_of_another_command_that_would_do_nothing_is_refused(command, said):
    with pytest.raises(ValueError, match=said):
        parse_command(command.split())


@pytest.mark.parametrize(
    "command",
    [
        "predict run a.png --opacity 0.3",
        "predict run a.png --write labelme,kaggle-rows --tolerance 2",
        "predict run a.png --write a-plugins-own --tolerance 2",
        "predict run --split test --root there --window 64 --overlap 0.1 --crf 5 --dense_crf.workers 2",
        "export run --format onnx,onnx-int8 --images 9 --root there",
        "export run --format safetensors --push a/b --private false",
        "evaluate run --crf 1,5 --dense_crf.bilateral_srgb 5",
        "data import labels --out there --val 0.3",
    ],
)
def test_what_has_what_it_needs_is_taken(command):
    assert parse_command(command.split())[1]


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
    for option in [*DISPLACED, *chain(*DISPLACED.values())]:
        assert option in known
    for config, needs in NEEDED.items():
        known_here = option_kinds(config)
        for option in [*needs, *(need.option for need in needs.values())]:
            assert any(f"{each}.".startswith(f"{option}.") for each in known_here), option
    sections = {
        field.name for field in dataclasses.fields(LossConfig) if dataclasses.is_dataclass(field.default_factory)
    }
    assert {f"loss.{name}" for name in sections} <= {*NEEDED[TrainConfig]}
    assert value_of(TrainConfig(), "optim.lr") == nested("optim.lr", TrainConfig().optim.lr)["optim"]["lr"]
