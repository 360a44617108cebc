"""The rules together: their order, and that what is given wins."""

from __future__ import annotations

import io
from dataclasses import fields, replace

import pytest
from rich.console import Console

from planning.test_rules import CPU, GPU, THICK, THIN, profile
from rmiseg.config import ModelConfig, OpenConfig, TrainConfig
from rmiseg.config.parser import parse_command, train_config
from rmiseg.planning import DataProfile, decide
from rmiseg.planning.memory import MemoryNeed
from rmiseg.planning.pace import Pace
from rmiseg.planning.plan import Measures

MEASURES = Measures(weights=lambda name: "package" if "lite" in name else "none", installed=lambda _: False)


def planned(profile: DataProfile = THICK, machine=CPU, measures=MEASURES, **options) -> tuple[TrainConfig, dict]:
    config = train_config({"plan": True, **options})
    assert isinstance(config, OpenConfig)
    plan = decide(config, profile, machine, measures)
    assert type(plan.config) is TrainConfig
    return plan.config, {each.option: each.value for each in plan.decisions}


def test_all_that_is_open_is_decided():
    config, decided = planned()
    assert decided["train.steps"] == config.train.steps == 1500
    assert config.data.crop_size == decided["data.crop_size"] == (256, 256)
    assert (config.model.backbone, config.model.weights) == ("tf_efficientnet_lite0", "package")
    assert config.optim.warmup_steps == 150
    usual = TrainConfig()
    for name in ("seed", "out", "device", "loss.name", "data.flip", "train.keep"):  # not decided
        assert name not in decided
    assert config.train.epochs == usual.train.epochs


def test_a_rule_follows_from_what_was_decided_before():
    thin, _ = planned(THIN)
    assert (thin.data.image_scale, thin.loss.rmi.pool_size, thin.data.rare_share) == (2, 2, 0.5)
    small, _ = planned(THIN, data={"image_scale": 1.0, "crop_size": [360, 480]})
    assert (small.data.image_scale, small.data.rare_share) == (1, 0)
    assert small.data.repeat == 2
    assert (thin.loss.name, thin.loss.rmi.covariance, thin.loss.plus) == ("rmi", "batch", {"dice": 1.0})
    several, decided = planned(profile(("hole", 0.01, 9.0), ("fray", 0.02, 50.0), masks=100))
    assert (several.loss.name, several.loss.plus) == ("ce", {"dice": 1.0})
    assert "loss.rmi.pool_size" not in decided
    for loss in ({"name": "rmi"}, {"rmi": {"weight_lambda": 0.5}}):  # meant for the paper's combination
        given, decided = planned(THIN, loss=loss)
        assert (given.loss.rmi.covariance, given.loss.plus) == ("sum", {})
        assert [option for option in decided if option.startswith("loss")] == ["loss.rmi.pool_size"]


def test_a_unet_takes_the_place_of_larger_images():
    measures = replace(MEASURES, installed=lambda extra: extra == "smp")
    config, _ = planned(THIN, measures=measures)
    assert (config.model.name, config.model.backbone) == ("smp:Unet", "tu-tf_efficientnet_lite0")
    assert (config.model.weights, config.model.options, config.model.output_stride) == ("package", {}, None)
    assert config.data.image_scale == 1
    assert planned(THICK, measures=measures)[0].model.name == "deeplabv3plus"
    for given in ({"name": "deeplabv3plus"}, {"backbone": "tf_efficientnet_lite0"}, {"output_stride": 16}):
        config, _ = planned(THIN, measures=measures, model=given)
        assert (config.model.name, config.data.image_scale) == ("deeplabv3plus", 2)


def test_the_network_of_the_initial_weights():
    """They fit no other; but what is given wins, and the files of other programs say nothing."""
    unet = ModelConfig("smp:Unet", "tu-tf_efficientnet_lite0", "package", options={"decoder_channels": [64, 32]})
    measures = replace(MEASURES, origin=lambda path: unet if path == "runs/first" else None)
    config, decided = planned(measures=measures, init="runs/first")
    assert config.model == replace(unet, weights="none")
    assert (config.optim.head_lr_factor, decided["optim.head_lr_factor"]) == (2, 2)
    assert config.data.image_scale == planned(THIN, measures=measures, init="runs/first")[0].data.image_scale == 1
    given, decided = planned(measures=measures, init="runs/first", model={"name": "deeplabv3plus"})
    assert (given.model.name, given.model.options) == ("deeplabv3plus", {})
    other, _ = planned(measures=measures, init="others.pth")
    assert (other.model.name, other.model.options, other.model.weights) == ("deeplabv3plus", {}, "package")


