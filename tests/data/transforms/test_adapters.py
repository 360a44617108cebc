"""Transforms of others: taken as they are, seeded, and what they return is checked."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from rmiseg.config import DataConfig
from rmiseg.config.registry import find
from rmiseg.data import OwnImages, SegmentationDataset, adapt_transform

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
IDS = RNG.choice(np.array([0, 1, 255], np.uint8), (24, 32))


def dataset(transform) -> SegmentationDataset:
    return SegmentationDataset(OwnImages([(PIXELS, IDS)], ["a", "b"]), transform)


def test_torchvision_transforms_are_taken_as_they_are():
    transform = v2.Compose([v2.RandomCrop(16), v2.RandomHorizontalFlip()])
    assert adapt_transform(transform) is transform
    items = [dataset(transform)[(0, seed)] for seed in range(8)]
    assert all(item["image"].shape == (3, 16, 16) and item["mask"].shape == (16, 16) for item in items)
    assert len({item["mask"].numpy().tobytes() for item in items}) > 1
    again = dataset(transform)[(0, 3)]
    assert torch.equal(again["image"], items[3]["image"])


def test_functions_that_draw_from_python_and_numpy_are_seeded():
    def darken(image, mask):
        return image // (1 + random.randrange(9)) // (1 + np.random.randint(9)), mask  # noqa: NPY002

    items = [dataset(darken)[(0, 3)]["image"] for _ in range(3)]
    assert all(torch.equal(item, items[0]) for item in items)


def test_integer_masks_become_bytes():
    item = dataset(lambda image, mask: (image, mask.long()))[0]
    assert item["mask"].dtype == torch.uint8
    np.testing.assert_array_equal(item["mask"], IDS)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            v2.Compose(
                [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.Normalize([0.5], [0.2])]
            ),
            r"Image \(3, 24, 32\) float32 with values from -2\.\S* to 2\.\S* as image: leave out its normalization",
        ),
        (lambda image, mask: image, r"returned Image \(3, 24, 32\) uint8, not an image and a mask"),
        (lambda image, mask: (image, mask, 1), "returned tuple of 3, not an image and a mask"),
        (lambda image, mask: None, "returned NoneType"),
        (lambda image, mask: (image.numpy(), mask), r"ndarray \(3, 24, 32\) uint8 as image, not a tensor \(3, H, W\)"),
        (lambda image, mask: (image[:1], mask), r"\(1, 24, 32\) uint8 as image, not a tensor \(3, H, W\)"),
        (lambda image, mask: (image, mask[None]), r"\(1, 24, 32\) uint8 as mask, not a tensor \(H, W\)"),
        (
            lambda image, mask: (image[:, :16], mask),
            r"\(3, 16, 32\) uint8 as image and .* must have one height and width",
        ),
        (lambda image, mask: (image, mask[:, :8] * 1), r"\(24, 8\) uint8 as mask: both must have one height"),
        (lambda image, mask: (image, mask / 255), r"float32 with values from 0 to 1 as mask"),
        (lambda image, mask: (image, mask + 1), r"made the value 2 in a mask, .* 2 classes nor 255"),
        (lambda image, mask: (image, mask.long() // 255 - 1), "made the value -1 in a mask"),
        (lambda image, mask: (image, mask // 2), "made the value 127 in a mask"),
    ],
)
def test_what_a_transform_must_not_return(transform, message):
    with pytest.raises(ValueError, match=f"the transform .*{message}"):
        dataset(transform)[0]


def test_what_is_no_transform():
    with pytest.raises(TypeError, match=r"callable with \(image, mask\), and 7 is not"):
        dataset(7)
    alone = pytest.importorskip("torchvision.transforms").Compose([])
    with pytest.raises(
        TypeError, match=r"Compose of torchvision.transforms .*; take the one of torchvision.transforms.v2"
    ):
        dataset(alone)


class Fake:
    """What albumentations 2 does: named arrays in and out, generators of its own."""

    __module__ = "albumentations.core.composition"

    def set_random_state(self, generator, py_random):
        self.generator, self.py_random = generator, py_random

    def __call__(self, *, image, mask):
        assert image.shape == (24, 32, 3)
        assert image.flags.c_contiguous
        assert isinstance(mask, np.ndarray)
        left = int(self.generator.integers(16)) + self.py_random.randrange(2)
        return {"image": image[:, left : left + 8][:, ::-1], "mask": mask[:, left : left + 8][:, ::-1].astype(int)}


def test_albumentations_by_its_interface():
    data = dataset(Fake())
    items = [data[(0, seed)] for seed in range(8)]
    assert len({item["image"].numpy().tobytes() for item in items}) > 1
    assert torch.equal(data[(0, 3)]["image"], items[3]["image"])
    left = next(
        left
        for left in range(24)
        if np.array_equal(items[3]["image"].permute(1, 2, 0), PIXELS[:, left : left + 8][:, ::-1])
    )
    np.testing.assert_array_equal(items[3]["mask"], IDS[:, left : left + 8][:, ::-1])


def test_albumentations_itself():
    albumentations = pytest.importorskip("albumentations")
    transform = albumentations.Compose(
        [albumentations.RandomCrop(16, 16), albumentations.HorizontalFlip(p=0.5), albumentations.Transpose(p=0.5)]
    )
    data = dataset(transform)
    items = [data[(0, seed)] for seed in range(20)]
    assert all(item["image"].shape == (3, 16, 16) and item["image"].dtype == torch.uint8 for item in items)
    assert all(torch.equal(data[(0, seed)]["mask"], items[seed]["mask"]) for seed in range(20))
    # Its parts draw different numbers: the two of equal probability are not always applied together.
    draws = [str(each["image"][:, 0, 0].tolist()) for each in items]
    assert len(set(draws)) > 4
    with pytest.raises(ValueError, match="leave out its normalization"):
        dataset(albumentations.Normalize())[0]


def test_the_built_in_augmentation_is_a_component():
    config = DataConfig(crop_size=(8, 12), image_scale=0.25, scale_range=(0.5, 1.0))
    transform = find("transform", "scale-crop").make(config)
    assert isinstance(transform, nn.Module)
    assert transform.reduction == 4
    assert dataset(transform)[(0, 1)]["image"].shape == (3, 8, 12)
