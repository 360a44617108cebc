"""Files of other programs: state dicts in any nest, names within other networks, last layers of one class."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from rmiseg.cli import main
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.models.conversion import find_state_dict, fit, recognize, unwrapped
from rmiseg.models.conversion.torchvision_files import torchvision_name
from rmiseg.models.weights import copy_weights, read_weights

STATE = {"backbone.conv1.weight": torch.ones(2, 3, 1, 1), "classifier.4.bias": torch.ones(4)}
OTHER = {name: value * 0 for name, value in STATE.items()}
OPTIMIZER = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}}


def within(beginning: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {beginning + name: value for name, value in state.items()}


@pytest.fixture(autouse=True)
def no_initial_weights(monkeypatch):
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: nn.init.zeros_(tensor))


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        within("module."),
        within("module.module."),
        within("_orig_mod.module."),
        {"state_dict": within("model."), **OPTIMIZER},
        {"state_dict": within("net."), "epoch": 3},
        {"state_dict": within("network.")},
        {"state_dict": {**within("model.segmentor."), "model.loss.weight": torch.ones(1)}},
        {"model": {"state_dict": STATE}},
        {"checkpoint": {"model": within("module.")}},
        {"model": OTHER, "model_ema": STATE},
        {"state_dict": OTHER, "state_dict_ema": within("module.")},
        {"model": OTHER, "ema": {"module": STATE, "updates": 7}, **OPTIMIZER},
        {"params": OTHER, "params_ema": STATE},
        {"student": OTHER, "teacher": STATE},
        {"ema_state_dict": STATE},
        {"state_dict": STATE, "ema_state_dict": {"steps": torch.tensor(3), **within("module.", OTHER)}},  # mmengine's
        {"n_averaged": torch.tensor(5), **within("module.")},
        {"my_network": STATE, **OPTIMIZER},
        [within("model._orig_mod."), 3],
    ],
)
def test_state_dict_in_any_nest(content):
    found = unwrapped(find_state_dict(content))
    assert recognize(found).title == "torchvision"
    for name, value in STATE.items():
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, OPTIMIZER, torch.zeros(3), [3], {"state_dict": {}}])
def test_file_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "theirs.pth")
    assert find_state_dict(content) is None
    with pytest.raises(ValueError, match=r"theirs\.pth' holds no tensors that have names"):
        read_weights(tmp_path / "theirs.pth")


@pytest.mark.parametrize("beginning", ["", "net.", "encoder.", "backbone.", "student.backbone.", "encoder_q."])
def test_backbone_within_any_network(beginning):
    body = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 2, 1), bn1=nn.BatchNorm2d(2)))
    state = {name: torch.full_like(value, 3) for name, value in body.state_dict().items()}
    others = {f"encoder_k.{name}": value * 0 for name, value in state.items()} if "_q" in beginning else {}
    copy_weights({**within(beginning, state), **others, "head.weight": torch.zeros(1)}, body, "")
    assert body.conv1.weight.flatten().tolist() == [3.0] * 6


def small(name: str) -> nn.Module:
    make = getattr(torchvision.models.segmentation, name)
    with torch.device("meta"):
        return make(weights=None, weights_backbone=None, num_classes=4)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
        ("deeplabv3_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"),
        ("fcn_resnet50", "fcn_resnet50"),
        ("fcn_resnet101", "fcn_resnet101"),
        ("deeplabv3_resnet50", None),  # without its auxiliary head it is ours
    ],
)
def test_which_model_of_torchvision(name, found):
    state = small(name).state_dict()
    assert recognize(state).title == "torchvision"
    assert torchvision_name(state) == found


def converted(source: Path, *arguments: str) -> Any:
    out = source.parent / "ours.pt"
    assert main(["convert", str(source), "--out", str(out), *arguments]) == 0
    return load_checkpoint(out).build_model(torch.device("cpu"))


def logits_at_full_size(model: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return F.interpolate(model(images), images.shape[-2:], mode="bilinear", align_corners=model.align_corners)


def random_model(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def test_settings_that_a_saved_model_of_smp_has(tmp_path, capsys):
    """Among them those that no shape tells."""
    theirs = random_model(
        smp.Unet("tu-mobilenetv3_small_050", encoder_weights=None, classes=1, encoder_depth=2, decoder_channels=(8, 4),
                 decoder_interpolation="bilinear")
    )  # fmt: skip
    theirs.save_pretrained(tmp_path / "theirs")
    images = torch.randn(1, 3, 32, 48)
    logits = logits_at_full_size(converted(tmp_path / "theirs"), images)
    assert "Its only class, behind a sigmoid, is class 1 of two" in capsys.readouterr().out
    with torch.no_grad():
        torch.testing.assert_close(logits.softmax(1)[:, 1:], theirs(images).sigmoid())


def test_channels_of_a_saved_model(tmp_path, capsys):
    theirs = smp.Unet(
        "tu-mobilenetv3_small_050", encoder_weights=None, in_channels=4, encoder_depth=1, decoder_channels=(4,)
    )
    theirs.save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours.pt")]) == 1
    assert "takes images of 4 channels, and does not say what they are" in capsys.readouterr().err


def test_one_class_begins_two():
    theirs, ours = nn.Conv2d(2, 1, 1), nn.Sequential(OrderedDict(last=nn.Conv2d(2, 2, 1)))
    ours.num_classes = 2
    found = fit({f"last.{name}": value for name, value in theirs.state_dict().items()}, ours)
    assert found.doubled == ["last.weight", "last.bias"]
    assert torch.equal(found.found["last.weight"], torch.cat([torch.zeros(1, 2, 1, 1), theirs.weight]))


def test_rates_of_aspp_hold_at_one_output_stride(tmp_path, capsys):
    names = ("pretrained.conv1.weight", "pretrained.layer1.0.conv1.weight", "head.aspp.b0.0.weight")
    state = {name: torch.zeros(3, 3, 1, 1) for name in (*names, "head.block.0.weight", "head.block.4.weight")}
    torch.save(state, tmp_path / "theirs.pth")
    convert = ["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt"), "--backbone", "resnet18"]
    assert main([*convert, "--output_stride", "16"]) == 1
    assert "has the rates 12, 24 and 36 at any output stride" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (["encoder.conv1.weight", "segmentation_head.0.weight"], "does not say of which of its models"),
        (["backbone.conv1.weight", "decode_head.fc.weight"], "with a head of decode_head.fc: no model of rmiseg has"),
        (["anything.weight"], "holds no whole model that rmiseg knows. It holds anything.weight"),
        (["backbone.1.weight", "classifier.1.weight"], "rmiseg knows, but something of torchvision"),
    ],
)
def test_file_of_no_model(state, message, tmp_path, capsys):
    torch.save({name: torch.zeros(2, 2) for name in state}, tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "goes into a training as --model.weights" in error


def test_timm_backbone_within_a_network_of_others(tmp_path):
    """With --init, whose names are those of the whole model."""
    theirs = timm.create_model("test_resnet")
    model = nn.Module()
    model.add_module("backbone", nn.ModuleDict({"body": timm.create_model("test_resnet", features_only=True)}))
    state = {f"net.{name}": torch.full_like(value, 2) for name, value in theirs.state_dict().items()}
    found = fit(state, model)
    assert found.complete
    assert all(name.startswith("net.fc") for name in found.unused)
