"""The networks of the original: logits from its own weights, and what it does not have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmiseg.functional import upsample_logits
from rmiseg.models import build_model

GOLDEN = np.load(Path(__file__).parent / "golden_networks.npz")
CASES = [case for case in json.loads(str(GOLDEN["meta"])) if "model" in case]


def draw(index: int, name: str, value: Tensor) -> Tensor:
    """Entry number `index` of a state dict, as the golden file has them."""
    random, shape = np.random.RandomState(index), tuple(value.shape)
    if not value.is_floating_point():
        return torch.zeros_like(value)
    if name.endswith("running_mean"):
        drawn = 0.05 * random.standard_normal(shape)
    elif name.endswith("running_var"):
        drawn = 0.8 + 0.4 * random.random_sample(shape)
    elif value.ndim == 4:
        drawn = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("bias"):
        drawn = 0.1 * random.standard_normal(shape)
    else:
        drawn = 0.5 + 0.5 * random.random_sample(shape)
    return torch.from_numpy(np.asarray(drawn)).to(value.dtype)


@pytest.mark.parametrize("case", CASES, ids=[f"{c['model']}-{c['output_stride']}" for c in CASES])
@pytest.mark.slow
def test_logits_of_the_original(case):
    model = build_model(
        case["model"],
        num_classes=case["num_classes"],
        backbone=case["backbone"],
        output_stride=case["output_stride"],
        weights="none",
        compat="original",
    ).eval()
    state = model.state_dict()
    assert len(state) == case["entries"]
    assert sum(parameter.numel() for parameter in model.parameters()) == case["parameters"]
    model.load_state_dict({name: draw(index, name, value) for index, (name, value) in enumerate(state.items())})
    image = np.random.RandomState(12345).standard_normal((1, 3, *case["size"]))
    with torch.no_grad():
        logits = model(torch.from_numpy(image).float())
    logits = upsample_logits(logits, tuple(case["size"]), model.align_corners)
    expected = torch.from_numpy(GOLDEN[f"{case['index']}_logits"])
    assert (logits - expected).norm() <= 1e-5 * expected.norm()
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_pspnet_drops_whole_channels():
    with torch.device("meta"):
        models = {c: build_model("pspnet", num_classes=2, weights="none", compat=c) for c in (None, "original")}
    kinds = {c: {type(m) for m in model.modules() if "Dropout" in type(m).__name__} for c, model in models.items()}
    assert kinds == {None: {nn.Dropout}, "original": {nn.Dropout2d}}


def test_deeplabv3plus_has_a_second_dropout():
    with torch.device("meta"):
        models = {c: build_model("deeplabv3plus", num_classes=2, weights="none", compat=c) for c in (None, "original")}
    found = {c: [m.p for m in model.modules() if isinstance(m, nn.Dropout)] for c, model in models.items()}
    assert found == {None: [0.1], "original": [0.1, 0.1]}


def test_default_is_dilated_and_does_not_align_corners():
    with torch.device("meta"):
        model = build_model("deeplabv3plus", num_classes=2, backbone="resnet18", weights="none", output_stride=8)
        original = build_model(
            "deeplabv3plus", num_classes=2, backbone="resnet18", weights="none", output_stride=8, compat="original"
        )
    rates = [{m.dilation[0] for m in each.backbone.modules() if isinstance(m, nn.Conv2d)} for each in (model, original)]
    assert rates == [{1, 2, 4}, {1}]
    assert (model.align_corners, original.align_corners) == (False, True)
    assert list(model.state_dict()) == list(original.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "smp:Unet"}, r"the original has deeplabv3, deeplabv3plus, pspnet, not smp:Unet"),
        ({"backbone": "convnext_atto"}, r"backbone is a ResNet, .* not convnext_atto"),
        ({"output_stride": 32}, r"output stride 8 and 16, not 32"),
        ({"compat": "modern"}, r"model\.compat must be original or left out, not 'modern'"),
    ],
)
def test_what_the_original_does_not_have(options, message):
    options = {"name": "deeplabv3", "compat": "original", **options}
    with pytest.raises(ValueError, match=message):
        build_model(num_classes=2, weights="none", **options)
