"""Models of other libraries: logits, training, checkpoints, and what is said where they cannot be had."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch
import torch
import torchvision
import transformers
from torch import nn

from rmiseg.cli import main
from rmiseg.config import OptimConfig
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.models import build_model, weights
from rmiseg.models.external import smp
from rmiseg.models.external.wrapped import IMAGENET, WrappedModel
from rmiseg.training.optim import parameter_groups

pytestmark = pytest.mark.slow

SMP_STRIDES = {"Unet": 1, "UnetPlusPlus": 1, "MAnet": 1, "Linknet": 1, "FPN": 4, "PSPNet": 8, "PAN": 4, "DeepLabV3": 8}
SMP_STRIDES |= {"DeepLabV3Plus": 4, "UPerNet": 4, "Segformer": 4}
SMP_ENCODERS = dict.fromkeys(SMP_STRIDES, "resnet18") | {"FPN": "tu-resnet18", "Segformer": "mit_b0"}


def small_segformer(num_labels: int = 4) -> nn.Module:
    return transformers.AutoModelForSemanticSegmentation.from_config(
        transformers.SegformerConfig(
            num_labels=num_labels,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
        )
    )


@pytest.fixture
def segformer(tmp_path: Path) -> Path:
    """A model of four classes, saved as one of the hub is."""
    small_segformer().save_pretrained(tmp_path / "segformer")
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "do_resize": False}
    (tmp_path / "segformer" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "segformer"


class Unreachable:
    def head(self, *args: object, **kwargs: object) -> None:
        raise ConnectionError("name not known")


def check(model: nn.Module, stride: int, num_classes: int = 3) -> None:
    """Logits of odd sizes, a training step, and one encoder whose parameters are not the head's."""
    with torch.no_grad():
        for height, width in ((128, 160), (139, 130)):
            logits = model.eval()(torch.randn(2, 3, height, width))
            assert logits.shape == (2, num_classes, -(-height // stride), -(-width // stride))
            assert logits.isfinite().all()
    output = model.train()(torch.randn(2, 3, 128, 128))
    sum(part.square().mean() for part in (output if isinstance(output, tuple) else (output,))).backward()
    backbone = {id(parameter) for parameter in model.backbone.parameters()}  # some of smp do not use all of it
    assert all(parameter.grad is not None for parameter in model.parameters() if id(parameter) not in backbone)
    groups = parameter_groups(model, OptimConfig(head_lr_factor=10.0))
    counts = [sum(p.numel() for g in groups if g["lr_factor"] == factor for p in g["params"]) for factor in (1.0, 10.0)]
    assert counts[0] == sum(p.numel() for p in model.backbone.parameters())
    assert counts[1] > 0


@pytest.mark.parametrize("name", SMP_STRIDES)
def test_smp(name):
    model = build_model(f"smp:{name}", num_classes=3, backbone=SMP_ENCODERS[name], weights="none")
    check(model, SMP_STRIDES[name])


def test_smp_without_its_upsampling_is_smp():
    torch.manual_seed(0)
    ours = build_model("smp:FPN", num_classes=3, backbone="resnet18", weights="none").eval()
    theirs = segmentation_models_pytorch.FPN("resnet18", encoder_weights=None, classes=3).eval()
    theirs.load_state_dict(ours.network.state_dict())
    images = torch.randn(1, 3, 64, 96)
    upsampled = theirs.segmentation_head[1](ours(images))
    torch.testing.assert_close(upsampled, theirs(images))


def test_smp_has_all_its_architectures():
    names = smp.names()
    assert {*SMP_STRIDES, "DPT"} <= set(names)


def test_smp_with_timm_weights_from_a_package():
    model = build_model("smp:Unet", num_classes=3, backbone="tu-tf_efficientnet_lite0", weights="package")
    other = build_model("deeplabv3", num_classes=3, backbone="tf_efficientnet_lite0", weights="package")
    theirs, ours = model.backbone.model.state_dict(), other.backbone.body.state_dict()
    torch.testing.assert_close(theirs["conv_stem.weight"], ours["conv_stem.weight"])
    assert model.image_mean == other.image_mean != (0.485, 0.456, 0.406)


def test_smp_weights_of_a_file(tmp_path):
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    model = build_model("smp:Unet", num_classes=3, backbone="resnet18", weights=tmp_path / "resnet18.pth")
    torch.testing.assert_close(model.backbone.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


def test_smp_output_stride():
    model = build_model("smp:DeepLabV3Plus", num_classes=3, backbone="resnet18", weights="none", output_stride=8)
    assert [f.shape[-1] for f in model.backbone.eval()(torch.zeros(1, 3, 64, 64))][-1] == 8


@pytest.mark.parametrize(("name", "stride"), [("lraspp_mobilenet_v3_large", 8), ("deeplabv3_mobilenet_v3_large", 16)])
def test_torchvision(name, stride):
    torch.manual_seed(0)
    model = build_model(f"torchvision:{name}", num_classes=3, weights="none")
    check(model, stride)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.eval().network(images)["out"]
        upsampled = nn.functional.interpolate(model(images), images.shape[-2:], mode="bilinear")
    torch.testing.assert_close(upsampled, expected)


def test_torchvision_has_an_auxiliary_head():
    model = build_model("torchvision:fcn_resnet50", num_classes=3, weights="none")
    logits, auxiliary = model(torch.randn(2, 3, 33, 33))
    assert logits.shape == auxiliary.shape == (2, 3, 5, 5)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
@pytest.mark.parametrize("num_classes", [21, 5])
def test_torchvision_weights_of_coco(monkeypatch, name, num_classes):
    published = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21, **(
        {} if name.startswith("lraspp") else {"aux_loss": True}
    ))  # fmt: skip
    kind = type(torchvision.models.get_model_weights(name).DEFAULT)
    monkeypatch.setattr(kind, "get_state_dict", lambda *args, **kwargs: published.state_dict())
    model = build_model(f"torchvision:{name}", num_classes=num_classes)
    same = [torch.equal(t, published.state_dict()[k]) for k, t in model.network.state_dict().items()
            if t.shape == published.state_dict()[k].shape]  # fmt: skip
    assert all(same)
    assert (len(same) == len(published.state_dict())) == (num_classes == 21)
    assert model(torch.randn(2, 3, 64, 64))[0].shape[0 if name.startswith("lraspp") else 1] == num_classes


def test_torchvision_weights_of_another_model(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"do not fit torchvision:fcn_resnet50: \d+ entries"):
        build_model("torchvision:fcn_resnet50", num_classes=3, weights=tmp_path / "resnet18.pth")


def test_hugging_face(segformer):
    model = build_model(f"hf:{segformer}", num_classes=3, weights="none")
    check(model, 4)
    assert (model.image_mean, model.image_std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    theirs = transformers.AutoModelForSemanticSegmentation.from_pretrained(segformer)
    model = build_model(f"hf:{segformer}", num_classes=4).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(images), theirs.eval()(images).logits)


def test_hugging_face_with_other_classes(segformer):
    theirs = transformers.AutoModelForSemanticSegmentation.from_pretrained(segformer)
    model = build_model(f"hf:{segformer}", num_classes=7)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7, 16, 16)
    for key, tensor in theirs.segformer.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], tensor)


