"""Anybody's own networks: every form of output, what is kept, and clear errors for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from rmiseg.config import OptimConfig, registry
from rmiseg.models import BackboneModel, SegmentationModel, adapt_model, build_model, describe_models
from rmiseg.models.external.wrapped import IMAGENET
from rmiseg.training.optim import parameter_groups


class Net(nn.Module):
    """Logits of stride 2, given in a form."""

    def __init__(self, num_classes: int = 4, form=lambda logits, auxiliary: logits) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, num_classes, 1)
        self.auxiliary = nn.Conv2d(8, num_classes, 1)
        self.form = form

    def forward(self, images: Tensor):
        features = self.body(images)
        return self.form(self.head(features), self.auxiliary(features))


class Strict(Net):
    """Takes multiples of 32 alone."""

    def forward(self, images: Tensor):
        assert all(side % 32 == 0 for side in images.shape[-2:])
        return super().forward(images)


@pytest.mark.parametrize(
    ("form", "auxiliary"),
    [
        (lambda logits, auxiliary: logits, False),
        (lambda logits, auxiliary: {"out": logits}, False),
        (lambda logits, auxiliary: {"out": logits, "aux": auxiliary}, True),
        (lambda logits, auxiliary: {"logits": logits}, False),
        (lambda logits, auxiliary: SemanticSegmenterOutput(logits=logits), False),
        (lambda logits, auxiliary: (logits, auxiliary), True),
    ],
)
@pytest.mark.parametrize("kind", [Net, Strict])
def test_every_form_of_output(kind, form, auxiliary):
    network = kind(form=form)
    model = adapt_model(network, 4)
    assert isinstance(model, SegmentationModel)
    assert model.num_classes == 4
    images = torch.randn(2, 3, 37, 66)
    output = model.train()(images)
    assert isinstance(output, tuple) == auxiliary
    for logits in output if auxiliary else (output,):
        assert logits.shape == (2, 4, 19, 33)
    logits = model.eval()(images)
    assert logits.shape == (2, 4, 19, 33)
    padded = nn.functional.pad(images, (0, 30, 0, 27)) if kind is Strict else images
    assert torch.equal(logits, network.head(network.body(padded))[..., :19, :33])


def test_a_segmentation_model_stays_what_it_is():
    with torch.device("meta"):
        model = build_model("deeplabv3", num_classes=3, backbone="resnet18", weights="none")
    assert adapt_model(model, 3) is model
    with pytest.raises(ValueError, match="model mine: DeepLabV3 has 3 classes, not 4"):
        adapt_model(model, 4, "mine")


@pytest.mark.parametrize("kind", [Net, Strict])
def test_probing_changes_nothing(kind):
    network = kind()
    network.body[1].eval()  # frozen by its owner
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    model = adapt_model(network, 4)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert model.training
    assert not adapt_model(network.eval(), 4).training
    with pytest.raises(ValueError, match="not logits of 5 classes"):
        adapt_model(network.train(), 5)
    assert network.training


def test_weights_return_to_the_network():
    network = Net()
    weights = adapt_model(network, 4).state_dict()
    assert set(weights) == {f"network.{key}" for key in network.state_dict()}
    other = Net()
    other.load_state_dict({key.removeprefix("network."): tensor for key, tensor in weights.items()})
    assert torch.equal(other.head.weight, network.head.weight)


def test_one_learning_rate_for_all():
    model = adapt_model(Net(), 4)
    groups = parameter_groups(model, OptimConfig(head_lr_factor=10.0))
    assert {group["lr_factor"] for group in groups} == {1.0}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_image_statistics():
    network = Net()
    assert adapt_model(network, 4).architecture == IMAGENET
    network.register_buffer("image_mean", torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1))
    with pytest.raises(ValueError, match="Net has an attribute image_mean, but no image_std"):
        adapt_model(network, 4)
    network.image_std = [0.5, 0.5, 1]
    model = adapt_model(network, 4)
    assert (model.image_mean, model.image_std) == ((0.5, 0.25, 0.125), (0.5, 0.5, 1.0))
    for wrong in ([58.4, 57.1, 57.4], [0.5, 0.5], 0.2, [0, 1, 1], "rgb"):
        network.image_std = wrong
        with pytest.raises(ValueError, match=r"Net\.image_std is .*; it must be three numbers"):
            adapt_model(network, 4)


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (Net(5), ValueError, r"model mine: Net gives \(1, 5, 49, 66\) for an image, not logits of 4 classes"),
        (nn.Sequential(Net(), nn.Flatten()), ValueError, r"Sequential gives \(1, 12936\) for an image, not logits"),
        (Net(form=lambda *logits: list(logits)), ValueError, "Net gives a list of 2 for an image, not logits"),
        (Net(form=lambda *logits: (*logits, 1)), ValueError, "Net gives a tuple of 3 for an image"),
        (Net(form=lambda *logits: {"masks": logits[0]}), ValueError, "Net gives a dict with masks for an image"),
        (Net(form=lambda *logits: None), ValueError, "Net gives a NoneType for an image"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 224**2, 4)),
            ValueError,
            "Sequential does not take images of any",
        ),
        (lambda images: images, TypeError, "model mine: a network must be an nn.Module, not function"),
    ],
)
def test_what_is_no_network_for_segmentation(network, error, message):
    with pytest.raises(error, match=message):
        adapt_model(network, 4, "mine")


def test_a_network_without_parameters():
    assert adapt_model(nn.Identity(), 3)(torch.zeros(1, 3, 5, 7)).shape == (1, 3, 5, 7)


# Models of plugins


@dataclass
class Options:
    """Options of a model of one's own."""

    width: int
    """Channels."""

    depth: int = 1
    """Layers."""


