"""Anybody's own torch data sets: every form of images and masks, exactly, and clear errors for the rest."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from rmiseg.data import (
    ClassTable,
    OwnImages,
    SegmentationDataset,
    balanced_weights,
    eval_loader,
    train_loader,
    train_transform,
)

CLASSES = ["ground", "tree", "house"]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
IDS = RNG.choice(np.array([0, 1, 2, 255], np.uint8), (6, 8))


class Own(Dataset):
    """Items as given; whatever `__getitem__` draws at random comes from a function."""

    def __init__(self, *items, make=None) -> None:
        self.items = items
        self.make = make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        return self.make(self.items[index]) if self.make else self.items[index]


def own(image=PIXELS, mask=IDS) -> OwnImages:
    return OwnImages(Own((image, mask)), CLASSES, "mine")


def palette_image() -> Image.Image:
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("RGBA"),
        PIXELS,
        PIXELS[:, ::-1][:, ::-1],
        (PIXELS / 255).astype(np.float32),
        (PIXELS / 255),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        tv_tensors.Image(torch.from_numpy(PIXELS).permute(2, 0, 1)),
        F.to_dtype(torch.from_numpy(PIXELS).permute(2, 0, 1), torch.float32, scale=True),
        F.to_image(Image.fromarray(PIXELS)).double() / 255,
    ],
)
def test_images_come_back_exactly(image):
    pixels = own(image).read_image(0)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS[..., 0]),
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257),
        PIXELS[..., 0],
        PIXELS[..., :1],
        torch.from_numpy(PIXELS[..., 0])[None],
        torch.from_numpy(PIXELS[..., 0])[None].bfloat16() / 255,
    ],
)
def test_gray_images_become_three_channels(image):
    pixels = own(image).read_image(0)
    assert pixels.shape == PIXELS.shape
    assert (pixels == pixels[..., :1]).all()
    np.testing.assert_allclose(
        pixels[..., 0].astype(int), PIXELS[..., 0], atol=int(getattr(image, "dtype", 0) == torch.bfloat16)
    )


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(IDS),
        palette_image(),
        Image.fromarray(IDS.astype(np.int32)),
        IDS,
        IDS.astype(np.int64),
        IDS.astype(np.uint16),
        torch.from_numpy(IDS),
        torch.from_numpy(IDS).long()[None],
        tv_tensors.Mask(torch.from_numpy(IDS).int()),
    ],
)
def test_masks_come_back_exactly(mask):
    ids = own(mask=mask).read_mask(0)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, IDS)


@pytest.mark.parametrize("mask", [IDS == 1, torch.from_numpy(IDS == 1), Image.fromarray(IDS == 1)])
def test_masks_of_bool_are_of_two_classes(mask):
    np.testing.assert_array_equal(own(mask=mask).read_mask(0), IDS == 1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            F.normalize(torch.rand(3, 6, 8), [0.5] * 3, [0.2] * 3),
            r"float32 with values from -2\.\S* to 2\.\S*, and not",
        ),
        (PIXELS.astype(np.float32), r"float32 with values from \d\S* to 2\d\d, and not from 0 to 1.*mean and standard"),
        (np.full((6, 8, 3), np.nan), "float64 with values from nan to nan"),
        (PIXELS.astype(np.uint16), r"uint16 with values from \d+ to 2\d\d: images must be uint8"),
        (torch.from_numpy(PIXELS).permute(2, 0, 1).long(), "int64 with values from"),
        (PIXELS > 5, "bool with values from False to True"),
        (PIXELS.transpose(2, 0, 1), r"an array \(3, 6, 8\), not \(H, W, 3\) or \(H, W\); put the channels last"),
        (torch.from_numpy(PIXELS), r"a tensor \(6, 8, 3\), not \(3, H, W\) or \(1, H, W\); put the channels first"),
        (torch.from_numpy(PIXELS[..., 0]), r"a tensor \(6, 8\), not \(3, H, W\)"),
        (np.zeros((6, 8, 4), np.uint8), r"an array \(6, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (Image.new("F", (8, 6)), "pixels of mode F have no defined range"),
        ("a.png", "a str, not a PIL image, a NumPy array or a tensor"),
    ],
)
def test_bad_images_are_refused_with_their_item(image, message):
    images = own(image)
    for read in (images.read_image, images.read):
        with pytest.raises(ValueError, match=rf"the image of item 0 of the data set mine: .*{message}"):
            read(0)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            IDS.astype(np.int64) - 1,
            r"neither a class nor ignored: -1 \(\d+ pixels\), 254 \(\d+ pixels\)\. Class ids are 0",
        ),
        (np.full((6, 8), 3, np.uint8), r"3 \(48 pixels\)\. Class ids are 0 ground, 1 tree, 2 house; ignored: 255"),
        (np.full((6, 8), 70000), r"70000 \(48 pixels\)"),
        (IDS.astype(np.float32), r"float32 with values from 0 to 255; class ids are integers"),
        (torch.from_numpy(IDS) / 255, "float32 with values from 0 to 1; class ids are integers.*ToTensor"),
        (np.stack([i == IDS for i in range(3)]), r"shape \(3, 6, 8\), not \(H, W\)"),
        (Image.fromarray(PIXELS), "pixels are of mode RGB"),
        ([[0, 1]], "a list, not a PIL image"),
    ],
)
def test_bad_masks_are_refused_with_their_item(mask, message):
    images = own(mask=mask)
    for read in (images.read_mask, images.read):
        with pytest.raises(ValueError, match=rf"the mask of item 0 of the data set mine: .*{message}"):
            read(0)


def test_sizes_that_differ_are_refused_with_their_item():
    with pytest.raises(ValueError, match="image of item 0 of the data set mine is 8 x 6 pixels, but its mask is 7 x 6"):
        own(mask=IDS[:, 1:]).read(0)


def test_images_are_not_turned():
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(own(image).read_image(0), PIXELS)


def test_items_are_copies():
    pixels, ids = own().read(0)
    pixels[:], ids[:] = 0, 0
    assert PIXELS.any()
    assert IDS.any()


def test_items_of_dictionaries():
    images = OwnImages(Own({"image": PIXELS, "mask": IDS, "id": 7}), CLASSES)
    pixels, ids = images.read(0)
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(ids, IDS)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"image": PIXELS, "label": IDS},
            "item 0 of the data set mine is a dictionary with the keys image, label; it must",
        ),
        ((PIXELS, IDS, 3), "is a tuple of 3; it must be"),
        (PIXELS, "is a ndarray; it must be"),
    ],
)
def test_other_items_are_refused(item, message):
    with pytest.raises(ValueError, match=message):
        OwnImages(Own(item), CLASSES, "mine").read(0)


def test_names():
    items = [(PIXELS, IDS)] * 11
    assert OwnImages(items, CLASSES).names[:2] == ("00", "01")
    dataset = Own(*items)
    dataset.names = [f"photo {index}" for index in range(11)]
    assert OwnImages(dataset, CLASSES).names[10] == "photo 10"
    assert OwnImages(Subset(dataset, [3, 4]), CLASSES).names == ("0", "1")
    assert len(OwnImages(ConcatDataset([dataset, dataset]), CLASSES)) == 22
    dataset.names = CLASSES  # of something else
    assert OwnImages(dataset, CLASSES).names[10] == "10"
    dataset.names = ["a", "b"] * 5 + ["c"]
    with pytest.raises(ValueError, match="data set mine calls two images 'a'"):
        OwnImages(dataset, CLASSES, "mine")


def test_classes():
    classes = own().classes
    assert (classes.names, classes.values, classes.ignore) == (tuple(CLASSES), (0, 1, 2), (255,))
    assert classes.palette[1] == (128, 0, 0)
    # A table's raw values are of files, not of masks that are given as class ids.
    table = ClassTable(("a", "b", "c"), (7, 8, 9), (0,), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    images = OwnImages(Own((PIXELS, IDS)), table)
    assert images.classes is table
    np.testing.assert_array_equal(images.read_mask(0), IDS)
    for wrong in ([], "road", ["a", "a"], [0, 1]):
        with pytest.raises(ValueError, match="class"):
            OwnImages(Own(), wrong)


def test_what_is_no_map_style_data_set_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    class Endless(Dataset):
        def __getitem__(self, index):
            return PIXELS, IDS

    with pytest.raises(TypeError, match=r"data set mine is an IterableDataset, Stream, .*__len__ and __getitem__"):
        OwnImages(Stream(), CLASSES, "mine")
    with pytest.raises(TypeError, match="data set mine, Endless, has no __len__"):
        OwnImages(Endless(), CLASSES, "mine")
    with pytest.raises(TypeError, match="has no __len__ and no __getitem__"):
        OwnImages(7, CLASSES)


def shift(item):
    """An augmentation by all three generators."""
    image, mask = item
    amounts = (int(torch.randint(0, 50, ())), random.randrange(50), np.random.randint(50))  # noqa: NPY002
    return image // 2 + np.array(amounts, np.uint8), np.roll(mask, amounts[0], 1)


def test_random_items_are_functions_of_index_and_seed():
    images = OwnImages(Own((PIXELS, IDS), (PIXELS, IDS), make=shift), CLASSES)

    def generators():
        return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = generators()
    first = images.read(0, seed=5)
    random.random()
    before = generators()
    again = images.read(0, seed=5)
    assert generators() == before
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert any((images.read(0, seed=seed)[0] != first[0]).any() for seed in range(3))
    # Without a seed, image and mask belong together, and are the same each time.
    pixels, ids = images.read(1)
    np.testing.assert_array_equal(images.read_image(1), pixels)
    np.testing.assert_array_equal(images.read_mask(1), ids)


def test_loaders_give_the_same_batches_with_any_number_of_workers():
    dataset = SegmentationDataset(
        OwnImages(Own(*[(PIXELS, IDS)] * 5, make=shift), CLASSES), train_transform((4, 4), scale_range=(1, 1))
    )
    batches = []
    for workers in (0, 2):
        loader = train_loader(dataset, batch_size=2, workers=workers, seed=3)
        loader.set_epoch(1)
        batches.append(list(loader))
        loader.close()
    for one, two in zip(*batches):
        assert one["name"] == two["name"]
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["mask"], two["mask"])
    assert [batch["name"] for batch in eval_loader(dataset, workers=0)] == [["0"], ["1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize("reduction", [2, 4])
def test_reduced_items_keep_image_and_mask_together(reduction):
    ids = np.zeros((16, 24), np.uint8)
    ids[:, 8:] = 1
    dataset = SegmentationDataset(own(np.repeat(255 * ids[..., None], 3, 2), ids), reduction=reduction)
    item = dataset[0]
    assert item["mask"].shape == item["image"].shape[1:] == (16 // reduction, 24 // reduction)
    assert torch.equal(item["image"][0] > 127, item["mask"] > 0)


def test_balanced_weights_of_own_images():
    masks = [np.repeat([0, 0, 1, 255], 12).reshape(6, 8), np.repeat([0, 0, 0, 2], 12).reshape(6, 8)]
    images = OwnImages(Own(*((PIXELS, mask) for mask in masks)), CLASSES)
    assert balanced_weights(images) == pytest.approx([1 / 3 / (60 / 84), 1.0, 1 / 3 / 0.25], rel=1e-5)


def test_own_images_travel_to_spawned_workers():
    images = own()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images)).read_mask(0), IDS)
