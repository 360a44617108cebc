import pytest
import torch

from rmiseg.models import build_model


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (8, 9), (64, 1)])
def test_logits_at_the_size_of_the_image(size):
    model = build_model("unet", num_classes=3).eval()
    assert model(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_width_levels_and_bands():
    model = build_model("unet", num_classes=2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 122_474
    assert len(model.network.down) == 4
    small = build_model("unet", num_classes=2, options={"width": 2, "levels": 2}, in_channels=5)
    assert small.eval()(torch.rand(1, 5, 16, 16)).shape == (1, 2, 16, 16)
    with pytest.raises(ValueError, match="width and levels must be 1 or more, not 0 and 4"):
        build_model("unet", num_classes=2, options={"width": 0})
    with pytest.raises(ValueError, match=r"model\.backbone"):
        build_model("unet", num_classes=2, backbone="resnet18")


def test_fine_lines_pass_through():
    """What is seen at full size reaches the logits: one pixel changes its own logits and not those far away."""
    torch.manual_seed(0)
    model = build_model("unet", num_classes=2, options={"levels": 2}).eval()
    image = torch.rand(1, 3, 40, 40)
    changed = image.clone()
    changed[..., 20, 20] += 1
    difference = (model(changed) - model(image)).abs().amax(dim=(0, 1))
    assert difference[20, 20] > 0
    assert difference[:4].max() == 0
