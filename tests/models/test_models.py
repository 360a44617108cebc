"""The architectures: parameter counts, strides, sizes, training mode, initial weights."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from rmiseg.models import Backbone, PSPNet, backbone_models, build_backbone, build_model, set_norm_momentum
from rmiseg.models.deeplab import ASPP
from rmiseg.models.survey import find_backbones, survey_backbone

ELSEWHERE = ("upernet", "linear")  # see test_transformers.py
MODELS = {name: component.make for name, component in backbone_models().items() if name not in ELSEWHERE}
BACKBONES = [
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet50s",
    "resnet101s",
    "resnet152s",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "xception41",
    "xception65",
    "xception71",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "convnext_tiny",
    "convnextv2_atto",
]
ONE_OF_EACH_FAMILY = ("resnet50s", "mobilenetv2_100", "xception41", "tf_efficientnet_lite0", "convnextv2_atto")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


@pytest.mark.parametrize(
    ("name", "parameters"), [("deeplabv3", 58_164_437), ("deeplabv3plus", 59_468_085), ("pspnet", 68_073_706)]
)
def test_parameter_counts_of_the_original(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=21, backbone="resnet101s", weights="none", output_stride=16)
    assert count(model) == parameters
    assert count(model.backbone) == 42_623_936


@pytest.mark.parametrize(
    ("backbone_name", "output_stride"),
    [
        pytest.param(name, stride, marks=() if name in ONE_OF_EACH_FAMILY else pytest.mark.nightly)
        for name in BACKBONES
        for stride in (8, 16, 32)
    ]
    + [("hrnet_w18_small", 32)],
)
@pytest.mark.slow
def test_strides(backbone_name: str, output_stride: int) -> None:
    size = (97, 131)
    with torch.device("meta"):
        backbone = build_backbone(backbone_name, weights="none", output_stride=output_stride)
        maps = backbone(torch.zeros(2, 3, *size))
        expected = [(2, c, *cells(size, r)) for c, r in zip(backbone.channels, backbone.reductions)]
        assert [tuple(m.shape) for m in maps] == expected
        assert backbone.reductions[-1] == output_stride
        for name, model_class in MODELS.items():
            model = model_class(backbone, 5).eval()
            assert model.output_stride == output_stride
            stride = 4 if name == "deeplabv3plus" else output_stride
            assert model.decode(maps).shape == (2, 5, *cells(size, stride)), name


@pytest.mark.parametrize("backbone_name", ["resnet18", "convnext_atto", "hrnet_w18_small", "tf_efficientnet_lite0"])
@pytest.mark.slow
def test_any_image_size(backbone_name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(backbone_name, weights="none", output_stride=32)
        models = {name: model_class(backbone, 3).eval() for name, model_class in MODELS.items()}
        for size in [(1, 1), (31, 17), (64, 64), (96, 130), (97, 131)]:
            maps = backbone(torch.zeros(1, 3, *size))
            for name, model in models.items():
                logits = model.decode(maps)
                assert logits.shape == (1, 3, *cells(size, 4 if name == "deeplabv3plus" else 32)), (name, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [
        *(("mobilenetv3_small_050", 8), ("xception41", 16), ("efficientnet_b0", 16), ("convnext_atto", 8)),
        ("hrnet_w18_small", 32),
        *(
            pytest.param(backbone, stride, marks=pytest.mark.nightly)
            for backbone, stride in (
                *(("mobilenetv3_small_050", 16), ("xception41", 8), ("efficientnet_b0", 8), ("convnext_atto", 16)),
            )
        ),
    ],
)
def test_training_step_of_other_backbones(name: str, backbone: str, output_stride: int) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=3, backbone=backbone, weights="none", output_stride=output_stride)
    outputs = model(torch.randn(2, 3, 70, 41))
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    assert logits.shape == (2, 3, *cells((70, 41), 4 if name == "deeplabv3plus" else output_stride))
    logits.square().mean().backward()
    stem = next(parameter for parameter in model.backbone.parameters() if parameter.dim() == 4)
    assert torch.isfinite(stem.grad).all()
    assert stem.grad.any()


def test_survey_of_backbones() -> None:
    assert {"resnet18", "resnet18d"} <= set(find_backbones("resnet18"))
    assert all(name.startswith("hrnet") for name in find_backbones("hrnet*"))
    assert find_backbones("resnet50") != find_backbones("resnet50*")
    with pytest.raises(ValueError, match="no timm model is called 'qqq'"):
        find_backbones("qqq")
    survey = survey_backbone("resnet18")
    assert survey.output_strides == (8, 16, 32)
    assert survey.models == (*MODELS, *ELSEWHERE)
    assert survey.parameters == 11_176_512
    assert survey_backbone("hrnet_w18_small").output_strides == (32,)
    assert survey_backbone("botnet26t_256") is None


def set_norm_weights_to_one(model: nn.Module) -> None:
    """timm starts the last norm of each residual branch at 0, which stops the gradient of what lies before it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


