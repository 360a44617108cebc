"""Further augmentations: image and mask stay together, and an item is a function of its key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from miniatures import write_shapes
from rmiseg.config import DataConfig, TrainConfig
from rmiseg.config.registry import names
from rmiseg.data import ClassTable, LabeledImages, load_split, train_loader
from rmiseg.data.transforms.libraries import ALBUMENTATIONS, TORCHVISION
from rmiseg.data.transforms.mixing import CopyPaste, CutMix
from rmiseg.data.transforms.rare import Focus, find_places
from rmiseg.training.assembly import complete, train_dataset

CLASSES = ClassTable(("a", "b", "c"), (0, 1, 2), (255,), ((0, 0, 0), (9, 9, 9), (20, 20, 20)))
NEEDED = {
    "torchvision:RandomAffine": {"degrees": 20},
    "torchvision:RandomRotation": {"degrees": 20},
    "torchvision:RandomPosterize": {"bits": 3},
    "torchvision:RandomSolarize": {"threshold": 128},
    "torchvision:RandomAdjustSharpness": {"sharpness_factor": 2},
    "torchvision:GaussianBlur": {"kernel_size": 3},
    "torchvision:JPEG": {"quality": [50, 90]},
    "albumentations:Affine": {"rotate": [-30, 30]},
}
OWN = [name for name in names("augmentation") if not name.endswith(":")]


class Painted(LabeledImages):
    """Images whose gray value says the class of the pixel: 50, 120, 200; class 2 in one image alone, 5 x 5 pixels."""

    name, classes = "painted", CLASSES
    names = tuple("abcdef")

    def __len__(self) -> int:
        return 6

    @property
    def labeled(self) -> bool:
        return True

    @property
    def origin(self) -> object:
        return self

    def read_mask(self, index: int) -> np.ndarray:
        ids = np.zeros((60, 80), np.uint8)
        ids[10 * index : 10 * index + 20, 10:30] = 1
        if index == 3:
            ids[2:7, 70:75] = 2
        return ids

    def read_image(self, index: int, reduction: int = 1) -> np.ndarray:
        ids = self.read_mask(index)[::reduction, ::reduction]
        return np.array([50, 120, 200], np.uint8)[ids][..., None].repeat(3, axis=-1)

    def describe(self, index: int) -> tuple[str, str]:
        return "image", "mask"


def dataset(crop=(32, 40), scale=1.0, **options):
    config = DataConfig(crop_size=crop, scale_range=(scale, scale), scale_step=0, flip=0.0, workers=0, **options)
    return train_dataset(Painted(), config)


def items(made, count=40):
    return [made[index % len(made), 1000 + index] for index in range(count)]


def assert_together(item, tolerance=40):
    """Where the mask counts, the image is of its class, but for pixels at borders that are interpolated."""
    image, mask = item["image"].as_subclass(torch.Tensor).float(), item["mask"].as_subclass(torch.Tensor).long()
    valid = mask != 255
    expected = torch.tensor([50.0, 120.0, 200.0])[mask.clamp(max=2)]
    near = (image.mean(dim=0) - expected).abs() < tolerance
    assert near[valid].float().mean() > 0.9


@pytest.mark.parametrize("name", OWN)
def test_own_augmentations(name):
    made = dataset(augment={name: {"p": 1.0}})
    plain = dataset()
    found = items(made)
    changed = [
        not torch.equal(a["image"], b["image"]) or not torch.equal(a["mask"], b["mask"])
        for a, b in zip(found, items(plain))
    ]
    assert sum(changed) > 20
    for item in found:
        assert item["image"].shape == (3, 32, 40)
        assert item["image"].dtype == item["mask"].dtype == torch.uint8
        if name != "gamma":
            assert_together(item)
    for item, again in zip(found, items(made)):
        assert torch.equal(item["image"], again["image"])
        assert torch.equal(item["mask"], again["mask"])


@pytest.mark.parametrize("name", OWN)
def test_with_no_probability_nothing_changes(name):
    for item, plain in zip(items(dataset(augment={name: {"p": 0.0}}), 8), items(dataset(), 8)):
        assert torch.equal(item["image"], plain["image"])
        assert torch.equal(item["mask"], plain["mask"])


@pytest.mark.parametrize("name", [f"torchvision:{each}" for each in TORCHVISION])
def test_torchvision(name):
    made = dataset(augment={name: {**NEEDED.get(name, {}), "p": 0.8} if name != "x" else {}})
    for item in items(made, 4):
        assert item["image"].shape == (3, 32, 40)
        assert set(item["mask"].unique().tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize("name", [f"albumentations:{each}" for each in ALBUMENTATIONS])
def test_albumentations(name):
    pytest.importorskip("albumentations")
    made = dataset(augment={name: {**NEEDED.get(name, {}), "p": 1.0}})
    for item, again in zip(items(made, 4), items(made, 4)):
        assert item["image"].shape == (3, 32, 40)
        assert set(item["mask"].unique().tolist()) <= {0, 1, 2, 255}
        assert torch.equal(item["image"], again["image"])


def test_what_a_rotation_brings_in_does_not_count():
    pytest.importorskip("albumentations")
    for name, options in (
        ("rotate", {"degrees": 40.0, "p": 1.0}),
        ("torchvision:RandomRotation", {"degrees": 40}),
        ("albumentations:Rotate", {"limit": [30, 40], "p": 1.0}),
    ):
        found = items(dataset(augment={name: options}), 10)
        assert any((item["mask"] == 255).any() for item in found)
        for item in found:
            outside = item["mask"].as_subclass(torch.Tensor) == 255
            assert (item["image"].as_subclass(torch.Tensor)[0][outside].float() - 128).abs().median() < 40 or (
                not outside.any()
            )
            assert_together(item)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"rotat": {}}, r"data\.augment rotat: rotat is none of .*did you mean rotate"),
        (
            {"rotate": {"degree": 3}},
            r"data\.augment\.rotate\.degree: the augmentation rotate has no option of that name",
        ),
        ({"rotate": {"degrees": -3}}, "degrees must be two numbers"),
        ({"blur": {"p": 2.0}}, "p must be a probability from 0 to 1, not 2"),
        ({"torchvision:Normalize": {}}, "torchvision:Normalize cannot be taken; there are ColorJitter"),
        ({"torchvision:JPEG": {}}, "torchvision:JPEG: .*quality"),
        ({"torchvision:ColorJitter": {"hu": 1}}, "torchvision:ColorJitter has no option hu; it has brightness"),
        ({"torchvision:os": {}}, "torchvision:os cannot be taken"),
        ({"albumentations:Lambda": {}}, "albumentations:Lambda cannot be taken"),
    ],
)
def test_what_is_refused_before_training(augment, message):
    pytest.importorskip("albumentations")
    with pytest.raises(ValueError, match=message):
        complete(TrainConfig(data=DataConfig(augment=augment)))


def test_places_of_classes():
    places = find_places(Painted())
    rng = np.random.default_rng(0)
    drawn = [places.draw(rng) for _ in range(2000)]
    masks = [Painted().read_mask(index) for index in range(6)]
    assert all(masks[p.image][p.focus.row, p.focus.column] == p.class_id for p in drawn)
    pixels = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=3)
    expected = (1 / pixels) / (1 / pixels).sum()
    assert np.bincount([p.class_id for p in drawn], minlength=3) / 2000 == pytest.approx(expected, abs=0.03)
    of_one = [p.image for p in drawn if p.class_id == 1]
    assert set(of_one) == set(range(6))
    assert {(p.focus.row, p.focus.column) for p in drawn if p.class_id == 2} == {
        (row, column) for row in range(2, 7) for column in range(70, 75)
    }


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_rare_classes_are_in_their_crops(scale):
    """As often as asked for; and in the middle, as far as the border of the image allows."""
    share = {
        rare_share: np.mean(
            [bool((item["mask"] == 2).any()) for item in items(dataset(scale=scale, rare_share=rare_share), 150)]
        )
        for rare_share in (0.0, 0.5, 1.0)
    }
    assert share[0.0] < 0.2
    assert 0.35 < share[0.5] < 0.75
    assert share[1.0] > 0.9
    for item in items(dataset(scale=scale, rare_share=1.0), 20):
        assert_together(item)


def test_a_crop_is_centred_on_its_focus():
    transform = dataset(crop=(20, 20)).transform
    image = torch.zeros(3, 100, 120, dtype=torch.uint8)
    mask = torch.zeros(100, 120, dtype=torch.uint8)
    mask[40, 70] = 1
    from torchvision import tv_tensors

    _, crop = transform(tv_tensors.Image(image), tv_tensors.Mask(mask), Focus(40, 70))
    assert crop[10, 10] == 1
    mask[3, 118] = 2
    _, crop = transform(tv_tensors.Image(image), tv_tensors.Mask(mask), Focus(3, 118))
    assert crop[3, 18] == 2  # at the corner of the image


def test_reduced_images_have_the_focus_where_it_is():
    made = dataset(scale=0.4, crop=(10, 10), rare_share=1.0)
    assert made.reduction == 2
    assert np.mean([bool((item["mask"] == 2).any()) for item in items(made, 40)]) > 0.7


def test_copied_objects_come_from_rare_classes():
    found = items(dataset(augment={"copy-paste": {"p": 1.0}}), 60)
    assert np.mean([bool((item["mask"] == 2).any()) for item in found]) > 0.6
    assert np.mean([bool((item["mask"] == 2).any()) for item in items(dataset(), 60)]) < 0.2


def test_mixing_by_hand():
    first = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)
    second = torch.full((3, 8, 8), 9, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.uint8)
    torch.manual_seed(0)
    shares = []
    for _ in range(200):
        image, mask = CutMix(1.0).mix(first, second, 0)
        assert torch.equal((image == 9).all(dim=0), mask == 1)
        shares.append(mask.float().mean().item())
        rows, columns = np.flatnonzero(mask.any(dim=1)), np.flatnonzero(mask.any(dim=0))
        assert mask.sum() == len(rows) * len(columns)  # a rectangle
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)
    assert first[1].sum() == 0  # untouched
    second[1][4:] = 255
    image, mask = CopyPaste(1.0).mix(first, second, 1)
    assert set(mask.unique().tolist()) <= {0, 1}
    assert torch.equal((image == 9).all(dim=0), mask == 1)


def test_the_same_batches_whatever_the_number_of_workers(tmp_path):
    """And from the middle of an epoch on: a training goes on exactly."""
    split = load_split("folder", write_shapes(tmp_path, count=12), "train")
    augment = {"rotate": {}, "cutmix": {}, "copy-paste": {}, "noise": {"p": 0.5}}
    config = DataConfig(crop_size=(24, 24), augment=augment, rare_share=0.5, workers=0)
    found = []
    for workers in (0, 2):
        loader = train_loader(train_dataset(split, config), batch_size=2, workers=workers, seed=3)
        loader.set_epoch(1)
        found.append(list(loader))
        loader.set_epoch(1, 2)
        found.append(list(loader))
        loader.close()
    whole, rest, with_workers, rest_with_workers = found
    for a, b in [*zip(whole, with_workers), *zip(whole[2:], rest), *zip(rest, rest_with_workers)]:
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["mask"], b["mask"])


def test_rare_crops_need_a_transform_that_can_be_told_where():
    from torchvision.transforms import v2

    with pytest.raises(ValueError, match="need a transform that can be told where to crop"):
        train_dataset(Painted(), DataConfig(rare_share=0.5), v2.RandomCrop(8))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("blur", {"sigma": (0.1, 20)}),
        ("torchvision:GaussianBlur", {"kernel_size": 100001}),
        ("torchvision:GaussianBlur", {"kernel_size": [101, 3]}),
        ("torchvision:ElasticTransform", {"sigma": 5000.0}),
        ("albumentations:GaussianBlur", {"blur_limit": [3, 30001]}),
    ],
)
def test_kernels_that_do_not_fit_into_a_crop(name, options):
    if name.startswith("albumentations"):
        pytest.importorskip("albumentations")
    config = replace(complete(TrainConfig()).data, crop_size=(32, 48), augment={name: options})
    with pytest.raises(ValueError, match=r"a kernel of \d+ pixels does not fit into crops of 48 x 32, data.crop_size"):
        train_dataset(Painted(), config)
