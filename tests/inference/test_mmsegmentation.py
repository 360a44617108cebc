"""Models of mmsegmentation: equal logits from the layout of its files, what their settings say, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from foreign import assert_close, logits_of, shaken
from mmsegmentation import ASPPHead, ConvNeXt, DepthwiseSeparableASPPHead, Network, ResNetV1, UPerHead
from rmiseg.cli import main
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.models import build_model
from rmiseg.models.conversion.mmsegmentation_settings import read_classes, read_settings
from rmiseg.models.weights import read_weights
from rmiseg.training.initial import initialize

CONFIGURATION = """
custom_hooks = [print("not run")]
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ResNetV1c', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True),
    decode_head=dict(type='mmseg.models.ASPPHead', dilations=(1, 12, 24, 36), align_corners=True))
"""


@pytest.fixture(autouse=True)
def no_initial_weights(monkeypatch):
    for name in ("kaiming_normal_", "kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: nn.init.zeros_(tensor))


def small(head: type, dilated: bool = True) -> Network:
    return shaken(Network(ResNetV1([2, 2, 2, 2], deep=True, dilated=dilated), head))


def saved(folder: Path, state: dict[str, Any], **meta: Any) -> Path:
    torch.save({"meta": {"epoch": 1, **meta}, "state_dict": state}, folder / "theirs.pth")
    return folder / "theirs.pth"


def refusal(source: Path, capsys: Any, *arguments: str) -> str:
    assert main(["convert", str(source), "--out", str(source.parent / "ours.pt"), *arguments]) == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("head", "dilated", "name"),
    [
        (ASPPHead, True, "deeplabv3"),
        (DepthwiseSeparableASPPHead, True, "deeplabv3plus"),
        (UPerHead, False, "upernet"),
    ],
)
@pytest.mark.slow
def test_equal_logits(head, dilated, name, tmp_path):
    theirs = small(head, dilated)
    source = saved(tmp_path, theirs.state_dict())
    assert main(["convert", str(source), "--out", str(tmp_path / "ours.pt")]) == 0
    for size in ((65, 97), (64, 96)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            assert_close(logits_of(tmp_path / "ours.pt", images), theirs(images))
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert (checkpoint.model.name, checkpoint.model.backbone) == (name, "resnet26")
    assert torch.equal(checkpoint.weights["auxiliary.2.bias"], theirs.auxiliary_head.conv_seg.bias)
    # as the beginning of a training for other classes
    model = build_model(name, num_classes=3, backbone="resnet26", weights="none", options=checkpoint.model.options)
    console = Console(record=True, width=200)
    initialize(model, source, console)
    assert "of another shape there: classifier.weight, classifier.bias, auxiliary.2.weight" in console.export_text()
    for key, value in model.state_dict().items():
        if "classifier" not in key and "auxiliary.2" not in key:
            assert torch.equal(value, checkpoint.weights[key]), key


@pytest.mark.slow
def test_convnext(tmp_path):
    theirs = shaken(Network(ConvNeXt(), UPerHead))
    assert main(["convert", str(saved(tmp_path, theirs.state_dict())), "--out", str(tmp_path / "ours.pt")]) == 0
    images = torch.randn(1, 3, 64, 96)  # of other sizes it leaves out what ours pads
    with torch.no_grad():
        assert_close(logits_of(tmp_path / "ours.pt", images), theirs(images))
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert checkpoint.model.backbone == "convnext_tiny"
    body = build_model("linear", num_classes=2, backbone="convnext_tiny", weights=tmp_path / "theirs.pth").backbone
    for name, value in body.state_dict().items():
        assert torch.equal(value, checkpoint.weights[f"backbone.{name}"]), name


@pytest.mark.slow
def test_configuration_in_a_file(tmp_path, capsys):
    theirs = small(ASPPHead)
    theirs.decode_head.corners = True
    meta = {"classes": ("a", "b", "c", "d", "e"), "palette": [[i, 0, 0] for i in range(5)]}
    text = CONFIGURATION.replace("123.675", "100")
    source = saved(tmp_path, theirs.state_dict(), cfg=text, dataset_meta=meta)
    assert main(["convert", str(source), "--out", str(tmp_path / "ours.pt")]) == 0
    output = capsys.readouterr().out
    assert "Classes by the file: a, b, c, d, e" in output
    assert "--model.options '{align_corners: true, width: 24, project_kernel: 3, auxiliary: true}'" in output
    assert "as usual" not in output
    assert "not run" not in output
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert_close(logits_of(tmp_path / "ours.pt", images), theirs(images))
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert checkpoint.align_corners
    assert checkpoint.classes.names == ("a", "b", "c", "d", "e")
    assert checkpoint.classes.palette[4] == (4, 0, 0)
    assert (checkpoint.data.image_mean, checkpoint.data.image_std) == ((100, 116.28, 103.53), None)
    assert "--output_stride 16: the configuration in" in refusal(
        source, capsys, "--output_stride", "16", "--overwrite", "true"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("contract_dilation=True", "multi_grid=(1, 2, 4), contract_dilation=True"), "multi_grid (1, 2, 4)"),
        (("contract_dilation=True", ""), "contract_dilation False"),
        (("contract_dilation=True", "contract_dilation=True, style='caffe'"), "style caffe"),
        (("(1, 1, 2, 4)", "(1, 1, 2, 2)"), "strides (1, 2, 1, 1) with dilations (1, 1, 2, 2)"),
        (("(1, 12, 24, 36)", "(1, 6, 12, 18)"), "dilations (1, 6, 12, 18) of ASPP"),
        (("bgr_to_rgb=True", "bgr_to_rgb=False"), "images in blue, green, red"),
        (("align_corners", "pool_scales=(1, 2), align_corners"), "pool_scales (1, 2)"),
    ],
)
def test_what_a_configuration_has_and_no_model_here(change, words):
    assert read_settings({"meta": {"cfg": CONFIGURATION}}).differences == ()
    assert read_settings({"meta": {"config": CONFIGURATION.replace(*change)}}).differences == (words,)
    assert read_settings({"meta": {"cfg": CONFIGURATION.replace("[123.675,", "['red',")}}).image_mean is None


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(",
        "model = 3",
        "a = b = [*c]\nmodel = {**d}",
        "model = dict(backbone=dict(type='ResNet', strides={}))",
        "model = dict(backbone=dict(a={[]}))",
        f"model = {'[' * 5000}",
        "",
        7,
    ],
)
def test_no_configuration(text):
    assert read_settings({"meta": {"cfg": text}}) is None
    assert read_classes({"meta": {"CLASSES": ("a",), "PALETTE": [[0.5, 0, 0]]}}) is None


@pytest.mark.slow
def test_other_networks_are_refused(tmp_path, capsys):
    state = dict(small(ASPPHead).state_dict())
    text = CONFIGURATION.replace("contract_dilation=True", "")
    assert "the network has contract_dilation False" in refusal(saved(tmp_path, state, cfg=text), capsys)
    for name in ("decode_head.more.weight", "backbone.norm0.weight"):
        error = refusal(saved(tmp_path, {**state, name: torch.zeros(2)}), capsys)
        assert f"is no deeplabv3 with resnet26; the file alone has {name}" in error
    basic = Network(ResNetV1([2, 2, 2, 2], deep=False, dilated=False), ASPPHead).state_dict()
    assert "is a ResNet-18 or 34 of mmsegmentation" in refusal(saved(tmp_path, basic), capsys)
    body = {name: value for name, value in state.items() if not name.startswith("backbone.")}
    swin = {**body, "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight": torch.zeros(3, 1)}
    error = refusal(saved(tmp_path, swin, cfg=CONFIGURATION.replace("ResNetV1c", "SwinTransformer")), capsys)
    assert "the backbone of the file, SwinTransformer, has stages: it is no ResNet or ConvNeXt" in error
    fcn = {"backbone.conv1.weight": torch.zeros(2, 2), "decode_head.conv_cat.bn.weight": torch.zeros(2)}
    error = refusal(saved(tmp_path, fcn, cfg=CONFIGURATION.replace("ASPPHead", "FCNHead")), capsys)
    assert "is of mmsegmentation, with FCNHead of decode_head.conv_cat: no model of rmiseg has that" in error


def test_curves_that_mmengine_keeps_beside_the_weights(tmp_path, monkeypatch):
    """They name methods of a class of its own, which is not run, nor installed."""
    module = ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.log_history, self.counts, self.methods = np.array([0.5]), np.array([3]), {"mean": HistoryBuffer.mean}

        def mean(self) -> None:
            raise AssertionError

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = module.__name__, "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    state = {"backbone.conv1.weight": torch.ones(1)}
    torch.save({"state_dict": state, "message_hub": {"loss": HistoryBuffer()}}, tmp_path / "theirs.pth")
    monkeypatch.undo()
    assert read_weights(tmp_path / "theirs.pth") == state