def test_own_options_of_the_network_that_are_given():
    measures = replace(MEASURES, installed=lambda extra: extra == "smp")
    assert planned(THICK)[0].model.options == {"width": 128}
    _, config = parse_command(["train", "--data.root", "x", "--model.options.separable", "true"])
    plan = decide(config, THIN, CPU, measures)
    assert (plan.config.model.name, plan.config.model.options["separable"]) == ("deeplabv3plus", True)
    assert "model.options" not in {each.option for each in plan.decisions}


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("data", "crop_size", (100, 120)),
        ("data", "batch_size", 3),
        ("data", "image_scale", 0.5),
        ("data", "scale_range", (0.5, 2.0)),
        ("data", "workers", 5),
        ("model", "backbone", "resnet34"),
        ("model", "weights", "none"),
        ("model", "name", "pspnet"),
        ("optim", "lr", 0.007),
        ("optim", "warmup_steps", 0),
        ("train", "steps", 77),
        ("train", "precision", "fp32"),
        ("train", "val_every", 9),
    ],
)
def test_what_is_given_wins(section, option, value):
    """Also where it is what the option has by default."""
    config, decided = planned(**{section: {option: list(value) if isinstance(value, tuple) else value}})
    assert getattr(getattr(config, section), option) == value
    assert f"{section}.{option}" not in decided


def test_weights_follow_the_backbone_that_is_given():
    assert planned(model={"backbone": "resnet34"})[0].model.weights == "none"
    config, _ = planned(model={"weights": "package"}, machine=GPU)
    assert config.model.backbone == "tf_efficientnet_lite0"
    config, decided = planned(model={"weights": "some/file.pth"})
    assert "model.backbone" not in decided
    _, decided = planned(model={"name": "smp:Unet"})
    assert not {"model.backbone", "model.weights"} & set(decided)


def test_epochs_that_are_given():
    config, decided = planned(train={"epochs": 3})
    assert config.train.steps is None
    assert config.data.repeat == 1
    assert "train.steps" not in decided
    assert config.optim.warmup_steps == 7  # of 75 steps


def test_memory_and_time_are_measured_with_what_was_decided():
    seen = []
    measures = Measures(
        weights=MEASURES.weights,
        memory=lambda config: seen.append(config.data.crop_size) or MemoryNeed(0, 4e9),
        pace=lambda config: seen.append(config.data.batch_size) or Pace(3.42, 0),
    )
    config, decided = planned(machine=GPU, measures=measures, train={"hours": 1.0})
    assert seen == [(352, 480), 4]
    assert (config.data.batch_size, config.train.accumulate) == (4, 4)
    assert decided["train.steps"] == 1000
    assert config.train.hours is None


def test_a_short_training_on_a_cpu_takes_smaller_steps():
    measures = Measures(
        weights=MEASURES.weights,
        pace=lambda config: Pace(config.data.batch_size * config.data.crop_size[0] ** 2 / 320_000, 0),
    )
    config, decided = planned(measures=measures, train={"hours": 0.1})
    assert (config.data.batch_size, config.data.crop_size, config.data.rare_share) == (4, (192, 192), 0)
    assert decided["train.steps"] == 742
    config, _ = planned(measures=measures, train={"hours": 0.1}, data={"batch_size": 8, "crop_size": [320, 320]})
    assert config.train.steps == 133
    assert planned(measures=measures, train={"hours": 2.0})[0].data.crop_size == (256, 256)


@pytest.mark.slow
def test_options_of_the_command_line_that_are_open():
    _, config = parse_command(["train", "--data.root", "x", "--optim.lr=0.1", "--data.crop_size", "64,64"])
    assert isinstance(config, OpenConfig)
    assert set(config.given) == {"data.root", "optim.lr", "data.crop_size"}
    _, config = parse_command(["train", "--data", "{root: x, batch_size: 4}"])
    assert set(config.given) == {"data.root", "data.batch_size"}
    _, config = parse_command(
        ["train", "--data.options.val", "[a]", "--train.loggers+", "csv", "--loss.rmi={pool_size: 1}"]
    )
    assert set(config.given) == {"data.options", "train.loggers", "loss.rmi.pool_size"}
    _, config = parse_command(["train", "--plan", "false", "--data.root", "x"])
    assert type(config) is TrainConfig


@pytest.mark.slow
def test_a_recipe_stays_as_it_is(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {root: x}\noptim: {lr: 0.3}\n")
    for arguments in (["train", str(recipe)], ["train", "--recipe", str(recipe)], ["train", f"--recipe={recipe}"]):
        _, config = parse_command([*arguments, "--data.batch_size", "4"])
        assert type(config) is TrainConfig
        assert config.data.crop_size == (513, 513)
    _, config = parse_command(["train", str(recipe), "--plan", "true", "--data.batch_size", "4"])
    assert isinstance(config, OpenConfig)
    assert {"data.root", "optim.lr", "data.batch_size"} <= set(config.given)
    _, plan = parse_command(["plan", str(recipe)])
    assert {each.name for each in fields(TrainConfig.__dataclass_fields__["data"].default_factory)} <= {
        name.removeprefix("data.") for name in plan.given
    }
    assert type(train_config({"data": {"root": "x"}})) is TrainConfig


def test_the_table_says_option_value_and_because():
    plan = decide(train_config({"plan": True}), THIN, CPU, MEASURES)
    console = Console(file=io.StringIO(), width=200)
    plan.show(console)
    text = console.file.getvalue()
    for each in plan.decisions:
        assert each.option in text
        assert each.because
    assert "512,512" in text  # of images twice as large