def test_hugging_face_weights_of_a_file(segformer, tmp_path):
    other = small_segformer()
    torch.save(other.state_dict(), tmp_path / "other.pth")
    model = build_model(f"hf:{segformer}", num_classes=4, weights=tmp_path / "other.pth")
    torch.testing.assert_close(model.network.state_dict(), other.state_dict())


def test_hugging_face_upernet_with_a_backbone_of_its_own(tmp_path):
    backbone = transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], out_features=[
        "stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=24, auxiliary_channels=8, num_labels=4
    )
    transformers.AutoModelForSemanticSegmentation.from_config(config).save_pretrained(tmp_path / "upernet")
    check(build_model(f"hf:{tmp_path / 'upernet'}", num_classes=3, weights="none"), 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "deeplabv4",
            {},
            "model deeplabv4 is none of .*smp:NAME, torchvision:NAME, hf:NAME; did you mean deeplabv3",
        ),
        ("smp:unet", {}, "unknown model 'smp:unet'; segmentation-models-pytorch has .*Unet, UnetPlusPlus"),
        ("smp:Unet", {"backbone": "resnet19"}, "unknown encoder 'resnet19'.*did you mean .*resnet18.*tu-NAME"),
        ("smp:Unet", {"output_stride": 8}, "smp:Unet gives no choice of model.output_stride"),
        ("smp:Unet", {"weights": "package"}, "no package carries weights for the encoder 'resnet34'"),
        ("smp:DPT", {"weights": "none"}, "smp:DPT cannot have the encoder 'resnet34'"),
        ("torchvision:fcn", {}, "unknown model 'torchvision:fcn'; torchvision has .*fcn_resnet50"),
        ("torchvision:fcn_resnet50", {"backbone": "resnet18"}, "no choice of model.backbone; leave it out"),
        ("torchvision:fcn_resnet50", {"weights": "package"}, "no package carries weights"),
        ("hf:nvidia/segformer", {"output_stride": 16}, "gives no choice of model.output_stride"),
    ],
)
def test_what_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, num_classes=3, **options)


