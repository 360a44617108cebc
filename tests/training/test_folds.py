"""Cross validation and the ensemble of its models, from the command line to predictions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from miniatures import write_shapes
from rmiseg import Predictor
from rmiseg.cli import main
from rmiseg.config import DataConfig, TrainConfig
from rmiseg.data import load_split
from rmiseg.data.held_out import divide
from rmiseg.evaluation.results import load_evaluation
from rmiseg.exports.hub import card_facts
from rmiseg.exports.onnx_int8 import _sensitive
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.model_card import card_text
from rmiseg.inference.segmenter import Segmenter
from rmiseg.planning import planned_folds
from rmiseg.training.trainer import Trainer
from support.commands import error_of

SMALL = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--data.workers", "0"]
SMALL += ["--train.steps", "1", "--device", "cpu", "--train.precision", "fp32", "--data.folds", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data"), count=5)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "run"
    assert main(["train", "--data.root", str(root), "--out", str(out), *SMALL]) == 0
    return out


@pytest.mark.slow
def test_each_image_is_held_out_once(run):
    folds = [yaml.safe_load((run / f"fold-{number}" / "config.yaml").read_text()) for number in (1, 2)]
    held_out = [name for fold in folds for name in fold["data"]["held_out"]]
    assert sorted(held_out) == [f"shape{number:02}" for number in range(5)]
    assert {len(fold["data"]["held_out"]) for fold in folds} == {2, 3}
    assert folds[0]["optim"] == folds[1]["optim"]


def test_the_pooled_score_is_of_all_images(run):
    pooled = load_evaluation(run / "evaluation" / "cross-validation")
    parts = [load_evaluation(run / f"fold-{number}" / "evaluation" / "held-out") for number in (1, 2)]
    assert len(pooled.evaluation.names) == 5
    assert np.array_equal(pooled.evaluation.confusion, sum(each.evaluation.confusion for each in parts))
    result = json.loads((run / "result.json").read_text())
    assert [each["mean_iou"] for each in result["folds"]] == [each.report["mean_iou"] for each in parts]
    assert result["best"]["mean_iou"] == pooled.report["mean_iou"]


@pytest.mark.slow
def test_the_ensemble_averages_probabilities(run, root):
    image = root / "images" / "shape00.png"
    members = [Predictor.from_run(run / f"fold-{number}", device="cpu") for number in (1, 2)]
    predictor = Predictor.from_run(run, device="cpu")
    pixels = torch.rand(1, 3, 48, 64)
    with torch.inference_mode():
        mean = sum(each.model(pixels).softmax(dim=1) for each in members) / 2
        assert torch.allclose(predictor.model(pixels).softmax(dim=1), mean, atol=1e-6)
    assert predictor(image).shape == (48, 64)


@pytest.mark.slow
def test_commands_take_the_ensemble(run, root, tmp_path, capsys):
    other = write_shapes(tmp_path / "other", count=2, seed=1)
    files = ["--root", str(other), "--split", "train"]
    assert main(["evaluate", str(run), *files, "--device", "cpu"]) == 0
    images = str(root / "images" / "*.png")
    assert main(["predict", str(run), images, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    page = ["report", str(run), "--out", str(tmp_path / "report.html"), "--device", "cpu"]
    for command in (["evaluate", str(run), "--device", "cpu"], page):
        assert "all images of" in error_of(command, capsys)
    assert main([*page, *files]) == 0
    assert "2 times deeplabv3plus" in (tmp_path / "report.html").read_text()
    init = ["train", "--data.root", str(root), "--out", str(tmp_path / "r"), *SMALL[:-2], "--init", str(run)]
    assert "ensemble of 2 networks" in error_of(init, capsys)


def test_a_model_of_a_hub_is_the_ensemble(run, tmp_path):
    segmenter = Segmenter.from_checkpoint(load_checkpoint(run))
    segmenter.save_pretrained(tmp_path)
    again = load_checkpoint(tmp_path)
    assert again.members == 2
    assert again.weights.keys() == load_checkpoint(run).weights.keys()


def test_the_card_says_whose_scores_it_has(run, tmp_path):
    checkpoint, pooled = load_checkpoint(run), run / "evaluation" / "cross-validation"
    cards = [card_text(checkpoint, 3, card_facts(run, checkpoint, None, Console(quiet=True)))]
    hidden = pooled.rename(tmp_path / "hidden")
    cards.append(card_text(checkpoint, 3, card_facts(run, checkpoint, None, Console(quiet=True))))
    hidden.rename(pooled)
    for card in cards:
        assert "training images, each by that of the 2 networks which had not seen it, after 1 training steps" in card
        assert "| networks | 2, each trained on the images but for a part of them |" in card
    assert ["95 % interval" in card for card in cards] == [True, False]


def test_the_ends_of_every_member_stay_exact():
    onnx = pytest.importorskip("onnx")
    names = [f"network.members.{member}.{layer}.weight" for member in (0, 1) for layer in "abc"]
    nodes = [onnx.helper.make_node("Conv", ["x", name], ["y"], name=name) for name in names]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))
    assert sorted(_sensitive(model)) == [name for name in names if ".b." not in name]


@pytest.mark.slow
def test_a_finished_cross_validation_is_left_alone_and_an_interrupted_one_goes_on(run, root, tmp_path, capsys):
    again = ["train", "--data.root", str(root), "--out", str(run), *SMALL]
    assert "exists and is not empty" in error_of(again, capsys)
    (run / "fold-2" / "result.json").rename(tmp_path / "result.json")
    for path in (run / "fold-2" / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    before = (run / "fold-1" / "result.json").stat().st_mtime_ns
    assert main([*again, "--resume", "auto"]) == 0
    assert (run / "fold-1" / "result.json").stat().st_mtime_ns == before
    assert (run / "fold-2" / "result.json").is_file()
    assert "2 folds, of 2 asked for, not 3" in error_of([*again[:-1], "3", "--resume", "auto"], capsys)


def test_a_split_to_score_on_stays_apart(run, tmp_path):
    root = write_shapes(tmp_path / "data", count=5)
    config = TrainConfig(data=DataConfig(root=str(root)))
    assert planned_folds(config, 2)[0].options == {"val": []}
    (root / "train.txt").write_text("".join(f"shape{number:02}\n" for number in range(4)))
    (root / "val.txt").write_text("shape04\n")
    chosen, parts = planned_folds(config, 2)
    assert chosen == config.data
    assert sorted(parts[0] + parts[1]) == [f"shape{number:02}" for number in range(4)]
    trained = load_checkpoint(run)
    ensemble = replace(trained, data=replace(trained.data, root=str(root), options={}))
    assert ensemble.load_split().names == ("shape04",)


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(root, tmp_path, capsys):
    command = ["train", "--data.root", str(root), "--out", str(tmp_path / "run"), *SMALL]
    assert "there are 5 images to divide" in error_of([*command[:-1], "6"], capsys)
    assert "give one of them" in error_of([*command, "--data.held_out", "shape00"], capsys)
    with pytest.raises(ValueError, match="parts must have names"):
        Trainer({"data": {"folds": 2}}, model=torch.nn.Conv2d(3, 2, 1))
    split = load_split("folder", str(root), "train", options={"val": []})
    with pytest.raises(ValueError, match="has none of that name"):
        divide(split, ["nothing"])
    with pytest.raises(ValueError, match="5 of the 5"):
        divide(split, ["shape*"])
    train, held_out = divide(split, ["shape00"])
    assert (len(train), held_out.name) == (4, "held-out")
