"""Other ways to make training crops of images, which `rmiseg bench data` measures beside rmiseg's."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rmiseg.config import DataConfig
from rmiseg.data import IGNORE_INDEX, SegmentationDataset, Split

GRAY = (128, 128, 128)


def references(split: Split, config: DataConfig) -> dict[str, SegmentationDataset]:
    """The other ways by name; OpenCV and albumentations where they are installed."""
    found: dict[str, SegmentationDataset] = {
        "torchvision, PIL images": Torchvision(split, config, tensors=False),
        "torchvision, tensors": Torchvision(split, config, tensors=True),
    }
    if find_spec("cv2"):
        found["OpenCV"] = OpenCV(split, config)
        if find_spec("albumentations"):
            found["albumentations"] = Albumentations(split, config)
    return found


class Torchvision(SegmentationDataset):
    """The operations as torchvision's references for segmentation do them: one after the other, on whole images.

    Args:
        split: The samples.
        config: The augmentation.
        tensors: Work on tensors instead of PIL images.
    """

    def __init__(self, split: Split, config: DataConfig, tensors: bool) -> None:
        super().__init__(split)
        self.split = split
        self.config = config
        self.tensors = tensors
        jitter = config.color_jitter
        self.crop_and_flip = v2.Compose(
            [
                v2.RandomCrop(
                    config.crop_size,
                    pad_if_needed=True,
                    fill={tv_tensors.Mask: IGNORE_INDEX, "others": 128},
                ),
                v2.RandomHorizontalFlip(config.flip),
                *([v2.ColorJitter(jitter, jitter, jitter)] if jitter else []),
                v2.PILToTensor(),
            ]
        )
        self.normalize = v2.Compose(
            [
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __getitem__(self, key: Any) -> dict[str, Any]:
        index, seed = key
        sample = self.split.samples[index]
        with Image.open(sample.image) as file, Image.open(sample.mask) as mask_file:
            image: Any = file.convert("RGB")
            mask = tv_tensors.Mask(F.pil_to_tensor(mask_file)[0])
        if self.tensors:
            image = tv_tensors.Image(F.pil_to_tensor(image))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # as rmiseg: the other takes 0.2 ms
            size = _drawn_size(mask.shape, self.config)
            image, mask = F.resize(image, size, antialias=True), F.resize(mask, size, v2.InterpolationMode.NEAREST)
            image, mask = self.crop_and_flip(image, mask)
        return {"image": self.normalize(tv_tensors.Image(image)), "mask": mask, "name": sample.name}


class OpenCV(SegmentationDataset):
    """The operations in OpenCV alone, without antialiasing, and without normalization. Masks are read by Pillow.

    Args:
        split: The samples.
        config: The augmentation, of which color_jitter is left out.
    """

    def __init__(self, split: Split, config: DataConfig) -> None:
        super().__init__(split)
        self.split = split
        self.config = config

    def read(self, index: int) -> tuple[Any, Any]:
        """Image (H, W, 3) and mask (H, W), uint8."""
        cv2 = importlib.import_module("cv2")
        cv2.setNumThreads(0)
        sample = self.split.samples[index]
        image = cv2.cvtColor(cv2.imread(str(sample.image)), cv2.COLOR_BGR2RGB)
        assert sample.mask is not None  # as of all data sets with masks
        with Image.open(sample.mask) as file:
            return image, np.array(file)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        cv2 = importlib.import_module("cv2")
        index, seed = key
        image, mask = self.read(index)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # as rmiseg: the other takes 0.2 ms
            height, width = _drawn_size(mask.shape, self.config)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
            rows, columns = self.config.crop_size
            around = (0, max(rows - height, 0), 0, max(columns - width, 0), cv2.BORDER_CONSTANT)
            if any(around[:4]):
                image = cv2.copyMakeBorder(image, *around, value=GRAY)
                mask = cv2.copyMakeBorder(mask, *around, value=IGNORE_INDEX)
            top = int(torch.randint(mask.shape[0] - rows + 1, ()))
            left = int(torch.randint(mask.shape[1] - columns + 1, ()))
            image, mask = (each[top : top + rows, left : left + columns] for each in (image, mask))
            if torch.rand(()).item() < self.config.flip:
                image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return {"image": pixels, "mask": torch.from_numpy(np.ascontiguousarray(mask)), "name": self.images.names[index]}


class Albumentations(OpenCV):
    """The operations as an albumentations pipeline, normalization included."""

    def __init__(self, split: Split, config: DataConfig) -> None:
        super().__init__(split, config)
        A = importlib.import_module("albumentations")
        low, high = (config.image_scale * factor - 1 for factor in config.scale_range)
        jitter = config.color_jitter
        self.pipeline = A.Compose(
            [
                A.RandomScale((low, high), p=1.0),
                A.RandomCrop(*config.crop_size, pad_if_needed=True, fill=GRAY, fill_mask=IGNORE_INDEX),
                A.HorizontalFlip(p=config.flip),
                *([A.ColorJitter(*[(1 - jitter, 1 + jitter)] * 3, (0, 0), p=1.0)] if jitter else []),
                A.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __getitem__(self, key: Any) -> dict[str, Any]:
        index, _ = key
        image, mask = self.read(index)
        made = self.pipeline(image=image, mask=mask)
        pixels = torch.from_numpy(made["image"]).permute(2, 0, 1)
        return {"image": pixels, "mask": torch.from_numpy(made["mask"]), "name": self.images.names[index]}


def _drawn_size(shape: Any, config: DataConfig) -> list[int]:
    """Height and width of an image (H, W) after the random scale."""
    low, high = config.scale_range
    if step := config.scale_step:
        scale = low + step * int(torch.randint(round((high - low) / step) + 1, ()))
    else:
        scale = low + (high - low) * torch.rand(()).item()
    return [max(1, round(side * scale * config.image_scale)) for side in shape]