@pytest.mark.parametrize("name", MODELS)
def test_finite_logits_and_gradients_of_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=4, backbone="resnet18", weights="none", output_stride=16)
    set_norm_weights_to_one(model)
    outputs = model(torch.randn(2, 3, 65, 43))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(torch.isfinite(output).all() for output in outputs)
    sum(output.square().mean() for output in outputs).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("deeplabv3", {"width": 32, "project_kernel": 3, "auxiliary": True}, 2),
        ("deeplabv3plus", {"width": 32, "project_kernel": 3, "separable": True}, 1),
        ("upernet", {"width": 32, "norm_features": True, "auxiliary": True}, 2),
    ],
)
def test_options_of_heads(name: str, options: dict, count: int) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=5, backbone="resnet18", weights="none", options=options)
    outputs = model(torch.randn(2, 3, 64, 96))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [each.shape[:2] for each in outputs] == [(2, 5)] * count
    sum(each.square().mean() for each in outputs).backward()
    assert model.classifier.in_channels == 32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for wrong in ({"width": 0}, {"project_kernel": 2} if name != "upernet" else {"width": -1}):
        with pytest.raises(ValueError, match=r"width must be at least 1|model\.options"):
            build_model(name, num_classes=5, backbone="resnet18", weights="none", options=wrong)


def test_separable_convolutions_are_fewer_parameters() -> None:
    options = {"separable": True}
    plain, separable = (
        build_model("deeplabv3plus", num_classes=5, backbone="resnet18", weights="none", options=each)
        for each in ({}, options)
    )
    assert count(separable.aspp) + count(separable.decoder) < 0.4 * (count(plain.aspp) + count(plain.decoder))
    assert separable.aspp.convs[2].depthwise.conv.dilation == (12, 12)
    assert separable.decoder[0].depthwise.conv.groups == 256 + 48


def test_images_are_padded_only_for_backbones_that_need_it() -> None:
    pads = {}
    with torch.device("meta"):
        for name in ("resnet18", "tf_efficientnet_lite0", "convnext_atto", "hrnet_w18_small", "resnetaa34d"):
            pads[name] = build_backbone(name, weights="none", output_stride=32).pad
    assert pads == {
        "resnet18": False,
        "tf_efficientnet_lite0": False,
        "convnext_atto": True,
        "hrnet_w18_small": True,
        "resnetaa34d": True,
    }


def test_padding_adds_the_mean_color_below_and_to_the_right() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("convnext_atto", weights="none", output_stride=16).eval()
    images = torch.randn(1, 3, 40, 50)
    padded = torch.zeros(1, 3, 48, 64)
    padded[..., :40, :50] = images
    with torch.no_grad():
        for ours, m, r in zip(backbone(images), backbone.body(padded), backbone.reductions):
            assert torch.equal(ours, m[..., : math.ceil(40 / r), : math.ceil(50 / r)])


def test_upernet_normalizes_each_map_once() -> None:
    options = {"width": 32, "norm_features": True, "auxiliary": True}
    model = build_model("upernet", backbone="resnet18", weights="none", num_classes=2, options=options)
    calls: list[int] = []
    for number, norm in enumerate(model.norms):
        norm.register_forward_hook(lambda *_, number=number: calls.append(number))
    logits, auxiliary = model(torch.zeros(2, 3, 64, 64))
    assert calls == list(range(len(model.norms)))
    assert auxiliary.shape[1] == logits.shape[1] == 2


def test_pspnet_has_an_auxiliary_output_in_training_only() -> None:
    with torch.device("meta"):
        model = build_model("pspnet", num_classes=7, backbone="resnet18", weights="none", output_stride=32)
        images = torch.zeros(2, 3, 96, 64)
        assert isinstance(model, PSPNet)
        logits, auxiliary = model(images)
        assert logits.shape == (2, 7, 3, 2)
        assert auxiliary.shape == (2, 7, 6, 4)  # the second deepest stage, of stride 16
        assert model.eval()(images).shape == (2, 7, 3, 2)


@pytest.mark.parametrize("name", MODELS)
def test_batch_of_one(name: str) -> None:
    model = build_model(name, num_classes=3, backbone="resnet18", weights="none", output_stride=16)
    image = torch.randn(1, 3, 32, 48)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"batch size of 1.*use at least 2 images per step"):
        model(image)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    for module in model.modules():  # frozen norms: nothing is in the way
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    model(image)
    assert model.eval()(image).shape[:2] == (1, 3)