class OneSize(nn.Conv2d):
    def forward(self, images):
        if images.shape[-2:] != (224, 224):
            raise AssertionError("images must be 224 x 224")
        return super().forward(images)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (OneSize(3, 4, 1), "OneSize does not take images of any size.*must be 224 x 224"),
        (nn.Conv2d(3, 5, 1), r"gives \(1, 5, 97, 131\) for an image, not logits of 4 classes"),
    ],
)
def test_networks_that_do_not_segment_images_of_any_size(network, message):
    with pytest.raises(ValueError, match=message):
        WrappedModel(network, lambda network, images: network(images), "", num_classes=4, architecture=IMAGENET)


def test_hugging_face_folders_that_are_none(tmp_path, segformer):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        build_model(f"hf:{tmp_path / 'nowhere'}", num_classes=3)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        build_model(f"hf:{tmp_path}", num_classes=3)
    content = json.loads((segformer / "config.json").read_text())
    content |= {"model_type": "bert", "num_attention_heads": 2}
    (segformer / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"of the kind 'bert'.*segformer"):
        build_model(f"hf:{segformer}", num_classes=3)
    (segformer / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no configuration that transformers can read"):
        build_model(f"hf:{segformer}", num_classes=3)


@pytest.mark.parametrize("name", ["smp:Unet", "hf:nvidia/mit-b0"])
def test_without_a_network(monkeypatch, name):
    monkeypatch.setattr(weights, "get_session", Unreachable)
    monkeypatch.setattr(weights, "_is_cached", lambda *args: False)
    with pytest.raises(OSError, match=r"cannot download .*name not known.*Without a network: "):
        build_model(name, num_classes=3)


def test_torchvision_without_a_network(monkeypatch):
    def download(*args: object, **kwargs: object) -> None:
        raise OSError("name not known")

    kind = type(torchvision.models.get_model_weights("fcn_resnet50").DEFAULT)
    monkeypatch.setattr(kind, "get_state_dict", download)
    with pytest.raises(OSError, match=r"weights of torchvision:fcn_resnet50: name not known\. Without a network"):
        build_model("torchvision:fcn_resnet50", num_classes=3)


@pytest.mark.parametrize(("name", "module", "extra"), [("smp:Unet", "segmentation_models_pytorch", "smp"),
                                                       ("hf:nvidia/mit-b0", "transformers", "hf")])  # fmt: skip
def test_without_the_library(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf'pip install "\.\[{extra}\]"'):
        build_model(name, num_classes=3, weights="none")


def test_train_evaluate_predict(segformer, shapes, tmp_path, capsys):
    """The checkpoint of a model from a folder needs the folder no more."""
    run = tmp_path / "run"
    options = {
        "data.root": shapes,
        "data.crop_size": "[48,48]",
        "data.batch_size": 2,
        "data.workers": 0,
        "model.name": f"hf:{segformer}",
        "train.steps": 2,
        "train.panels": 0,
        "out": run,
    }
    assert main(["train", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]) == 0
    assert f"Traininghf:{segformer}andthermi+diceloss" in "".join(capsys.readouterr().out.split())
    (segformer / "config.json").unlink()
    assert main(["evaluate", str(run)]) == 0
    assert main(["predict", str(run), str(shapes / "images"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out" / "index").iterdir())) == 10
    assert load_checkpoint(run).architecture["image_mean"] == (0.5, 0.4, 0.3)
