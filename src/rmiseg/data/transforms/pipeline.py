"""Transforms from images and masks of any size to training crops and evaluation inputs, with torchvision.transforms.v2.

Images stay uint8 until `normalize`, which runs on the device: a fourth of the memory to move, and resizing uint8 is
fastest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rmiseg.config import DataConfig
from rmiseg.config.registry import register
from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.data.transforms.augmentations import padding_color
from rmiseg.data.transforms.rare import Focus


class RandomScaleCrop(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Scale by a random factor and take a random crop; pad where the scaled image is smaller than the crop.

    Images are interpolated with antialiasing, masks take the nearest value. Both use the same box, so that they stay
    aligned. The padding is ``fill`` in images and `IGNORE_INDEX` in masks.

    Args:
        crop_size: Height and width of the crop.
        image_scale: Factor that multiplies every random scale.
        scale_range: Smallest and largest random scale.
        scale_step: Step between the random scales; 0 draws them uniformly from the range.
        fill: Gray value, or the value of each band, of the padding.
        interpolation: bilinear or bicubic.
        padding: around, at random divided between the sides, or end: all at the right and at the bottom.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        *,
        image_scale: float = 1.0,
        scale_range: tuple[float, float] = (0.5, 2.0),
        scale_step: float = 0.25,
        fill: int | Sequence[int] = 128,
        interpolation: str = "bilinear",
        padding: str = "around",
    ) -> None:
        super().__init__()
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(f"crop_size must be a height and a width of at least 1, not {crop_size}")
        if len(scale_range) != 2 or not 0 < scale_range[0] <= scale_range[1] < math.inf:
            raise ValueError(f"scale_range must be two factors, 0 < smallest <= largest, not {scale_range}")
        _check_image_scale(image_scale)
        low, high = scale_range
        steps = (high - low) / scale_step if scale_step > 0 else 0.0
        if scale_step < 0 or steps > 1e6 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"scale_step {scale_step} does not lead from {low} to {high}, the scale_range: choose a step that "
                f"divides {high - low:g}, or 0 to draw scales continuously"
            )
        self.crop_size = tuple(crop_size)
        self.image_scale = image_scale
        self.scale_range = (low, high)
        self.scale_step = scale_step
        self.fill = fill
        self.interpolation = v2.InterpolationMode(interpolation)
        self.padding = padding

    def pair(self, image: torch.Tensor, mask: torch.Tensor, focus: Focus | None = None) -> tuple[Any, Any]:
        """The crop of an image and its mask, anywhere, or centred on a pixel as nearly as their borders allow.

        The same as calling the transform, without the time that it takes to look into any nest of inputs.
        """
        params = self._draw(mask.shape[-2], mask.shape[-1], focus)
        return self.transform(image, params), self.transform(mask, params)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the box in the input, the size it is resized to, and the padding around it."""
        return self._draw(*v2.query_size(flat_inputs))

    def _draw(self, height: int, width: int, focus: Focus | None = None) -> dict[str, Any]:
        row, column = (None, None) if focus is None else (focus.row, focus.column)
        factor = self.image_scale * self._draw_scale()
        top, box_height, new_height, above = self._draw_span(height, self.crop_size[0], factor, row)
        left, box_width, new_width, before = self._draw_span(width, self.crop_size[1], factor, column)
        below = self.crop_size[0] - new_height - above
        after = self.crop_size[1] - new_width - before
        return {
            "box": (top, left, box_height, box_width),
            "size": (new_height, new_width),
            "padding": [before, above, after, below],
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the box to an image or a mask, whichever it is."""
        if not isinstance(inpt, tv_tensors.Image | tv_tensors.Mask):
            return inpt
        # Plain tensors, since each operation on the others costs as much as the work. Cropping before resizing, so that
        # only what is kept is resized.
        top, left, height, width = params["box"]
        part = inpt.as_subclass(torch.Tensor)[..., top : top + height, left : left + width]
        if isinstance(inpt, tv_tensors.Mask):
            made = _padded(_resize_mask(part.numpy(), params["size"]), params["padding"], IGNORE_INDEX)
            return torch.from_numpy(made).as_subclass(tv_tensors.Mask)
        resized = F.resize_image(part, list(params["size"]), interpolation=self.interpolation, antialias=True)
        made = _padded(resized.numpy().transpose(1, 2, 0), params["padding"], self.fill)
        return torch.from_numpy(made.transpose(2, 0, 1)).as_subclass(tv_tensors.Image)

    def _draw_scale(self) -> float:
        low, high = self.scale_range
        if self.scale_step == 0:
            return low + (high - low) * torch.rand(()).item()
        return low + self.scale_step * _randint(round((high - low) / self.scale_step))

    def _draw_span(self, size: int, crop: int, factor: float, center: int | None) -> tuple[int, int, int, int]:
        """Along one axis: start and length in the input, length after resizing, and padding in front.

        Where a center is given, it is in the middle, or as near to it as the image allows.
        """
        scaled = max(1, round(size * factor))
        if scaled <= crop:
            return 0, size, scaled, 0 if self.padding == "end" else _randint(crop - scaled)
        length = min(size, max(1, round(crop / factor)))
        start = _randint(size - length) if center is None else min(max(center - length // 2, 0), size - length)
        return start, length, crop, 0


class TrainTransform(v2.Compose):  # type: ignore[misc]  # torchvision has no types
    """Transforms of an image and its mask, one after the other; of the first it may be said where to look.

    Attributes:
        reduction: 1, 2, 4 or 8, at which images must be read.
    """

    takes_focus = True
    reduction = 1

    def forward(self, image: Any, mask: Any, focus: Focus | None = None) -> tuple[Any, Any]:
        """Transform an image and its mask.

        Args:
            image: (3, H, W) uint8.
            mask: (H, W) uint8.
            focus: The pixel that the crop is to be centred on; by default it is taken anywhere.
        """
        first, *others = self.transforms
        image, mask = first.pair(image, mask, focus)
        for transform in others:
            image, mask = transform(image, mask)
        return image, mask


class RandomFlip(v2.RandomHorizontalFlip):  # type: ignore[misc]  # torchvision has no types
    """The horizontal flip of torchvision, without the time that it takes to look into any nest of inputs."""

    def forward(self, *inputs: Any) -> Any:
        """Flip the inputs, all or none."""
        if torch.rand(1) >= self.p:
            return inputs if len(inputs) > 1 else inputs[0]
        flipped = tuple(each.as_subclass(torch.Tensor).flip(-1).as_subclass(type(each)) for each in inputs)
        return flipped if len(flipped) > 1 else flipped[0]


class ColorJitter(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Change brightness, contrast and saturation of images at random; masks stay.

    Each is multiplied by a factor drawn from [1 - strength, 1 + strength]. No hue, which alone takes as long as all the
    rest. Images of other than three bands have no saturation: each of their bands is multiplied by a factor of its own,
    and stretched around its mean by a common one.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.colors = v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)

    def forward(self, *inputs: Any) -> Any:
        """Change the image among the inputs."""
        if any(isinstance(each, tv_tensors.Image) and len(each) != 3 for each in inputs):
            return super().forward(*inputs)
        return self.colors(*inputs)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the factor of each band, and that of the contrast."""
        bands = next(len(each) for each in flat_inputs if isinstance(each, tv_tensors.Image))
        factors = 1 + self.strength * (2 * torch.rand(bands + 1) - 1)
        return {"gains": factors[:-1].view(-1, 1, 1), "contrast": factors[-1]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Change an image, pass anything else on."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        values = inpt.as_subclass(torch.Tensor).float() * params["gains"]
        mean = values.mean(dim=(1, 2), keepdim=True)
        changed = (mean + params["contrast"] * (values - mean)).round().clamp(0, 255)
        return tv_tensors.Image(changed.to(torch.uint8))


class ResizeImage(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Resize the image by a factor; the mask stays as it is, since scores are taken at its size."""

    keeps_masks = True

    def __init__(self, image_scale: float) -> None:
        super().__init__()
        _check_image_scale(image_scale)
        self.image_scale = image_scale

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize an image, pass anything else on."""
        if self.image_scale == 1 or not isinstance(inpt, tv_tensors.Image):
            return inpt
        size = [max(1, round(side * self.image_scale)) for side in inpt.shape[-2:]]
        return F.resize(inpt, size, antialias=True)


def train_transform(
    crop_size: tuple[int, int],
    *,
    image_scale: float = 1.0,
    scale_range: tuple[float, float] = (0.5, 2.0),
    scale_step: float = 0.25,
    flip: float = 0.5,
    color_jitter: float = 0.0,
    fill: int | Sequence[int] = 128,
    interpolation: str = "bilinear",
    padding: str = "around",
) -> TrainTransform:
    """The augmentation of training: random scale, crop, horizontal flip, and brightness, contrast and saturation.

    Args:
        crop_size, image_scale, scale_range, scale_step, fill, interpolation, padding: See `RandomScaleCrop`.
        flip: Probability of a horizontal flip.
        color_jitter: Strength of the random brightness, contrast and saturation, see `ColorJitter`.

    Returns:
        A transform from (image (B, H, W) uint8, mask (H, W) uint8) to the same of size ``crop_size``.

    Raises:
        ValueError: a value outside its range.
    """
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be a probability from 0 to 1, not {flip}")
    if not 0 <= color_jitter <= 1:
        raise ValueError(f"color_jitter must be a strength from 0 to 1, not {color_jitter}")
    transforms: list[v2.Transform] = [
        RandomScaleCrop(
            crop_size,
            image_scale=image_scale,
            scale_range=scale_range,
            scale_step=scale_step,
            fill=fill,
            interpolation=interpolation,
            padding=padding,
        ),
        RandomFlip(flip),
    ]
    if color_jitter > 0:
        transforms.append(ColorJitter(color_jitter))
    return TrainTransform(transforms)


@register("transform", "scale-crop")
def scale_crop(config: DataConfig) -> TrainTransform:
    """Make the augmentation that the options of the data set describe, see `train_transform`.

    Where even the largest random scale leaves half of an image's size or less, images may be read at half the size; so
    on for a fourth and an eighth. Decoding is most of the work with large photographs.

    Returns:
        The transform, with its `reduction`.

    Raises:
        ValueError: a value outside its range.
    """
    largest = config.image_scale * config.scale_range[1]
    reduction = next(factor for factor in (8, 4, 2, 1) if factor == 1 or factor * largest <= 1)
    augmentation = train_transform(
        config.crop_size,
        image_scale=config.image_scale * reduction,
        scale_range=config.scale_range,
        scale_step=config.scale_step,
        flip=config.flip,
        color_jitter=config.color_jitter,
        fill=padding_color(config),
        interpolation=config.interpolation,
        padding=config.padding,
    )
    augmentation.reduction = reduction
    return augmentation


def eval_transform(image_scale: float = 1.0) -> v2.Transform:
    """The transform of evaluation: the image is resized by ``image_scale``, the mask keeps its size.

    Raises:
        ValueError: a scale that is not positive.
    """
    return ResizeImage(image_scale)


def normalize(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Make the network's input from uint8 images, on whatever device they are: (images / 255 - mean) / std.

    Args:
        images: (N, B, H, W) or (B, H, W) uint8, of B bands.
        mean: Mean of each band, where white is 1.
        std: Standard deviation of each band, likewise.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: images that are not uint8, such as ones that are normalized already, or a std of zero.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 with values 0 .. 255, not {images.dtype}")
    bands = images.shape[-3]
    if len(mean) != bands or len(std) != bands or min(std) <= 0:
        number = "three" if bands == 3 else bands
        raise ValueError(f"mean and std must be {number} numbers each, and std positive, not {mean} and {std}")
    center, scale = (_channels(tuple(values), images.device) for values in (mean, std))
    made = images.to(torch.float32)
    pixels = made.movedim(-3, -1)
    if made.device.type != "cpu" or not pixels.is_contiguous():
        return made.sub_(center).div_(scale)
    width = made.shape[-1]  # rows of pixels of all bands: long loops take half the time that those of three take
    pixels.flatten(-2).sub_(center.flatten().repeat(width)).div_(scale.flatten().repeat(width))
    return made


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """255 times the values, (B, 1, 1) float32; made once, since to move them waits for a GPU."""
    with torch.inference_mode(False):  # it may be needed outside of the mode that it is made in
        return torch.tensor(values, dtype=torch.float32, device=device).mul_(255).view(-1, 1, 1)


def _resize_mask(ids: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    # The value at the center of each new pixel, which is where bilinear interpolation looks too; plain "nearest",
    # torchvision's choice for masks, is half a pixel off. Just as "nearest-exact" rounds, in a fourth of its time:
    # rows, which are copied whole, while there are few columns to be taken one by one, or of few rows.
    for axis in (0, 1) if size[0] < ids.shape[0] else (1, 0):
        old, new = ids.shape[axis], size[axis]
        if old != new:
            centers = (np.arange(new) + 0.5) * np.float64(np.float32(old) / np.float32(new))
            ids = ids.take(np.minimum(centers.astype(np.float32).astype(np.int64), old - 1), axis)
    return np.ascontiguousarray(ids)


def _padded(values: NDArray[np.uint8], padding: Sequence[int], fill: int | Sequence[int]) -> NDArray[np.uint8]:
    """An image (H, W, B) or a mask (H, W), with so much on the left, above, right and below."""
    before, above, after, below = padding
    if not any(padding):
        return values
    height, width, *bands = values.shape
    around = np.full((height + above + below, width + before + after, *bands), fill, np.uint8)
    around[above : above + height, before : before + width] = values
    return around


def _check_image_scale(image_scale: float) -> None:
    if not 0 < image_scale < math.inf:
        raise ValueError(f"image_scale must be a positive factor, not {image_scale}")


def _randint(largest: int) -> int:
    return int(torch.randint(largest + 1, ()))
