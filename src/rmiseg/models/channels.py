"""Networks for images of other bands than red, green and blue: their first layers, adapted from those of three."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from rmiseg.models.base import BackboneModel, SegmentationModel, evaluating

PROBE = (97, 131)


def take_channels(model: SegmentationModel, channels: int, rgb: tuple[int, int, int] | None = None) -> None:
    """Make a network of three channels take images of another number, in place.

    Weights of red, green and blue go to the channels that are these, their mean to each of the others; all are scaled
    by 3 / channels, so that what comes out is about as large as before. Three channels in another order, such as blue,
    green and red, get their weights in that order; one channel gets the sum of all three, as timm
    (https://github.com/huggingface/pytorch-image-models) has it. Mean and standard deviation follow likewise.

    Args:
        model: The network, of images (N, 3, H, W), with its weights.
        channels: Number of channels.
        rgb: Channels that are red, green and blue, if any are.

    Raises:
        ValueError: It has no convolution of the image's three channels, or cannot do with others.
    """
    if channels == model.in_channels and rgb in (None, (0, 1, 2)):
        return
    convolutions = _first_convolutions(model)
    title = f"the network {type(getattr(model, 'network', model)).__name__} cannot take images of {channels} bands"
    if not convolutions:
        raise ValueError(f"{title}: it has no convolution of red, green and blue")
    for parent, convolution in convolutions:
        convolution.weight = nn.Parameter(adapted_weight(convolution.weight.detach(), channels, rgb))
        convolution.in_channels = channels
        if hasattr(parent, "num_channels"):  # transformers compares with it
            parent.num_channels = channels  # type: ignore[assignment]  # no module
    model.in_channels = channels
    for name in ("image_mean", "image_std"):
        setattr(model, name, spread_statistics(getattr(model, name), channels, rgb))
    try:
        _see(model, torch.zeros(1, channels, *PROBE, device="cpu"))
    except Exception as error:  # a network refuses what it gets in whichever way it likes
        raise ValueError(f"{title}: {' '.join(str(error).split())[:300]}") from error


def adapted_weight(weight: Tensor, channels: int, rgb: tuple[int, int, int] | None) -> Tensor:
    """Weight (out, channels, h, w) of a convolution, from one (out, 3, h, w) of red, green and blue.

    Args:
        weight: That of three channels.
        channels: Number of channels.
        rgb: Channels that are red, green and blue, if any are.
    """
    others = weight.mean(dim=1, keepdim=True)
    result = others.repeat(1, channels, 1, 1)
    for color, channel in enumerate(rgb or ()):
        result[:, channel] = weight[:, color]
    return result * (3 / channels)


def spread_statistics(values: Sequence[float], channels: int, rgb: tuple[int, int, int] | None) -> tuple[float, ...]:
    """Statistics of each channel, from those of red, green and blue; other channels have the mean of the three."""
    result = [sum(values) / len(values)] * channels
    for color, channel in enumerate(rgb or ()):
        result[channel] = values[color]
    return tuple(result)


def _first_convolutions(model: SegmentationModel) -> list[tuple[nn.Module, nn.Conv2d]]:
    """The convolutions that see the image itself, each after the module that it is a part of."""
    modules = dict(model.named_modules())
    candidates = {
        module: modules[name.rpartition(".")[0]]
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    }
    image = torch.rand(1, 3, *PROBE, device="cpu", generator=torch.Generator().manual_seed(0))
    found: dict[nn.Conv2d, nn.Module] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].detach().cpu()
        if seen.shape[1] == 3 and torch.equal(seen[..., : PROBE[0], : PROBE[1]], image):
            assert isinstance(module, nn.Conv2d)
            found[module] = candidates[module]

    with ExitStack() as stack:
        for candidate in candidates:
            stack.callback(candidate.register_forward_pre_hook(note).remove)
        _see(model, image)
    # Where the network changes the image before its first layer, that is the first of three channels.
    chosen = found or dict(list(candidates.items())[:1])
    return [(parent, convolution) for convolution, parent in chosen.items()]


def _see(model: SegmentationModel, image: Tensor) -> None:
    """Show an image to the network, of which all that reads the image runs."""
    seeing: nn.Module = model.backbone if isinstance(model, BackboneModel) else model
    with evaluating(seeing), torch.no_grad():
        seeing(image.to(next(seeing.parameters()).device))
