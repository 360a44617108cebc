"""Every recipe: it says what differs from the defaults, its model fits its crops, and it trains on a miniature."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from miniatures import every, write_camvid, write_cityscapes, write_coco, write_shapes, write_values, write_voc
from rmiseg.cli import main
from rmiseg.config import TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.models import build_model
from rmiseg.models.original import IMAGE_STATISTICS
from rmiseg.training.assembly import complete

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LOSSES = ("ce", "bce", "affinity", "pyramid", "rmi")
ABLATIONS = ("interp", "max", "pool2", "pool3", "pool5", "pool6", "region1", "region2", "region4")
ABLATIONS += ("pool6-region2", "pool6-region4", "pool6-region5")
LENGTHS = {"voc": (10_582, 30_406), "cityscapes": (2975, 59_360), "camvid": (468, 5800)}
MODELS = ("deeplabv3", "deeplabv3plus", "pspnet")
COMPARED = ("ce", "rmi")
REPRESENTATIVE = {
    "camvid-best",
    "camvid-11-deeplabv3-resnet101-ce",
    "cityscapes-pspnet-resnet101-rmi",
    "coco-deeplabv3plus-resnet101-rmi",
    "cracks-best",
    "voc-deeplabv3-resnet101-pyramid",
    "voc-deeplabv3plus-resnet101-affinity",
}
"""One of each data set, network and kind of loss."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """A miniature of each data set."""
    folder = tmp_path_factory.mktemp("data")
    voc = write_voc(folder / "voc")
    for name in ("2007_000032", "2007_000039", "2008_000002"):
        write_values(voc / "SegmentationClassAug" / f"{name}.png", every(*range(21)))
    return {
        "voc": voc,
        "cityscapes": write_cityscapes(folder / "cityscapes"),
        "camvid": write_camvid(folder / "camvid"),
        "coco": write_coco(folder / "coco"),
        "folder": write_shapes(folder / "shapes"),
    }


@cache
def parsed(recipe: str) -> TrainConfig:
    return train_config(FOLDER / f"{recipe}.yaml")


@pytest.mark.parametrize("data", LENGTHS)
@pytest.mark.parametrize("model", MODELS)
def test_settings_of_the_paper(data, model):
    """Those of the paper's code, for every model; and the steps that follow from epochs, images and batches."""
    if not (FOLDER / f"{data}-{model}-resnet101-rmi.yaml").is_file():
        return
    config = complete(parsed(f"{data}-{model}-resnet101-rmi"))
    images, steps = LENGTHS[data]
    crop, batch, lr, warmup, scales, step = {
        "voc": (513, 16, 0.007, 1500, (0.5, 2.0), 0.25),
        "cityscapes": (769, 8, 0.007, 3000, (0.75, 1.25), 0),
        "camvid": (481, 16, 0.025, 300, (0.75, 1.25), 0),
    }[data]
    assert config.data.crop_size == (crop, crop)
    assert (config.data.batch_size, config.data.scale_range, config.data.scale_step) == (batch, scales, step)
    assert (config.data.image_mean, config.data.image_std) == IMAGE_STATISTICS[data]
    assert (config.data.interpolation, config.data.padding, config.data.flip) == ("bicubic", "end", 0.5)
    assert config.train.epochs * (images // batch) == steps
    assert config.train.steps is None
    optim = config.optim
    assert (optim.lr, optim.warmup_steps, optim.warmup_lr, optim.warmup_to) == (lr, warmup, 1e-4, "lr")
    assert (optim.name, optim.momentum, optim.weight_decay, optim.min_lr) == ("sgd", 0.9, 1e-4, 1e-6)
    assert optim.head_lr_factor == (5 if model == "deeplabv3plus" and data != "camvid" else 10)
    assert (config.model.compat, config.model.backbone, config.model.output_stride) == ("original", "resnet101s", 16)
    assert (config.loss.align_corners, config.loss.aux_weight, config.loss.aux_loss) == (True, 0.4, "ce")
    assert config.train.norm_momentum == 0.05
    assert config.data.options == ({"void": True} if data == "camvid" else {})


def leaves(content: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in content.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def test_rows_of_the_paper():
    rows = {f"voc-{m}-resnet101-{loss}" for m in ("deeplabv3", "deeplabv3plus") for loss in LOSSES}
    ablations = {f"voc-deeplabv3-resnet101-rmi-{option}" for option in ABLATIONS}
    others = {f"{data}-{m}-resnet101-{loss}" for data in ("cityscapes", "camvid") for m in MODELS for loss in COMPARED}
    assert rows | ablations | others <= set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_says_what_differs(recipe):
    content = leaves(yaml.safe_load((FOLDER / f"{recipe}.yaml").read_text()))
    base = content.pop("base", None)
    origin = parsed(base.removesuffix(".yaml")) if base else TrainConfig()
    config, before = (leaves(json.loads(json.dumps(asdict(c)))) for c in (parsed(recipe), origin))
    assert content == {name: config[name] for name in content}
    # What a recipe is about is said even where it is the default.
    assert [name for name in content if content[name] == before.get(name) and not name.endswith(".name")] == []
    assert [name for name in config if config[name] != before.get(name) and name not in content] == []
    assert config["out"] == f"runs/{recipe}"
    assert config["data.name"] == "folder" or recipe.startswith(config["data.name"])
    if recipe.count("-") > 1:  # others are the best of a data set, whatever model and loss that is
        assert config["model.name"] in recipe.split("-")
        assert config["loss.name"] in recipe.split("-")
    assert recipe in (FOLDER / "README.md").read_text()


def network(config: TrainConfig) -> tuple[tuple[str, object], ...]:
    return tuple((name, value) for name, value in asdict(config.model).items() if name != "options")  # all have none


@pytest.mark.parametrize(
    "settings", sorted({(*network(parsed(r)), parsed(r).data.crop_size) for r in RECIPES}, key=str)
)
@pytest.mark.slow
def test_model(settings):
    *options, crop_size = settings
    with torch.device("meta"):
        model = build_model(num_classes=21, **{**dict(options), "weights": "none"})
        logits = model.eval()(torch.zeros(1, 3, *crop_size))
    stride = {"deeplabv3plus": 4, "unet": 1, "smp:Unet": 1}.get(dict(options)["name"]) or model.output_stride
    assert logits.shape == (1, 21, *(-(-side // stride) for side in crop_size))


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [each if each in REPRESENTATIVE else pytest.param(each, marks=pytest.mark.nightly) for each in RECIPES]
)
def test_two_steps(recipe, roots, tmp_path, capsys):
    config = parsed(recipe)
    small = {
        "out": tmp_path / "run",
        "init": "null",
        "data.root": roots[config.data.name],
        "data.crop_size": "[65,65]",
        "data.batch_size": 2,
        "data.workers": 0,
        "model.weights": "none",
        "optim.warmup_steps": 1,
        "train.steps": 2,
        "train.accumulate": 1,
        "train.panels": 0,
        "device": "cpu",
    }
    if config.model.name != "unet":  # which has none
        small["model.backbone"] = "resnet18"
    options = [text for name, value in small.items() for text in (f"--{name}", str(value))]
    assert main(["train", str(FOLDER / f"{recipe}.yaml"), *options]) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 2
    trained = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert trained["loss"] == json.loads(json.dumps(asdict(complete(config).loss)))