def test_synchronized_norm_is_left_to_torch() -> None:
    with torch.device("meta"):
        model = build_model("deeplabv3", num_classes=3, backbone="resnet18", weights="none")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        with pytest.raises(Exception) as caught:  # noqa: PT011 the kind of failure without a process group is torch's
            model(torch.zeros(1, 3, 64, 64))
    assert "batch size of 1" not in str(caught.value)


@pytest.mark.parametrize(("output_stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_atrous_rates(output_stride: int, rates: list[int]) -> None:
    aspp = ASPP(8, output_stride)
    assert [conv.conv.dilation for conv in aspp.convs] == [(1, 1)] + [(rate, rate) for rate in rates]
    assert [conv.conv.kernel_size for conv in aspp.convs] == [(1, 1)] + [(3, 3)] * 3


def test_pyramid_bins_see_the_whole_image() -> None:
    torch.manual_seed(0)
    levels = MODELS["pspnet"](build_backbone("resnet18", weights="none", output_stride=16), 3).eval().pyramid.levels
    features = torch.rand(1, 512, 6, 12)
    assert [level.bins for level in levels] == [1, 2, 3, 6]
    one_bin = levels[0](features)
    assert torch.allclose(one_bin, levels[0].project(features.mean((2, 3), keepdim=True)).expand_as(one_bin))


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_of_the_head(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=21, backbone="resnet18", weights="none", output_stride=16)
    head = {key: module for key, module in model.named_modules() if not key.startswith("backbone")}
    for key, module in head.items():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05), key
            assert module.bias is None or not module.bias.any(), key
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), key
            assert (module.bias == 0).all(), key
    # Offsets belong to the classifiers; elsewhere the norm has one.
    biased = {key for key, module in head.items() if isinstance(module, nn.Conv2d) and module.bias is not None}
    assert biased == ({"classifier.2", "auxiliary.2"} if name == "pspnet" else {"classifier"})


def test_normalization_comes_from_the_backbone() -> None:
    with torch.device("meta"):
        resnet = build_model("deeplabv3", num_classes=2, backbone="resnet18", weights="none")
        lite = build_model("deeplabv3", num_classes=2, backbone="tf_efficientnet_lite0", weights="none")
    assert (resnet.image_mean, resnet.image_std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (lite.image_mean, lite.image_std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_set_norm_momentum_reaches_backbone_and_head() -> None:
    with torch.device("meta"):
        model = build_model("pspnet", num_classes=2, backbone="mobilenetv3_large_100", weights="none")
    set_norm_momentum(model, 0.05)
    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    assert len(norms) > 40
    assert {norm.momentum for norm in norms} == {0.05}
    with pytest.raises(ValueError, match="momentum"):
        set_norm_momentum(model, 0.0)


def test_unknown_model() -> None:
    with pytest.raises(ValueError, match=r"segnet.*deeplabv3, deeplabv3plus"):
        build_model("segnet", num_classes=2, weights="none")


def test_no_classes() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        build_model("deeplabv3", num_classes=0, backbone="resnet18", weights="none")


@pytest.mark.parametrize(
    ("backbone", "output_stride", "message"),
    [
        ("resnet5", 16, r"unknown backbone 'resnet5': did you mean .*resnet50"),
        ("qqqqqq", 16, r"unknown backbone 'qqqqqq': timm\.list_models"),
        ("resnet18.nosuch", 16, r"unknown weights tag in 'resnet18\.nosuch'; there are .*resnet18\.a1_in1k"),
        (
            "hrnet_w18_small",
            16,
            r"'hrnet_w18_small' has no .* stride 16 .* offers output stride 32 \(timm: Assert",
        ),
        ("resnet18", 4, r"'resnet18' has no .* stride 4 .*; it offers output stride 8, 16, 32 "),
        ("vit_tiny_patch16_224", 8, r"'vit_tiny_patch16_224' has no .* stride 8 .* offers output stride 16 "),
        ("legacy_xception", 16, r"'legacy_xception' has no .* offers .* neither 8 nor 16 nor 32 \(timm: TypeError"),
        ("botnet26t_256", 16, r"'botnet26t_256' has no .* neither .*128 x 192 image"),  # it accepts squares of 256 only
        ("sedarknet21", 32, r"'sedarknet21' has no .*offers output stride 8, 16 \(its deepest .* stride 16\)"),
    ],
)
def test_impossible_backbones(backbone: str, output_stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("deeplabv3", num_classes=2, backbone=backbone, weights="none", output_stride=output_stride)


def test_deeplabv3plus_needs_stride_4() -> None:
    with torch.device("meta"):
        body = timm.create_model("resnet18", features_only=True, output_stride=16, out_indices=(0, 2, 4))
        with pytest.raises(ValueError, match=r"stride 4.*\[2, 8, 16\]"):
            MODELS["deeplabv3plus"](Backbone(body), 2)
