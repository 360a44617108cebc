"""Vision transformers as backbones, UPerNet and the linear head over them and over others, and deep supervision."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from rmiseg.config import DataConfig, ModelConfig, OptimConfig, TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.data import ClassTable
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.models import build_model, offered_strides
from rmiseg.models.survey import survey_backbone
from rmiseg.training.assembly import complete
from rmiseg.training.optim import parameter_groups

pytestmark = pytest.mark.slow

VITS = {"vit_tiny_patch16_224": 16, "vit_small_patch14_dinov2": 14, "vit_tiny_patch16_dinov3_qkvb": 16}
each_vit = pytest.mark.parametrize("backbone", VITS)


def model(name, backbone, classes=5, **options):
    torch.manual_seed(0)
    return build_model(name, num_classes=classes, backbone=backbone, weights="none", options=options)


def cells(pixels, stride):
    return -(-pixels // stride)


@each_vit
@pytest.mark.parametrize("name", ["linear", "deeplabv3", "upernet"])
def test_images_of_any_size(backbone, name):
    made, stride = model(name, backbone).eval(), VITS[backbone]
    for height, width in ((97, 131), (4 * stride, 6 * stride)):
        with torch.no_grad():
            logits = made(torch.randn(1, 3, height, width))
        factor = 4 if name == "upernet" else 1
        assert logits.shape == (1, 5, factor * cells(height, stride), factor * cells(width, stride))
        assert logits.isfinite().all()


@each_vit
def test_all_of_it_is_trained(backbone):
    made = model("upernet", backbone, auxiliary=True).train()
    logits, auxiliary = made(torch.randn(2, 3, 64, 80))
    (logits.square().mean() + auxiliary.square().mean()).backward()
    without = [name for name, p in made.named_parameters() if p.grad is None]
    assert without == []


def test_weights_of_the_whole_transformer_are_taken(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    torch.save(source.state_dict(), tmp_path / "vit.pt")
    made = build_model(
        "linear", num_classes=2, backbone="vit_tiny_patch16_224", weights=str(tmp_path / "vit.pt")
    ).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = source.eval().forward_intermediates(images, indices=[11], norm=False, intermediates_only=True)[0]
        found = made.backbone(images)
    assert len(found) == 4
    assert torch.allclose(found[-1], expected, atol=1e-5)


def test_the_output_stride_is_that_of_the_patches():
    assert list(offered_strides("vit_small_patch14_dinov2")) == [14]
    config = complete(TrainConfig(model=ModelConfig(name="linear", backbone="vit_small_patch14_dinov2")))
    assert config.model.output_stride is None
    assert complete(TrainConfig(model=ModelConfig(backbone="resnet18"))).model.output_stride == 16
    with pytest.raises(ValueError, match=r"has no feature maps of output stride 8 .* it offers output stride 14"):
        build_model("linear", num_classes=2, backbone="vit_small_patch14_dinov2", weights="none", output_stride=8)
    with pytest.raises(ValueError, match=r"DeepLabv3\+ needs a feature map of stride 4"):
        model("deeplabv3plus", "vit_tiny_patch16_224")


def test_survey():
    found = survey_backbone("vit_tiny_patch16_224")
    assert found.output_strides == (16,)
    assert set(found.models) == {"deeplabv3", "pspnet", "upernet", "linear"}


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "tf_efficientnet_lite0"])
def test_upernet_over_a_pyramid(backbone):
    made = model("upernet", backbone, width=32).eval()
    with torch.no_grad():
        assert made(torch.randn(2, 3, 97, 131)).shape == (2, 5, 25, 33)
    assert made.train()(torch.randn(2, 3, 64, 64)).shape == (2, 5, 16, 16)


def test_upernet_is_built_again_from_its_checkpoint(tmp_path):
    options = {"align_corners": False, "width": 16, "auxiliary": True}
    made = build_model(
        "upernet", num_classes=2, backbone="vit_tiny_patch16_224", weights="none", options=options
    ).eval()
    config = ModelConfig(name="upernet", backbone="vit_tiny_patch16_224", weights="none", options=options)
    classes = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
    save_checkpoint(tmp_path / "a.pt", Checkpoint(made.state_dict(), config, DataConfig(), classes, 1, {}))
    again = load_checkpoint(tmp_path / "a.pt").build_model(torch.device("cpu")).eval()
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        assert torch.allclose(made(images), again(images), atol=1e-5)


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus", "upernet"])
def test_deep_supervision(name):
    plain, made = (model(name, "resnet18", auxiliary=auxiliary) for auxiliary in (False, True))
    assert isinstance(plain.train()(torch.randn(2, 3, 64, 64)), torch.Tensor)
    logits, auxiliary = made.train()(torch.randn(2, 3, 64, 64))
    assert auxiliary.shape == (2, 5, 4, 4)
    assert made.eval()(torch.randn(1, 3, 64, 64)).shape == logits[:1].shape
    weights = dict(made.named_parameters())
    assert all(torch.equal(weights[key], value) for key, value in plain.named_parameters())  # the same but for it
    assert {key.split(".")[0] for key in made.state_dict().keys() - plain.state_dict().keys()} == {"auxiliary"}


def test_layers_of_a_transformer():
    made = model("linear", "vit_tiny_patch16_224")
    groups = parameter_groups(made, OptimConfig(lr=1.0, head_lr_factor=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in made.named_parameters()}
    body = "backbone.body.model.blocks"
    assert named[f"{body}.11.attn.qkv.weight"] == named[f"{body}.11.norm1.bias"] == 0.5
    assert named[f"{body}.0.mlp.fc1.weight"] == 0.5**12
    assert named["backbone.body.model.patch_embed.proj.weight"] < 0.5**12


def test_in_a_recipe():
    config = train_config({"model": {"name": "upernet", "backbone": "vit_tiny_patch16_224", "options": {"width": 64}}})
    usual = {"align_corners": False, "auxiliary": False, "norm_features": False}
    assert complete(config).model.options == {"width": 64, **usual}
    with pytest.raises(ValueError, match="the model linear has no option of that name"):
        complete(train_config({"model": {"name": "linear", "options": {"width": 3}}}))


def test_a_linear_head_is_batch_norm_and_a_classifier():
    made = model("linear", "resnet18")
    head = [m for name, m in made.named_children() if name != "backbone"]
    assert [type(each) for each in head] == [nn.BatchNorm2d, nn.Conv2d]
