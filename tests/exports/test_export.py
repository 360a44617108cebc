"""What is exported computes what PyTorch computes, whatever the size; and it is complete or not there."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rmiseg.cli import main
from rmiseg.config import DataConfig, ModelConfig, registry
from rmiseg.data import ClassTable, read_image
from rmiseg.exports import common, hub_folder, torch_program
from rmiseg.exports.export import export, export_segmenter
from rmiseg.exports.plain_operations import adaptive_mean, antialiased
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.inference.predictor import Predictor
from rmiseg.inference.segmenter import Segmenter
from rmiseg.models import build_model
from support.commands import error_of
from support.plugins import forget_plugins

pytestmark = pytest.mark.slow

CLASSES = ClassTable(("ground", "a|b", "<i>"), (0, 1, 2), (255,), ((0, 0, 0), (255, 0, 0), (0, 9, 99)))
ODD_SIZES = ((1, 3, 97, 64), (3, 3, 50, 121), (2, 3, 200, 33))
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def make_checkpoint(name="unet", backbone=None, image_scale=1.0) -> Checkpoint:
    """A model with random weights, and batch norms that have seen something."""
    torch.manual_seed(5)
    given = {"options": {"levels": 2}} if backbone is None else {"backbone": backbone}
    model = build_model(name, num_classes=3, weights="none", **given)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    options = ModelConfig(name=name, weights="hub", **given)
    data = DataConfig(name="demo", root="/home/somebody", image_scale=image_scale)
    return Checkpoint(model.state_dict(), options, data, CLASSES, 7, {"mean_iou": 0.5, "other": float("nan")})


def random_images(size, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with a checkpoint in it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    save_checkpoint(folder / "checkpoints" / "best.pt", make_checkpoint())
    return folder


@pytest.fixture(scope="module")
def exported(run) -> Path:
    """That run, exported in every format."""
    assert main(["export", str(run), "--format", "onnx,torch-export, safetensors"]) == 0
    return run / "export"


@pytest.fixture
def segmenter(run) -> Segmenter:
    return Segmenter.from_checkpoint(load_checkpoint(run))


def test_files(exported):
    expected = {"model.onnx", "model.pt2", "model.safetensors", "config.json", "README.md"}
    assert {path.name for path in exported.iterdir()} == expected
    assert "/home/somebody" not in (exported / "config.json").read_text()


def test_onnx_equals_pytorch(exported, segmenter):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["batch", 3, "height", "width"])
    assert (result.name, result.shape) == ("logits", ["batch", 3, "height", "width"])
    for size in ODD_SIZES:
        images = random_images(size)
        with torch.no_grad():
            expected = segmenter(images).numpy()
        np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], expected, rtol=0, atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["ground", "a|b", "<i>"]
    assert json.loads(about["palette"]) == [[0, 0, 0], [255, 0, 0], [0, 9, 99]]
    assert about["normalization"] == "inside"
    assert json.loads(about["image_mean"]) == pytest.approx(segmenter.network.image_mean)


def test_exported_program_equals_pytorch(exported, segmenter):
    about = {"metadata.json": ""}
    program = torch.export.load(exported / "model.pt2", extra_files=about).module()
    for size in ODD_SIZES:
        images = random_images(size)
        with torch.no_grad():
            torch.testing.assert_close(program(images), segmenter(images), rtol=0, atol=1e-5)
    assert json.loads(json.loads(about["metadata.json"])["classes"]) == ["ground", "a|b", "<i>"]


def test_pretrained_folder_is_read_back(exported, run, segmenter, capsys):
    images = random_images((2, 3, 40, 61))
    again = Segmenter.from_pretrained(exported)
    with torch.no_grad():
        assert torch.equal(again(images), segmenter(images))
    pixels = images[0].permute(1, 2, 0).numpy()
    expected = Predictor.from_run(run)(pixels)
    assert len(np.unique(expected)) > 1
    for predictor in (Predictor.from_run(exported), Predictor(again.to_checkpoint())):
        assert np.array_equal(predictor(pixels), expected)
    checkpoint = load_checkpoint(exported)
    assert checkpoint.classes == CLASSES
    assert (checkpoint.step, checkpoint.scores["mean_iou"]) == (7, 0.5)
    assert np.isnan(checkpoint.scores["other"])
    card = (exported / "README.md").read_text()
    for part in ("pipeline_tag: image-segmentation", r"| 1 | a\|b | #ff0000 |", "| mean_iou | 50.00 |"):
        assert part in card


@pytest.mark.parametrize(
    ("name", "backbone", "image_scale"),
    [
        pytest.param("pspnet", "mobilenetv3_small_050", 1.0, marks=pytest.mark.nightly),  # pools over bins
        pytest.param("deeplabv3", "convnext_atto", 1.0, marks=pytest.mark.nightly),  # pads images, crops feature maps
        # pads convolutions as their input needs
        pytest.param("deeplabv3plus", "tf_mobilenetv3_small_minimal_100", 1.0, marks=pytest.mark.nightly),
        ("deeplabv3plus", "test_efficientnet", 0.5),
    ],
)
def test_onnx_of_other_models(name, backbone, image_scale, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    segmenter = Segmenter.from_checkpoint(make_checkpoint(name, backbone, image_scale))
    exported = export_segmenter(segmenter, "onnx", tmp_path)
    assert exported.files == (tmp_path / "model.onnx",)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = random_images(ODD_SIZES[2])
    with torch.no_grad():
        expected = segmenter(images).numpy()
    scale = max(1.0, abs(expected).max())
    np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], expected, rtol=0, atol=1e-4 * scale)


def test_smaller_images_are_resized_inside():
    """As the predictor does it, which rounds the pixels of the smaller image to integers."""
    checkpoint = make_checkpoint(image_scale=0.5)
    smooth = torch.nn.functional.interpolate(random_images((1, 3, 9, 12)).float(), (90, 120), mode="bicubic")
    image = smooth.clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        logits = Segmenter.from_checkpoint(checkpoint)(image)
    assert logits.shape == (1, 3, 90, 120)
    ids = Predictor(checkpoint)(image[0].permute(1, 2, 0).numpy())
    assert (logits[0].argmax(0).numpy() == ids).mean() > 0.99


def test_antialiased_is_interpolation():
    maps = torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(0))
    for size in ((18, 25), (12, 50), (55, 70)):
        expected = nn.functional.interpolate(maps, size, mode="bilinear", antialias=True)
        torch.testing.assert_close(antialiased(maps, size), expected)


def test_adaptive_mean_is_pooling():
    for height, width, bins in ((13, 7, (6, 6)), (6, 5, (3, 2)), (4, 3, (6, 6)), (5, 9, (1, 1)), (8, 9, 3)):
        maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        expected = torch.nn.functional.adaptive_avg_pool2d(maps, bins)
        torch.testing.assert_close(adaptive_mean(maps, bins), expected)


def test_example_in_the_documentation_runs(exported, tmp_path):
    pytest.importorskip("onnxruntime")
    example = re.search(r"```python\n(import json\n\nimport numpy.*?onnxruntime.*?)```", DOCS.read_text(), re.DOTALL)[1]
    assert len(example.strip().splitlines()) <= 13
    shutil.copy(exported / "model.onnx", tmp_path)
    image = tmp_path / "street.jpg"
    Image.fromarray(random_images((60, 83, 3)).numpy()).save(image)
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
    ids = np.asarray(Image.open(tmp_path / "street.png"))
    agreement = (ids == Predictor.from_run(exported)(read_image(image))).mean()
    assert agreement > 0.999
    assert Image.open(tmp_path / "street.png").getpalette()[3:6] == [255, 0, 0]


def test_refuses(exported, run, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert "--overwrite true" in error_of(["export", str(run), "--format", "safetensors"], capsys)
    assert "onnx, onnx-int8, openvino, executorch, torch-export, torch-aoti, triton-server, safetensors" in error_of(
        ["export", str(run), "--format", "onnx,coreml"], capsys
    )
    assert "is it a run's folder?" in error_of(["export", str(tmp_path)], capsys)
    assert "does not exist" in error_of(["export", str(tmp_path / "no")], capsys)
    (tmp_path / "file").touch()
    out = ["--format", "safetensors", "--out", str(tmp_path / "file" / "out")]
    assert "file" in error_of(["export", str(run), *out], capsys)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, None])
def test_nothing_is_left_of_an_export_that_failed(stop, run, tmp_path, monkeypatch, capsys):
    """Whether it is interrupted, or what was written computes something else."""
    compare = common.compare

    def spoiled(segmenter, other, name):
        if stop is not None:
            raise stop
        return compare(segmenter, lambda images: other(images) + 0.01, name)

    for module in (torch_program, hub_folder):
        monkeypatch.setattr(module, "compare", spoiled)
    for name in ("torch-export", "safetensors"):
        arguments = ["export", str(run), "--format", name, "--out", str(tmp_path / "out")]
        assert main(arguments) == (1 if stop is None else 130)
        assert ("differs from PyTorch by 0.01" in capsys.readouterr().err) == (stop is None)
        assert not list((tmp_path / "out").iterdir())


def test_damaged_pretrained_folders(exported, tmp_path):
    def damaged(name: str, file: str, content: bytes) -> Path:
        folder = tmp_path / name
        shutil.copytree(exported, folder)
        (folder / file).write_bytes(content)
        return folder

    config = json.loads((exported / "config.json").read_text())
    for name, file, content, problem in (
        ("cut", "model.safetensors", (exported / "model.safetensors").read_bytes()[:1000], "safetensors"),
        ("text", "config.json", b"{", "config.json"),
        ("other", "config.json", b'{"model_type": "bert"}', "does not have the format"),
        ("few", "config.json", json.dumps({**config, "classes": {"names": ["a"]}}).encode(), "classes|argument"),
    ):
        folder = damaged(name, file, content)
        with pytest.raises(ValueError, match=problem) as caught:
            load_checkpoint(folder)
        assert str(folder) in str(caught.value)
    os.remove(tmp_path / "cut" / "model.safetensors")
    with pytest.raises(ValueError, match=re.escape("model.safetensors")):
        load_checkpoint(tmp_path / "cut")


def test_wrong_weights_are_not_loaded(exported, tmp_path):
    """Random weights in the place of missing ones would go unnoticed."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["network.network.classify.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(RuntimeError, match=re.escape("classify.weight")):
        Segmenter.from_pretrained(folder)
    with pytest.raises(ValueError, match="not those of unet"):
        Predictor.from_run(folder)


def test_description_is_plain(segmenter):
    assert json.loads(json.dumps(asdict(segmenter.description.classes)))["names"] == ["ground", "a|b", "<i>"]


def test_a_format_of_a_plugin(run, tmp_path, request):
    """Registered, it is written by name like any other."""
    request.addfinalizer(forget_plugins)

    @registry.register("export", "text")
    class Text:
        files = ("classes.txt",)

        def write(self, segmenter, out):
            (out / "classes.txt").write_text("\n".join(segmenter.classes.names))
            return 0.0

    exported = export(run, ["text"], out=tmp_path)["text"]
    assert (exported.difference, exported.files) == (0.0, (tmp_path / "classes.txt",))
    assert exported.files[0].read_text() == "ground\na|b\n<i>"
    with pytest.raises(FileExistsError):
        export(run, ["text"], out=tmp_path)
