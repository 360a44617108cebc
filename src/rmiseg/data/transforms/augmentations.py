"""Further augmentations of training crops, by name: of one crop alone. Those of two are in `mixing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rmiseg.config import DataConfig
from rmiseg.config.registry import register
from rmiseg.data.classes import IGNORE_INDEX


def check_range(name: str, values: Sequence[float], low: float, high: float) -> None:
    """See whether two numbers are a range within limits.

    Raises:
        ValueError: They are not.
    """
    if not low <= values[0] <= values[1] <= high:
        raise ValueError(f"{name} must be two numbers, {low:g} <= smallest <= largest <= {high:g}, not {list(values)}")


def check_kernel(title: str, kernel: float, config: DataConfig) -> None:
    """See whether a kernel fits into a crop, which is mirrored at its edges for half of it.

    Raises:
        ValueError: It does not.
    """
    height, width = config.crop_size
    if not kernel // 2 < min(height, width):
        raise ValueError(
            f"{title}: a kernel of {kernel:.15g} pixels does not fit into crops of {width} x {height}, data.crop_size"
        )


def padding_color(config: DataConfig) -> int | list[int]:
    """The value of each band outside of an image: `image_mean`, or else gray."""
    return 128 if config.image_mean is None else [round(value) for value in config.image_mean]


def fills(config: DataConfig) -> dict[Any, Any]:
    """Fill values outside of an image and of a mask, as torchvision takes them."""
    return {tv_tensors.Image: padding_color(config), tv_tensors.Mask: IGNORE_INDEX}


def sometimes(transform: v2.Transform, p: float) -> v2.Transform:
    """The transform with this probability.

    Raises:
        ValueError: It is none.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability from 0 to 1, not {p}")
    return transform if p == 1 else v2.RandomApply([transform], p)


@dataclass
class ChanceOptions:
    """The option of an augmentation that has no other."""

    p: float = 0.5
    """Probability."""


@register("augmentation", "flip-vertical", options=ChanceOptions)
def flip_vertical(config: DataConfig, p: float) -> v2.Transform:
    """Turn a crop upside down."""
    return sometimes(v2.RandomVerticalFlip(1.0), p)


@dataclass
class RotateOptions:
    """Options of rotate."""

    degrees: float = 15.0
    """Largest angle, to either side."""
    p: float = 0.5
    """Probability."""


@register("augmentation", "rotate", options=RotateOptions)
def rotate(config: DataConfig, degrees: float, p: float) -> v2.Transform:
    """Turn a crop about its center; corners become padding, which does not count."""
    check_range("degrees", (0, degrees), 0, 180)
    turn = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=fills(config))
    return sometimes(turn, p)


@dataclass
class BlurOptions:
    """Options of blur."""

    sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation, in pixels."""
    p: float = 0.2
    """Probability."""


@register("augmentation", "blur", options=BlurOptions)
def blur(config: DataConfig, sigma: tuple[float, float], p: float) -> v2.Transform:
    """Blur an image with a Gauss kernel of three standard deviations to each side."""
    check_range("sigma", sigma, 1e-3, 100)
    kernel = 2 * max(1, round(3 * sigma[1])) + 1
    check_kernel(f"sigma {sigma[1]:g}", kernel, config)
    return sometimes(v2.GaussianBlur(kernel, tuple(sigma)), p)


@dataclass
class NoiseOptions:
    """Options of noise."""

    sigma: tuple[float, float] = (0.0, 0.1)
    """Smallest and largest standard deviation, where white is 1."""
    p: float = 0.2
    """Probability."""


@register("augmentation", "noise", options=NoiseOptions)
def noise(config: DataConfig, sigma: tuple[float, float], p: float) -> v2.Transform:
    """Add Gauss noise to an image, of each pixel and color by itself."""
    check_range("sigma", sigma, 0, 1)
    return sometimes(RandomStrength(sigma, add_noise), p)


def add_noise(image: Tensor, sigma: float) -> Tensor:
    """Add Gauss noise of a standard deviation, where white is 1, to an image of uint8."""
    return (image + torch.randn(image.shape) * (255 * sigma)).round_().clamp_(0, 255).to(torch.uint8)


@dataclass
class GammaOptions:
    """Options of gamma."""

    gamma: tuple[float, float] = (0.7, 1.5)
    """Smallest and largest exponent; above 1 darkens."""
    p: float = 0.3
    """Probability."""


@register("augmentation", "gamma", options=GammaOptions)
def gamma(config: DataConfig, gamma: tuple[float, float], p: float) -> v2.Transform:
    """Raise the values of an image, from 0 to 1, to a random power."""
    check_range("gamma", gamma, 0.01, 100)
    return sometimes(RandomStrength(gamma, F.adjust_gamma), p)


class RandomStrength(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """A change of images, not of masks, by a number that is drawn from a range."""

    def __init__(self, strengths: tuple[float, float], change: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self.strengths, self.change = strengths, change

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number."""
        return {"strength": uniform(*self.strengths)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image, pass anything else on."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return tv_tensors.Image(self.change(inpt.as_subclass(Tensor), params["strength"]))


@dataclass
class EraseOptions:
    """Options of erase."""

    area: tuple[float, float] = (0.02, 0.2)
    """Smallest and largest share of the crop."""
    ignore: bool = True
    """Leave the erased pixels out of the loss; else they keep their labels, which the network has to guess."""
    p: float = 0.3
    """Probability."""


@register("augmentation", "erase", options=EraseOptions)
def erase(config: DataConfig, area: tuple[float, float], ignore: bool, p: float) -> v2.Transform:
    """Random erasing (Zhong et al., AAAI 2020, arXiv:1708.04896): a rectangle becomes `image_mean`, or else gray."""
    check_range("area", area, 0, 1)
    return sometimes(RandomErase(area, ignore, padding_color(config)), p)


class RandomErase(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Erase a rectangle of a random size, place and shape (sides at most 1 : 3)."""

    def __init__(self, area: tuple[float, float], ignore: bool, fill: int | Sequence[int]) -> None:
        super().__init__()
        self.area, self.ignore = area, ignore
        self.fill = torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle."""
        return {"box": random_box(v2.query_size(flat_inputs), uniform(*self.area), 3 ** uniform(-1, 1))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Erase it in an image, and leave it out in a mask."""
        is_mask = isinstance(inpt, tv_tensors.Mask)
        if not isinstance(inpt, tv_tensors.Image) and not (is_mask and self.ignore):
            return inpt
        out = inpt.clone()
        out[(..., *params["box"])] = IGNORE_INDEX if is_mask else self.fill
        return tv_tensors.wrap(out, like=inpt)


def uniform(low: float, high: float) -> float:
    """A random number from a range, of torch's generator."""
    return low + (high - low) * torch.rand(()).item()


def random_box(size: tuple[int, int], area: float, ratio: float) -> tuple[slice, slice]:
    """A rectangle somewhere in an image (H, W): its share of the area, and its shape relative to that of the image."""
    sides = [min(side, max(1, round(side * (area * r) ** 0.5))) for side, r in zip(size, (ratio, 1 / ratio))]
    starts = [int(torch.randint(whole - side + 1, ())) for whole, side in zip(size, sides)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides))
    return rows, columns
