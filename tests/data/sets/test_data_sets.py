"""The published data sets, on miniatures of what their archives unpack to."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from miniatures import (
    COCO_SIZE,
    HEIGHT,
    STUFF_VALUES,
    WIDTH,
    every,
    write_ade20k,
    write_cityscapes,
    write_image,
    write_lines,
    write_sbd,
    write_values,
)
from rmiseg.cli import main
from rmiseg.config import registry
from rmiseg.data import Layout, SegmentationDataset, available_splits, load_split, scan_split
from rmiseg.data.classes import class_ids
from rmiseg.data.sets.listing import Entry, pair_up

# PASCAL VOC


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_voc(voc_home, levels):
    root = (voc_home, *voc_home.parents)[levels]
    assert available_splits("voc", root) == ("train", "trainval", "val", "test")
    assert list(load_split("voc", root, "train").names) == ["2007_000032", "2007_000039"]
    assert list(load_split("voc", root, "trainval").names) == ["2007_000032", "2007_000033", "2007_000039"]
    split = load_split("voc", root, "val")
    assert split.samples[0].image == voc_home / "JPEGImages" / "2007_000033.jpg"
    assert (len(split.classes), split.classes.names[15], split.classes.palette[15]) == (21, "person", (192, 128, 128))
    np.testing.assert_array_equal(split.read_mask(0), every(*range(21), 255))
    item = SegmentationDataset(split)[0]
    assert item["image"].shape[1:] == item["mask"].shape == (HEIGHT, WIDTH)


def test_split_of_images_only(voc_home):
    with pytest.raises(ValueError, match=r"split test of data set voc has images, but no masks: `rmiseg predict`"):
        load_split("voc", voc_home, "test")
    split = load_split("voc", voc_home, "test", masks=False)
    assert [(sample.name, sample.mask) for sample in split.samples] == [("2008_000006", None)]
    with pytest.raises(ValueError, match="split test has no masks"):
        SegmentationDataset(split)


def test_voc_trainaug_from_sbd(voc_home):
    for name in ("2008_000002", "2007_000032", "2007_000033"):
        write_sbd(voc_home / "SBD" / "dataset" / "cls" / f"{name}.mat", every(*range(15)))
    assert "trainaug" in available_splits("voc", voc_home)
    split = load_split("voc", voc_home, "trainaug")
    assert list(split.names) == ["2007_000032", "2007_000039", "2008_000002"]  # nothing of val
    # VOC's own annotation is preferred.
    assert [sample.mask.suffix for sample in split.samples] == [".png", ".png", ".mat"]
    np.testing.assert_array_equal(split.read_mask(2), every(*range(15)))


def test_voc_trainaug_from_folder(voc_home):
    for name in ("2008_000002", "2007_000032", "2007_000033"):
        write_values(voc_home / "SegmentationClassAug" / f"{name}.png", every(3))
    split = load_split("voc", voc_home, "trainaug")
    assert list(split.names) == ["2007_000032", "2007_000039", "2008_000002"]
    assert [sample.mask.parent.name for sample in split.samples] == [
        "SegmentationClassAug",
        "SegmentationClass",
        "SegmentationClassAug",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [("trainaug", "{0}"), ("train_aug", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png")],
)
def test_voc_trainaug_by_list(voc_home, name, line):
    write_values(voc_home / "SegmentationClassAug" / "2008_000002.png", every(3))
    lines = [line.format(entry) for entry in ("2008_000002", "2007_000039")]
    write_lines(voc_home / "ImageSets" / "Segmentation" / f"{name}.txt", *lines)
    assert list(load_split("voc", voc_home, "trainaug").names) == ["2008_000002", "2007_000039"]


def test_voc_trainaug_list_with_a_name_that_nobody_annotated(voc_home):
    write_values(voc_home / "SegmentationClassAug" / "2008_000002.png", every(3))
    write_lines(voc_home / "ImageSets" / "Segmentation" / "trainaug.txt", "2008_000002", "2008_000006")
    with pytest.raises(ValueError, match=r"2008_000006\.jpg has no mask"):
        load_split("voc", voc_home, "trainaug")


def test_voc_trainaug_without_annotations_shows_where_they_belong(voc_home):
    with pytest.raises(FileNotFoundError, match="lacks what split trainaug needs") as error:
        load_split("voc", voc_home, "trainaug")
    for part in ("SegmentationClassAug does not exist", "train, trainval, val, test", "SBD/dataset/cls/"):
        assert part in str(error.value)


def test_damaged_mat_is_named(voc_home):
    path = write_sbd(voc_home / "SBD" / "dataset" / "cls" / "2008_000002.mat", every(1))
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match=r"cannot read mask .*2008_000002\.mat"):
        load_split("voc", voc_home, "trainaug").read_mask(2)


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n2007_000039\r\n\r\n  2007_000032 \r\n\r\n",
        b"\xef\xbb\xbf2007_000039\r2007_000032",
        "2007_000039\r\n2007_000032\r\n".encode("utf-16"),
        b"JPEGImages\\2007_000039.jpg\r\nJPEGImages\\2007_000032.jpg\r\n",
    ],
    ids=["blank", "mac", "utf-16", "backslashes"],
)
def test_list_as_windows_writes_it(voc_home, content):
    (voc_home / "ImageSets" / "Segmentation" / "train.txt").write_bytes(content)
    assert list(load_split("voc", voc_home, "train").names) == ["2007_000039", "2007_000032"]


def test_list_that_is_no_text(voc_home):
    (voc_home / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\x80\x81\xff")
    with pytest.raises(ValueError, match=r"train\.txt: line 1 is not UTF-8 \(byte 0x80\)"):
        load_split("voc", voc_home, "train")


def test_list_that_is_empty(voc_home):
    (voc_home / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\r\n\r\n")
    with pytest.raises(ValueError, match=r"split train of data set voc in .* has no images"):
        load_split("voc", voc_home, "train")


def test_list_with_a_name_twice(voc_home):
    write_lines(voc_home / "ImageSets" / "Segmentation" / "train.txt", "2007_000032", "2007_000032")
    with pytest.raises(ValueError, match=r"2007_000032\.jpg is listed twice, the second time in train\.txt, line 2"):
        load_split("voc", voc_home, "train")


def test_archive_that_broke_off(voc_home):
    (voc_home / "JPEGImages" / "2007_000039.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 problem.*beside 1 complete pairs") as error:
        load_split("voc", voc_home, "train")
    assert "2007_000039.jpg is listed in train.txt, line 2, but does not exist" in str(error.value)
    assert f"{voc_home}/" in str(error.value)  # the tree
    (voc_home / "SegmentationClass" / "2007_000032.png").unlink()
    assert len(scan_split("voc", voc_home, "train").images_without_mask) == 1


# Cityscapes


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path, kind):
    root = write_cityscapes(tmp_path / "cityscapes", kind)
    assert available_splits("cityscapes", root) == ("train", "val", "trainval", "test")
    split = load_split("cityscapes", root, "train")
    assert list(split.names) == ["train/aachen/aachen_000000_000019", "train/bochum/bochum_000000_000019"]
    assert len(load_split("cityscapes", root, "trainval").samples) == 3
    assert (len(split.classes), split.classes.names[0], split.classes.names[18]) == (19, "road", "bicycle")
    ids = split.read_mask(0)
    if kind == "labelIds":
        for value, name in {7: "road", 11: "building", 24: "person", 26: "car", 31: "train", 33: "bicycle"}.items():
            assert (ids[every(*range(34)) == value] == split.classes.names.index(name)).all()
        for value in (0, 1, 4, 9, 14, 18, 29, 30):
            assert (ids[every(*range(34)) == value] == 255).all()
    else:
        np.testing.assert_array_equal(ids, every(*range(19), 255))
    test = load_split("cityscapes", root, "test", masks=False)
    assert [sample.mask for sample in test.samples] == [None]


def test_cityscapes_takes_the_masks_that_are_complete(tmp_path):
    root = write_cityscapes(tmp_path)
    mask = root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelTrainIds.png"
    write_values(mask, every(0, 1))  # conversion to train ids broke off
    assert load_split("cityscapes", root, "train").samples[0].mask.name.endswith("labelIds.png")
    write_values(root / "gtFine" / "train" / "bochum" / "bochum_000000_000019_gtFine_labelTrainIds.png", every(0, 1))
    assert load_split("cityscapes", root, "train").samples[0].mask == mask
    # Splits of one check may differ in their kind of masks.
    assert main(["data", "check", "--name", "cityscapes", "--root", str(root), "--workers", "0"]) == 0


def test_cityscapes_coarse(tmp_path):
    root = write_cityscapes(tmp_path)
    write_image(root / "leftImg8bit" / "train_extra" / "augsburg" / "augsburg_000000_000000_leftImg8bit.png")
    with pytest.raises(FileNotFoundError, match="gtCoarse/train_extra does not exist"):
        load_split("cityscapes", root, "train_extra")
    mask = root / "gtCoarse" / "train_extra" / "augsburg" / "augsburg_000000_000000_gtCoarse_labelIds.png"
    write_values(mask, every(0, 7, 26))
    assert load_split("cityscapes", root, "train_extra").samples[0].mask == mask


def test_masks_whose_images_are_not_unpacked(tmp_path):
    root = write_cityscapes(tmp_path)
    shutil.rmtree(root / "leftImg8bit" / "train" / "bochum")
    with pytest.raises(ValueError, match=r"1 masks have no image, such as .*bochum.*half unpacked"):
        load_split("cityscapes", root, "train")


# ADE20K


@pytest.mark.parametrize("inner", [False, True])
def test_ade20k(tmp_path, inner):
    root = write_ade20k(tmp_path)
    if inner:
        root = root / "ADEChallengeData2016"
    assert available_splits("ade20k", root) == (("train", "val") if inner else ("train", "val", "test"))
    split = load_split("ade20k", root, "train")
    assert list(split.names) == ["ADE_train_00000001", "ADE_train_00000002"]
    assert (len(split.classes), split.classes.names[0], split.classes.names[149]) == (150, "wall", "flag")
    np.testing.assert_array_equal(split.read_mask(0), every(255, *range(150)))


# Wrong folders


PUBLISHED = [name for name in registry.names("dataset") if name not in ("folder", "demo")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_wrong_folder_shows_the_layout_and_what_is_there(tmp_path, name):
    (tmp_path / "holidays").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no split of the data set") as error:
        available_splits(name, tmp_path)
    assert "is it the right folder? It holds holidays" in str(error.value)
    assert registry.find("dataset", name).make.tree(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "there", "missing"),
    [
        ("voc", "JPEGImages", "ImageSets/Segmentation/train.txt"),
        ("cityscapes", "gtFine/train", "leftImg8bit/train"),
        ("coco", "annotations/instances_train2017.json", "train2017"),
        ("coco-stuff", "train2017", "stuffthingmaps/train2017"),
        ("coco-panoptic", "annotations/panoptic_train2017.json", "annotations/panoptic_train2017"),
        ("ade20k", "images/training", "annotations/training"),
        ("camvid", "train", "trainannot"),
        ("folder", "images", "masks"),
    ],
)
def test_half_unpacked_says_what_is_missing(tmp_path, name, there, missing):
    (tmp_path / there).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="incomplete, perhaps half unpacked") as error:
        available_splits(name, tmp_path)
    assert str(tmp_path / missing) in str(error.value)
    assert registry.find("dataset", name).make.tree(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_unknown_split_names_the_valid_ones(name, voc_home, panoptic_root, camvid_root, tmp_path):
    roots = {
        "voc": voc_home,
        "cityscapes": write_cityscapes(tmp_path / "streets"),
        "ade20k": write_ade20k(tmp_path / "ade"),
        "camvid": camvid_root(),
    }
    for image in (panoptic_root / "train2017").iterdir():
        write_values(panoptic_root / "stuffthingmaps" / "train2017" / f"{image.stem}.png", every(0))
    root = roots.get(name, panoptic_root)
    with pytest.raises(ValueError, match=r"has no split 'validation'; it has train"):
        load_split(name, root, "validation")


def test_documentation_shows_every_layout():
    text = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    for name in registry.names("dataset"):
        assert f"| `{name}` |" in text
        assert textwrap.indent(registry.find("dataset", name).make.tree("ROOT"), "  ") in text, name


# rmiseg data check


@pytest.mark.slow
def test_check_of_every_data_set(voc_home, panoptic_root, camvid_root, tmp_path, capsys):
    write_sbd(voc_home / "SBD" / "dataset" / "cls" / "2008_000002.mat", every(1, 2))
    for split in ("train", "val"):
        for image in (panoptic_root / f"{split}2017").iterdir():
            mask = panoptic_root / "stuffthingmaps" / f"{split}2017" / f"{image.stem}.png"
            write_values(mask, every(*STUFF_VALUES, size=COCO_SIZE))
    for name, root, images in (
        ("voc", voc_home, 2 + 3 + 1 + 1),
        ("cityscapes", write_cityscapes(tmp_path / "streets"), 4),
        ("ade20k", write_ade20k(tmp_path / "ade"), 5),
        ("camvid", camvid_root(), 7),
        ("coco", panoptic_root, 3 + 1 + 1),
        ("coco-stuff", panoptic_root, 7),
        ("coco-panoptic", panoptic_root, 7),
    ):
        assert main(["data", "check", "--name", name, "--root", str(root), "--workers", "0"]) == 0, name
        text = capsys.readouterr().out
        assert f"no problems in {images} images" in text, name
        assert "in both" not in text  # train is a part of trainaug, as it should be


def test_check_finds_masks_of_other_classes(voc_home, capsys):
    write_values(voc_home / "SegmentationClass" / "2007_000033.png", every(0, 37))
    assert main(["data", "check", "--name", "voc", "--root", str(voc_home), "--workers", "0"]) == 1
    text = capsys.readouterr().out
    assert "value 37: 192 pixels in 1 mask" in text
    with pytest.raises(ValueError, match=r"2007_000033\.png holds values that are neither a class nor ignored: 37"):
        load_split("voc", voc_home, "val").read_mask(0)


# Data sets of plugins


@dataclass
class Options:
    """Options of a data set of one's own."""

    suffix: str = ".png"