@pytest.fixture
def plugin():
    @registry.register("model", "plain", options=Options)
    def plain(num_classes: int, width: int, depth: int) -> nn.Module:
        """A few convolutions."""
        layers = [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(depth)]
        return nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))

    @registry.register("model", "straight", options=Options)
    class Linear(BackboneModel):
        """A classifier of the deepest features."""

        def __init__(self, backbone, num_classes, width, depth):
            super().__init__(backbone, num_classes)
            self.head = nn.Sequential(
                nn.Conv2d(backbone.channels[-1], width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, num_classes, 1)
            )

        def decode(self, features):
            return self.head(features[-1])

    @registry.register("model", "nothing")
    def nothing(num_classes: int) -> int:
        return num_classes

    yield
    for name in ("plain", "straight", "nothing"):
        del registry._components["model", name]


def test_network_of_a_plugin(plugin, tmp_path):
    model = build_model("plain", num_classes=5, options={"width": 6, "depth": 2})
    assert model.training
    assert [layer.out_channels for layer in model.network] == [6, 6, 5]
    assert model(torch.zeros(1, 3, 5, 7)).shape == (1, 5, 5, 7)
    torch.save(model.network.state_dict(), tmp_path / "plain.pth")
    again = build_model("plain", num_classes=5, options={"width": 6, "depth": 2}, weights=tmp_path / "plain.pth")
    assert torch.equal(again.network[0].weight, model.network[0].weight)
    # What a checkpoint says of images counts.
    statistics = {"image_mean": (0.1, 0.2, 0.3), "image_std": (0.4, 0.5, 0.6)}
    rebuilt = build_model("plain", num_classes=5, options={"width": 6}, weights="none", architecture=statistics)
    assert (rebuilt.image_mean, rebuilt.architecture) == ((0.1, 0.2, 0.3), statistics)
    assert describe_models()["plain"] == "A few convolutions."


def test_backbone_model_of_a_plugin(plugin):
    with torch.device("meta"):
        model = build_model("straight", num_classes=5, backbone="resnet18", weights="none", options={"width": 6})
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5, 4, 4)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("plain", {}, ValueError, r"model\.options: .*width"),
        ("plain", {"options": {"size": 3}}, ValueError, r"model\.options\.size: .* has width, depth"),
        (
            "plain",
            {"options": {"width": 3}, "backbone": "resnet18"},
            ValueError,
            "plain gives no choice",
        ),
        ("plain", {"options": {"width": 3}, "weights": "package"}, ValueError, "no package carries weights for plain"),
        ("plain", {"options": {"width": 3}, "weights": "none.pth"}, FileNotFoundError, "none.pth"),
        (
            "deeplabv3",
            {"options": {"depth": 3}},
            ValueError,
            r"model\.options\.depth: the model deeplabv3 has no",
        ),
        ("smp:Unet", {"options": {"width": 3}}, ValueError, r"model\.options\.width: the model smp: has no option"),
        ("nothing", {}, TypeError, "model nothing: a network must be an nn.Module, not int"),
        ("plane", {}, ValueError, "model plane is none of .*, plain, .* did you mean plain"),
    ],
)
def test_what_is_refused_of_plugins(plugin, name, arguments, error, message):
    with pytest.raises(error, match=message):
        build_model(name, num_classes=3, **arguments)
