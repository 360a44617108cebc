"""Models of other programs: equal logits from the real layout of their files, and what is said of what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch
import timm
import torch
import torch.nn.functional as F
import torchvision
from rich.console import Console
from torch import Tensor, nn

from foreign import Malicious, assert_close, encoding_names, logits_of, mmsegmentation_names, original_names, shaken
from rmiseg.cli import main
from rmiseg.config import DataConfig
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.conversion import initial_weights
from rmiseg.models import build_model
from rmiseg.models.conversion import backbone_entries, fit
from rmiseg.models.weights import read_weights
from rmiseg.training.initial import initialize

SIZE = (65, 97)


@pytest.fixture(autouse=True)
def no_initial_weights(monkeypatch):
    """Zeros: random numbers for the weights of a ResNet-50, which are read from a file next, take a second."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: nn.init.zeros_(tensor))


def renamed(model: nn.Module, names) -> dict[str, Tensor]:
    """The state dict of a model of ours as another program has it."""
    return {names(name): value for name, value in model.state_dict().items()}


# In these three programs' layouts, written out by hand: none of them is a package that can be installed.
@pytest.mark.parametrize("head", ["deeplabv3", "deeplabv3plus", "pspnet"])
@pytest.mark.slow
def test_original(head, tmp_path):
    model = shaken(build_model(head, num_classes=21, backbone="resnet50s", weights="none", compat="original"))
    state = renamed(model, original_names(head))
    assert "model.backbone.layer4.2.bn3.running_var" in state
    path = tmp_path / "deeplab-resnet_ckpt_30406.pth"
    torch.save({"global_step": 30406, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    assert main(["convert", str(path), "--out", str(tmp_path / "ours.pt"), "--data", "voc"]) == 0
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = F.interpolate(model(images), SIZE, mode="bilinear", align_corners=True)
    assert_close(logits_of(tmp_path / "ours.pt", images), expected)
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert checkpoint.classes.names[15] == "person"
    assert (checkpoint.data.name, checkpoint.data.image_mean) == ("voc", (116.0, 113.0, 104.0))
    assert (checkpoint.model.compat, checkpoint.model.backbone) == ("original", "resnet50s")


@pytest.mark.parametrize("head", ["deeplabv3", "pspnet"])
@pytest.mark.slow
def test_pytorch_encoding(head, tmp_path):
    options = {"align_corners": True} | ({"refine": True} if head == "deeplabv3" else {})
    model = build_model(head, num_classes=6, backbone="resnet50s", weights="none", output_stride=8, options=options)
    state = renamed(shaken(model), encoding_names)
    # with what multi-GPU training and its script leave in a file
    content = {"epoch": 3, "best_pred": np.float64(0.5), "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(content, tmp_path / "theirs.pth.tar")
    assert main(["convert", str(tmp_path / "theirs.pth.tar"), "--out", str(tmp_path / "ours.pt")]) == 0
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = F.interpolate(model(images), SIZE, mode="bilinear", align_corners=True)
    assert_close(logits_of(tmp_path / "ours.pt", images), expected)


@pytest.mark.slow
def test_mmsegmentation(tmp_path):
    model = build_model("pspnet", num_classes=6, backbone="resnet50c", weights="none", output_stride=8)
    state = renamed(shaken(model), mmsegmentation_names)
    assert {"backbone.stem.7.weight", "decode_head.psp_modules.3.1.bn.bias"} <= set(state)
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 0
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = F.interpolate(model(images), SIZE, mode="bilinear", align_corners=False)
    assert_close(logits_of(tmp_path / "ours.pt", images), expected)


@pytest.mark.slow
def test_resnet_v1d_of_mmsegmentation(tmp_path, capsys):
    """No network here is equal to it; its backbone begins a training."""
    model = build_model("pspnet", num_classes=6, backbone="resnet50d", weights="none", output_stride=8)
    state = renamed(shaken(model), mmsegmentation_names)
    assert {"backbone.stem.7.weight", "backbone.layer1.0.downsample.2.weight"} <= set(state)
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 1
    assert "is a ResNetV1d of mmsegmentation" in capsys.readouterr().err
    ours = build_model("deeplabv3", num_classes=2, backbone="resnet50d", weights=tmp_path / "theirs.pth")
    for name, value in ours.backbone.body.state_dict().items():
        assert torch.equal(value, model.backbone.body.state_dict()[name]), name


@pytest.mark.parametrize(("name", "auxiliary"), [("deeplabv3", True), ("deeplabv3", False), ("fcn", True)])
@pytest.mark.slow
def test_torchvision(name, auxiliary, tmp_path, capsys):
    """Its own model where the file holds all of that; our DeepLabv3 where the auxiliary head is missing."""
    make = getattr(torchvision.models.segmentation, f"{name}_resnet50")
    theirs = shaken(make(weights=None, weights_backbone=None, num_classes=4, aux_loss=auxiliary))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 0
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = theirs(images)["out"]
    assert_close(logits_of(tmp_path / "ours.pt", images), expected)
    assert load_checkpoint(tmp_path / "ours.pt").model.name == (f"torchvision:{name}_resnet50" if auxiliary else name)


@pytest.mark.slow
def test_a_model_of_torchvision_goes_on_in_our_deeplabv3(tmp_path):
    make = torchvision.models.segmentation.deeplabv3_resnet50
    theirs = shaken(make(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    console = Console(record=True, width=200)
    ours = build_model(
        "deeplabv3", num_classes=5, backbone="resnet50", weights="none", output_stride=8, options={"refine": True}
    ).eval()
    initialize(ours, tmp_path / "theirs.pth", console)
    text = console.export_text()
    assert "(torchvision)" in text
    assert "of another shape there: classifier.weight, classifier.bias" in text
    assert "classifier.weight is of 21 classes instead of 5; classifier.bias is of 21 classes instead of 5" in text
    assert "aux_classifier.0.weight" in text
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        features = nn.Sequential(*list(theirs.classifier)[:4])(theirs.backbone(images)["out"])
        assert_close(ours.refine(ours.aspp(ours.backbone(images)[-1])), features)
        # without the convolution that its classifier stands on, the classifier is of no use either
        plain = build_model("deeplabv3", num_classes=21, backbone="resnet50", weights="none", output_stride=8).eval()
        before = plain.classifier.weight.clone()
        initialize(plain, tmp_path / "theirs.pth", console)
        assert torch.equal(plain.classifier.weight, before)
        assert_close(plain.backbone(images)[-1], theirs.backbone(images)["out"])


@pytest.mark.parametrize(("name", "encoder"), [("Unet", "resnet18"), ("FPN", "tu-resnet18"), ("DeepLabV3", "resnet18")])
@pytest.mark.slow
def test_segmentation_models_pytorch(name, encoder, tmp_path):
    theirs = shaken(getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, classes=3))
    theirs.save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours.pt")]) == 0
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(images)
    assert_close(logits_of(tmp_path / "ours.pt", images), expected)
    # a file without the description, into a model that is named
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    model = build_model(f"smp:{name}", num_classes=3, backbone=encoder, weights="none").eval()
    initialize(model, tmp_path / "theirs.pth", Console(quiet=True))
    with torch.no_grad():
        assert_close(
            F.interpolate(model(images), (64, 96), mode="bilinear", align_corners=model.align_corners), expected
        )
    encoder_alone = (
        build_model(f"smp:{name}", num_classes=2, backbone=encoder, weights=str(tmp_path / "theirs.pth"))
        if encoder == "resnet18"
        else model
    )
    assert torch.equal(next(encoder_alone.backbone.parameters()), next(theirs.encoder.parameters()))


@pytest.mark.slow
def test_deeplabv3_of_segmentation_models_pytorch_is_ours(tmp_path):
    theirs = shaken(segmentation_models_pytorch.DeepLabV3("resnet18", encoder_weights=None, classes=3))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 0
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert (checkpoint.model.name, checkpoint.model.backbone) == ("deeplabv3", "resnet18")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = theirs.encoder(images)
        ours = checkpoint.build_model(torch.device("cpu"))
        assert_close(
            ours.classifier(ours.refine(ours.aspp(features[-1]))), theirs.segmentation_head[0](theirs.decoder(features))
        )


def files_of_backbones(folder: Path) -> dict[str, nn.Module]:
    """One backbone, resnet18, out of the files of several programs."""
    witness = shaken(timm.create_model("resnet18"))
    state = witness.state_dict()
    for name, prefix, further in (
        ("timm.pth", "", []),
        ("parallel.pth", "module.", []),
        ("torchvision.pth", "backbone.", ["classifier.4.weight"]),
        ("smp.pth", "encoder.", ["segmentation_head.0.weight"]),
        ("encoding.pth", "pretrained.", ["head.conv5.5.weight"]),
        ("mmseg.pth", "backbone.", ["decode_head.conv_seg.weight"]),
        ("original.pth", "model.backbone.", ["model.aspp.aspp1.bn.weight"]),
        ("ours.pth", "backbone.body.", ["classifier.weight"]),
    ):
        head = {prefix.replace("module.", "module.") + "fc.weight": state["fc.weight"]} if name == "timm.pth" else {}
        body = {prefix + key: value for key, value in state.items() if not key.startswith("fc.")}
        torch.save({"state_dict": body | head | dict.fromkeys(further, torch.zeros(2))}, folder / name)
    return witness


@pytest.mark.parametrize("kind", ["timm", "parallel", "torchvision", "smp", "encoding", "mmseg", "original", "ours"])
@pytest.mark.slow
def test_backbone_out_of_any_file(kind, tmp_path):
    witness = files_of_backbones(tmp_path)
    model = build_model("deeplabv3", num_classes=2, backbone="resnet18", weights=tmp_path / f"{kind}.pth").eval()
    state = witness.state_dict()
    for name, value in model.backbone.body.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(
    ("key", "prefix"),
    [("state_dict", "model."), ("model", "module."), ("model_state", "module.model."), ("model_state_dict", "")],
)
@pytest.mark.slow
def test_names_of_others_in_any_nest(key, prefix, tmp_path):
    """Whole models, within whatever a training script or Lightning writes around them."""
    theirs = shaken(segmentation_models_pytorch.FPN("resnet18", encoder_weights=None, classes=3))
    state = {prefix + name: value for name, value in theirs.state_dict().items()}
    torch.save({key: state, "optimizer_state": {"lr": 0.1}, "cur_itrs": 7}, tmp_path / "theirs.pth")
    model = build_model("smp:FPN", num_classes=3, backbone="resnet18", weights="none")
    assert fit(initial_weights(tmp_path / "theirs.pth")[0], model).complete
    body = backbone_entries(read_weights(tmp_path / "theirs.pth"))
    assert torch.equal(body["layer1.0.conv1.weight"], theirs.encoder.layer1[0].conv1.weight)


@pytest.mark.slow
def test_what_does_not_fit_is_listed(tmp_path, capsys):
    model = build_model("deeplabv3", num_classes=21, backbone="resnet18", weights="none", compat="original")
    state = renamed(model, original_names("deeplabv3"))
    del state["model.aspp.bn1.bias"]
    state["model.extra.weight"] = torch.zeros(3)
    torch.save({"state_dict": state}, tmp_path / "theirs.pth")
    convert = ["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]
    assert main(convert) == 1
    error = capsys.readouterr().err
    assert "does not hold all of deeplabv3 with resnet18: missing aspp.project.norm.bias" in error
    assert "the file alone has extra.weight" in error
    assert "--init" in error
    assert not (tmp_path / "ours.pt").exists()

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "theirs.pth")
    assert main(convert) == 1
    assert "A backbone alone goes into a training as --model.weights" in capsys.readouterr().err
    assert main([*convert, "--data", "pascal"]) == 1
    (tmp_path / "ours.pt").touch()
    assert main(convert) == 1
    assert "exists; choose another file with --out, or replace it with --overwrite" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nothing.pth"), "--out", str(tmp_path / "new.pt")]) == 1
    assert "nothing.pth does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_classes_and_data(tmp_path, capsys):
    model = build_model("deeplabv3", num_classes=12, backbone="resnet18", weights="none", compat="original")
    torch.save({"state_dict": renamed(model, original_names("deeplabv3"))}, tmp_path / "theirs.pth")
    convert = ["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt"), "--data"]
    assert main([*convert, "voc"]) == 1
    assert "the model has 12 classes, and voc has 21" in capsys.readouterr().err
    assert main([*convert, "elsewhere"]) == 1
    assert "--data elsewhere is none of voc, cityscapes, camvid, ade20k" in capsys.readouterr().err
    assert main([*convert, "camvid"]) == 0
    checkpoint = load_checkpoint(tmp_path / "ours.pt")
    assert checkpoint.classes.names[-1] == "Void"
    assert checkpoint.data == DataConfig(
        name="camvid", image_mean=(100, 103, 106), image_std=(75.61, 77.81, 76.7), options={"void": True}
    )
    assert main(["convert", str(tmp_path / "ours.pt"), "--out", str(tmp_path / "again.pt")]) == 1
    assert "is a checkpoint of rmiseg already" in capsys.readouterr().err
    assert set(initial_weights(tmp_path / "ours.pt")[0]) == set(model.state_dict())


@pytest.mark.parametrize("command", ["convert", "init"])
def test_code_in_a_file_does_not_run(command, tmp_path, capsys):
    trace = tmp_path / "trace"
    torch.save({"state_dict": Malicious(trace)}, tmp_path / "theirs.pth")
    if command == "convert":
        assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours.pt")]) == 1
        assert "run code" in capsys.readouterr().err
    else:
        with pytest.raises(ValueError, match=r"run code.*refused"):
            initial_weights(tmp_path / "theirs.pth")
    assert not trace.exists()
