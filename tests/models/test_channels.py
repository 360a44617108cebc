"""Networks for images of other bands than three: first layers adapted from those of red, green and blue."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data.classes import class_ids
from rmiseg.exports.common import metadata
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.models import build_model
from rmiseg.models.channels import adapted_weight, spread_statistics
from rmiseg.models.own import adapt_model

OPTIONS = {"backbone": "resnet10t", "weights": "none", "output_stride": 32}


def test_weights_go_to_their_bands():
    weight = torch.randn(4, 3, 3, 3)
    five = adapted_weight(weight, 5, (2, 1, 0))
    torch.testing.assert_close(five[:, [2, 1, 0]], weight * 3 / 5)
    torch.testing.assert_close(five[:, 3], weight.mean(dim=1) * 3 / 5)
    torch.testing.assert_close(adapted_weight(weight, 1, None), weight.sum(dim=1, keepdim=True))
    # Gray in all bands comes out as before.
    torch.testing.assert_close(five.sum(dim=1), weight.sum(dim=1) * (3 + 2) / 5)
    assert spread_statistics((0.1, 0.2, 0.6), 5, (2, 1, 0)) == pytest.approx((0.6, 0.2, 0.1, 0.3, 0.3))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("name", ["deeplabv3plus", "smp:Unet"])
def test_every_band_counts(name, channels):
    if name.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    options = OPTIONS if name == "deeplabv3plus" else {"backbone": "mobilenet_v2", "weights": "none"}
    model = build_model(name, num_classes=2, in_channels=channels, **options).eval()
    assert model.in_channels == len(model.image_mean) == len(model.image_std) == channels
    image = torch.randn(1, channels, 64, 64, requires_grad=True)
    model(image).square().sum().backward()
    assert (image.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_several_first_layers():
    """Backbones of the kind repvgg see the image by two convolutions."""
    model = build_model("deeplabv3plus", num_classes=2, in_channels=5, backbone="repvgg_a0", weights="none").eval()
    widened = [each for each in model.modules() if isinstance(each, nn.Conv2d) and each.in_channels == 5]
    assert len(widened) == 2


def test_three_bands_are_left_alone():
    torch.manual_seed(0)
    plain = build_model("deeplabv3plus", num_classes=2, **OPTIONS).state_dict()
    torch.manual_seed(0)
    same = build_model("deeplabv3plus", num_classes=2, in_channels=3, **OPTIONS).state_dict()
    assert all(torch.equal(plain[key], same[key]) for key in plain)


def test_three_bands_in_another_order():
    torch.manual_seed(0)
    plain = build_model("deeplabv3plus", num_classes=2, **OPTIONS).eval()
    torch.manual_seed(0)
    turned = build_model("deeplabv3plus", num_classes=2, in_channels=3, rgb=(2, 1, 0), **OPTIONS).eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(turned(images.flip(1)), plain(images))
    assert turned.image_mean == plain.image_mean[::-1]


def test_a_network_without_such_a_layer_is_refused():
    class Fixed(nn.Module):
        def __init__(self, num_classes: int = 2) -> None:
            super().__init__()
            self.layer = nn.Conv2d(4, num_classes, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    model = adapt_model(Fixed(), 2, in_channels=4)
    assert model.in_channels == 4
    assert len(model.image_mean) == 4
    with pytest.raises(ValueError, match="does not take images"):
        adapt_model(Fixed(), 2)


def test_a_checkpoint_holds_the_bands(tmp_path):
    data = DataConfig(bands=5, picture=(3, 2, 1), value_range=((0.0, 1.0),) * 5)
    network = build_model("deeplabv3", num_classes=2, in_channels=5, rgb=(2, 1, 0), **OPTIONS)
    saved = Checkpoint(network.state_dict(), ModelConfig("deeplabv3", **OPTIONS), data, class_ids(["a", "b"]), 1, {})
    save_checkpoint(tmp_path / "c.pt", saved)
    checkpoint = load_checkpoint(tmp_path / "c.pt")
    model = checkpoint.build_model(torch.device("cpu"))
    images = torch.rand(1, 5, 64, 64)
    torch.testing.assert_close(model(images), network.eval()(images))
    assert model.image_mean == network.image_mean
    segmenter = Segmenter.from_checkpoint(checkpoint)
    assert segmenter(torch.zeros(1, 5, 32, 48, dtype=torch.uint8)).shape == (1, 2, 32, 48)
    described = metadata(segmenter)
    assert described["input"] == "images of 5 bands, uint8 (batch, 5, height, width)"
    assert described["value_range"].count("[0.0, 1.0]") == 5
    assert segmenter.to_checkpoint().data.picture == (3, 2, 1)


def test_means_of_a_recipe_are_as_many_as_bands():
    model = build_model("deeplabv3", num_classes=2, in_channels=4, **OPTIONS)
    model.expect([10, 20, 30, 40], None)
    assert model.image_mean == pytest.approx([10 / 255, 20 / 255, 30 / 255, 40 / 255])
    with pytest.raises(ValueError, match=r"data\.image_mean must be 4 numbers"):
        model.expect([10, 20, 30], None)
