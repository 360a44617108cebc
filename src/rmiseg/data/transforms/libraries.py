"""Augmentations of torchvision and albumentations, by their names in a fixed table.

Those are left out that change the size of a crop, that move the pixels of images and not of masks, that give anything
but images of 8 bits, or that read files.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Collection
from typing import Any

from torchvision.transforms import v2

from rmiseg.config import DataConfig
from rmiseg.config.registry import did_you_mean, register
from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.data.transforms.adapters import adapt_transform
from rmiseg.data.transforms.augmentations import check_kernel, fills, padding_color, sometimes

TORCHVISION = (
    *("ColorJitter", "ElasticTransform", "GaussianBlur", "GaussianNoise", "JPEG", "RandomAdjustSharpness"),
    *("RandomAffine", "RandomAutocontrast", "RandomChannelPermutation", "RandomEqualize", "RandomGrayscale"),
    *("RandomHorizontalFlip", "RandomInvert", "RandomPerspective", "RandomPhotometricDistort", "RandomPosterize"),
    *("RandomRotation", "RandomSolarize", "RandomVerticalFlip"),
)
ALBUMENTATIONS = (
    *("Affine", "Blur", "CLAHE", "ChannelDropout", "ChannelShuffle", "CoarseDropout", "ColorJitter", "Defocus"),
    *("Downscale", "ElasticTransform", "Emboss", "Equalize", "GaussNoise", "GaussianBlur", "GlassBlur"),
    *("GridDistortion", "GridDropout", "HorizontalFlip", "HueSaturationValue", "ISONoise", "Illumination"),
    *("ImageCompression", "MedianBlur", "MotionBlur", "MultiplicativeNoise", "OpticalDistortion", "Perspective"),
    *("PlanckianJitter", "Posterize", "RGBShift", "RandomBrightnessContrast", "RandomFog", "RandomGamma"),
    *("RandomRain", "RandomShadow", "RandomToneCurve", "Rotate", "Sharpen", "ShiftScaleRotate", "Solarize"),
    *("ToGray", "ToSepia", "VerticalFlip", "ZoomBlur"),
)
FIXED = {"expand", "fit_output", "keep_size", "crop_border", "num_output_channels", "inplace", "mask", "mask_params"}
"""Options that would change the size or the kind of a crop."""
KERNELS = {"kernel_size": 1, "blur_limit": 1, "radius": 2, "max_delta": 2}
"""Options that say how wide a kernel is, and how many pixels of it one of them stands for."""


@register("augmentation", "torchvision:")
def from_torchvision(name: str, config: DataConfig, **options: Any) -> Callable[..., Any]:
    """A transform of torchvision.transforms.v2, with its options, and p where it has none: a probability, by default 1.

    Raises:
        ValueError: None of `TORCHVISION`, or an option that it does not have or take.
    """
    made, known = _found("torchvision", v2, name, TORCHVISION)
    p = options.pop("p", 1.0) if "p" not in known else None
    if "fill" in known:
        options = {"fill": fills(config), **options}
    sizes = {**KERNELS, "sigma": 8} if name == "ElasticTransform" else KERNELS
    _check_kernels(f"torchvision:{name}", options, config, sizes)
    transform = _build(f"torchvision:{name}", made, options, [*known, *([] if p is None else ["p"])])
    return transform if p is None else sometimes(transform, p)


@register("augmentation", "albumentations:")
def from_albumentations(name: str, config: DataConfig, **options: Any) -> Callable[..., Any]:
    """A transform of albumentations, with its options.

    Raises:
        ModuleNotFoundError: albumentations is not installed.
        ValueError: None of `ALBUMENTATIONS`, or an option that it does not have or take.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks a server for newer versions
    try:
        module = importlib.import_module("albumentations")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"albumentations:{name} needs albumentations: pip install albumentations") from error
    made, known = _found("albumentations", module, name, ALBUMENTATIONS)
    if "fill_mask" in known and name not in ("CoarseDropout", "GridDropout"):  # which leave masks alone
        options = {"fill": padding_color(config), "fill_mask": IGNORE_INDEX, **options}
    _check_kernels(f"albumentations:{name}", options, config, KERNELS)
    return adapt_transform(_build(f"albumentations:{name}", made, options, known))


def _found(library: str, module: Any, name: str, names: Collection[str]) -> tuple[Callable[..., Any], list[str]]:
    """A class of a library by its name, if it is in the table, and the options that it may have."""
    made = getattr(module, name, None) if name in names else None
    if made is None:
        hint = did_you_mean(name, names, f"{library}:")
        raise ValueError(f"data.augment: {library}:{name} cannot be taken; there are {', '.join(names)}{hint}")
    return made, [option for option in inspect.signature(made).parameters if option not in FIXED]


def _check_kernels(title: str, options: dict[str, Any], config: DataConfig, sizes: dict[str, int]) -> None:
    for name in [name for name in options if name in sizes]:
        value = options[name]
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, int | float):
                check_kernel(f"data.augment: {title}: {name} {each}", sizes[name] * each, config)


def _build(title: str, made: Callable[..., Any], options: dict[str, Any], known: Collection[str]) -> Callable[..., Any]:
    if unknown := [option for option in options if option not in known]:
        raise ValueError(f"data.augment: {title} has no option {unknown[0]}; it has {', '.join(known)}")
    try:
        transform: Callable[..., Any] = made(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        )
        return transform
    except (TypeError, ValueError) as error:
        raise ValueError(f"data.augment: {title}: {' '.join(str(error).split())}") from error