@pytest.fixture
def pairs():
    @registry.register("dataset", "pairs", options=Options)
    class Pairs(Layout):
        """Images NAME.png and masks NAME-mask.png in one folder."""

        TREE = "{root}/    a.png  a-mask.png ..."

        def __init__(self, suffix: str) -> None:
            self.suffix = suffix

        def parts(self, root):
            return {"all": (root,)}

        def scan_split(self, root, split):
            masks = sorted(root.glob(f"*-mask{self.suffix}"))
            entries = [Entry(m.stem[:-5], m.with_name(m.stem[:-5] + self.suffix), m) for m in masks]
            return pair_up(split, class_ids(["ground", "tree"]), entries)

    yield
    del registry._components["dataset", "pairs"]


def test_data_set_of_a_plugin(pairs, tmp_path):
    write_image(tmp_path / "a.png")
    write_values(tmp_path / "a-mask.png", every(0, 1))
    assert available_splits("pairs", tmp_path) == ("all",)
    split = load_split("pairs", tmp_path, "all")
    assert list(split.names) == ["a"]
    np.testing.assert_array_equal(split.read(0)[1], every(0, 1))
    with pytest.raises(ValueError, match=r"has no images\. The layout is\n  .*a\.png  a-mask\.png"):
        load_split("pairs", tmp_path, "all", options={"suffix": ".tif"})
    with pytest.raises(ValueError, match=r"data\.options\.size: the dataset pairs has no option .* it has suffix"):
        scan_split("pairs", tmp_path, "all", options={"size": 3})
    with pytest.raises(ValueError, match=r"data\.options\.size: the dataset camvid has no option"):
        available_splits("camvid", tmp_path, {"size": 3})
    with pytest.raises(ValueError, match=r"dataset pair is none of folder, voc, .*, pairs; did you mean pairs"):
        load_split("pair", tmp_path, "all")
