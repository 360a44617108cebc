"""Runs whose network or data was given in Python: used again with them, and refused in words without."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from miniatures import write_shapes
from rmiseg.config import DataConfig, ModelConfig, ReportConfig, registry
from rmiseg.config.registry import given_name
from rmiseg.data import load_split
from rmiseg.evaluation.compare import compare
from rmiseg.evaluation.scoring import evaluate
from rmiseg.exports.export import export
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.inference.predict import predict
from rmiseg.inference.predictor import Predictor
from rmiseg.inference.segmenter import Segmenter
from rmiseg.models.own import adapt_model
from rmiseg.reports.page import write_report


class Tiny(nn.Module):
    """Somebody's network, with logits at stride 4 in a dictionary."""

    def __init__(self, classes=3):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 7, stride=4, padding=3)

    def forward(self, images):
        return {"out": self.layer(images)}


class Pairs:
    """Somebody's data set: the images and masks of a split."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        pixels, ids = self.split.read(index)
        return Image.fromarray(pixels), ids


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return load_split("folder", write_shapes(tmp_path_factory.mktemp("data")), "val")


@pytest.fixture
def run(split, tmp_path):
    torch.manual_seed(0)
    adapted = adapt_model(Tiny(), 3)
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    path.parent.mkdir(parents=True)
    model, data = ModelConfig(name=given_name(Tiny()), weights="none"), DataConfig(name=given_name(Pairs(split)))
    checkpoint = Checkpoint(
        adapted.state_dict(), model, data, split.classes, 1, {}, adapted.architecture, made_with=("mine",)
    )
    save_checkpoint(path, checkpoint)
    return tmp_path / "run"


def test_a_network_is_given_again(run, split):
    pixels = split.read_image(0)
    net = Tiny()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, second = (Predictor.from_run(run, model=net)(pixels) for _ in range(2))
    assert np.array_equal(first, second)
    torch.manual_seed(0)
    expected = Predictor(load_checkpoint(run), model=Tiny())  # whose weights are those of the run anyway
    assert np.array_equal(expected(pixels), first)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())  # a copy is used
    assert len(np.unique(first)) > 1


def test_images_are_normalized_as_in_training(run):
    other = Tiny()
    other.image_mean, other.image_std = (0.1, 0.1, 0.1), (0.9, 0.9, 0.9)
    model = load_checkpoint(run).build_model(torch.device("cpu"), other)
    assert model.image_mean == adapt_model(Tiny(), 3).image_mean != other.image_mean


def test_without_its_network(run, tmp_path, split):
    name = f"{Tiny.__module__}.Tiny"
    with pytest.raises(
        ValueError, match=rf"given in Python as {name}; give it again: Predictor\.from_run\(\.\.\., model=net"
    ):
        Predictor.from_run(run)
    with pytest.raises(ValueError, match="not those of Tiny"):
        Predictor.from_run(run, model=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)))
    with pytest.raises(
        ValueError, match=rf"data of this run was given in Python as {Pairs.__module__}\.Pairs; .*data="
    ):
        evaluate(run, model=Tiny())
    checkpoint = load_checkpoint(run)
    named = Checkpoint(checkpoint.weights, ModelConfig(), DataConfig(), split.classes, 1, {})
    with pytest.raises(ValueError, match="has a name, deeplabv3plus; leave model= out"):
        Predictor(named, model=Tiny())


def test_the_plugins_that_a_run_was_made_with(run, monkeypatch, tmp_path, split):
    assert load_checkpoint(run).made_with == ("mine",)
    content = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    content["model"]["name"] = "unetplus"
    torch.save(content, tmp_path / "plugin.pt")
    with pytest.raises(ValueError, match=r"model unetplus is not known here; .* give --plugin mine"):
        Predictor.from_run(tmp_path / "plugin.pt")
    content["data"]["name"] = "scans"
    torch.save(content, tmp_path / "plugin.pt")
    with pytest.raises(ValueError, match=r"dataset scans is not known here; .* give --plugin mine"):
        load_checkpoint(tmp_path / "plugin.pt").load_split()
    del content["made_with"]  # as in older files
    torch.save(content, tmp_path / "old.pt")
    with pytest.raises(ValueError, match="model unetplus is none of deeplabv3"):
        Predictor.from_run(tmp_path / "old.pt")
    monkeypatch.setattr(registry, "_plugins", ["other"])
    save_checkpoint(tmp_path / "new.pt", Checkpoint({}, ModelConfig(), DataConfig(), split.classes, 1, {}))
    assert load_checkpoint(tmp_path / "new.pt").made_with == ("other",)


def test_evaluated_and_compared_on_data_in_python(run, split, tmp_path):
    saved = evaluate(run, model=Tiny(), data=Pairs(split), device="cpu")
    assert saved.folder == run / "evaluation" / "data"
    assert saved.report["data"] == given_name(Pairs(split))
    files = evaluate(run, model=Tiny(), data=split, device="cpu", out=tmp_path / "files")
    assert saved.evaluation.summary() == files.evaluation.summary()
    assert 0 < saved.evaluation.summary()["pixel_accuracy"] < 1
    for options in ({"split": "val"}, {"root": "x"}):
        with pytest.raises(ValueError, match="not both"):
            evaluate(run, model=Tiny(), data=Pairs(split), **options)
    assert compare(saved, run / "evaluation" / "data", resamples=10)["scores"]["mean_iou"]["difference"] == 0
    with pytest.raises(ValueError, match="cannot be compared: their data sets"):
        compare(saved, files, resamples=10)


@pytest.mark.slow
def test_refined_evaluations(run, split):
    pytest.importorskip("pydensecrf")
    saved = evaluate(run, model=Tiny(), data=split, device="cpu", crf=[1])
    assert [each.report["settings"]["crf"]["iterations"] for each in saved.refined] == [1]


def test_predicted_into_files(run, split, tmp_path, capsys):
    good, bad = split.samples[0].image, tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    found = predict(run, [good, bad], out=tmp_path / "out", write=["index"], model=Tiny(), device="cpu")
    assert capsys.readouterr().out == ""
    assert (found.out, found.images) == (tmp_path / "out", 1)
    assert str(bad) in found.problems[0]
    ids = np.array(Image.open(tmp_path / "out" / "index" / f"{good.stem}.png"))
    assert np.array_equal(ids, Predictor.from_run(run, model=Tiny())(good))
    with pytest.raises(FileExistsError, match="exists"):
        predict(run, good, out=tmp_path / "out", write=["index"], model=Tiny())
    with pytest.raises(ValueError, match="'indices' is none of index, gray"):
        predict(run, good, out=tmp_path / "out", write=["indices"], model=Tiny())


def test_exported(run, tmp_path, capsys):
    images = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    exported = export(run, ["torch-export", "safetensors"], model=Tiny())
    assert capsys.readouterr().out == ""
    assert exported["torch-export"].files == (run / "export" / "model.pt2",)
    expected = Segmenter.from_checkpoint(load_checkpoint(run), Tiny())(images)
    program = torch.export.load(run / "export" / "model.pt2").module()
    torch.testing.assert_close(program(images), expected, rtol=0, atol=1e-5)
    # The folder holds the weights, but not the network.
    again = Segmenter.from_checkpoint(load_checkpoint(run / "export"), Tiny())
    torch.testing.assert_close(again(images), expected)
    assert "build" not in json.loads((run / "export" / "config.json").read_text())
    with pytest.raises(ValueError, match="was given in Python"):
        Segmenter.from_pretrained(run / "export")
    with pytest.raises(
        ValueError,
        match="export onxx is none of onnx, onnx-int8, openvino, executorch, torch-export, torch-aoti, triton-server, ",
    ):
        export(run, ["onxx"])


def test_reported(run, split, tmp_path):
    shutil.copytree(run, tmp_path / "twin")
    out = tmp_path / "report.html"
    config = ReportConfig(runs=[str(run), str(tmp_path / "twin")], out=str(out), device="cpu", images=1)
    write_report(config, Console(quiet=True), data=split, model=Tiny())
    assert "Tiny" in out.read_text()
    with pytest.raises(ValueError, match="was given in Python"):
        write_report(config, data=split)
