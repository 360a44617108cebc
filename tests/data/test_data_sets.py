"""The published data sets, on miniatures of what their archives unpack to."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniatures import (
    COCO_SIZE,
    HEIGHT,
    WIDTH,
    every,
    write_ade20k,
    write_cityscapes,
    write_coco,
    write_image,
    write_lines,
    write_sbd,
    write_values,
    write_voc,
)
from rmiseg.cli.main import main
from rmiseg.config import registry
from rmiseg.data import SegmentationDataset, available_splits, drawn, load_split, read_mask, scan_split


def names(split) -> list[str]:
    return [sample.name for sample in split.samples]


def ids_of(split, index: int = 0) -> np.ndarray:
    return read_mask(split.samples[index].mask, split.classes)


# PASCAL VOC


@pytest.fixture
def voc_home(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "data" / "VOCdevkit" / "VOC2012")


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_voc(voc_home, levels):
    root = (voc_home, *voc_home.parents)[levels]
    assert available_splits("voc", root) == ("train", "trainval", "val", "test")
    assert names(load_split("voc", root, "train")) == ["2007_000032", "2007_000039"]
    assert names(load_split("voc", root, "trainval")) == ["2007_000032", "2007_000033", "2007_000039"]
    split = load_split("voc", root, "val")
    assert split.samples[0].image == voc_home / "JPEGImages" / "2007_000033.jpg"
    assert (len(split.classes), split.classes.names[15], split.classes.palette[15]) == (21, "person", (192, 128, 128))
    np.testing.assert_array_equal(ids_of(split), every(*range(21), 255))
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
    assert names(split) == ["2007_000032", "2007_000039", "2008_000002"]  # nothing of val
    # VOC's own annotation is preferred.
    assert [sample.mask.suffix for sample in split.samples] == [".png", ".png", ".mat"]
    np.testing.assert_array_equal(ids_of(split, 2), every(*range(15)))


def test_voc_trainaug_from_folder(voc_home):
    for name in ("2008_000002", "2007_000032", "2007_000033"):
        write_values(voc_home / "SegmentationClassAug" / f"{name}.png", every(3))
    split = load_split("voc", voc_home, "trainaug")
    assert names(split) == ["2007_000032", "2007_000039", "2008_000002"]
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
    assert names(load_split("voc", voc_home, "trainaug")) == ["2008_000002", "2007_000039"]


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


def test_sbd_without_scipy(voc_home, monkeypatch):
    write_sbd(voc_home / "SBD" / "dataset" / "cls" / "2008_000002.mat", every(1))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ModuleNotFoundError, match=r'needs the package scipy.*pip install "rmiseg\[sbd\]"'):
        load_split("voc", voc_home, "trainaug")


def test_damaged_mat_is_named(voc_home):
    path = write_sbd(voc_home / "SBD" / "dataset" / "cls" / "2008_000002.mat", every(1))
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match=r"cannot read mask .*2008_000002\.mat"):
        ids_of(load_split("voc", voc_home, "trainaug"), 2)


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
    assert names(load_split("voc", voc_home, "train")) == ["2007_000039", "2007_000032"]


def test_list_that_is_no_text(voc_home):
    (voc_home / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\x80\x81\xff")
    with pytest.raises(ValueError, match=r"train\.txt is not a text file"):
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
    assert names(split) == ["train/aachen/aachen_000000_000019", "train/bochum/bochum_000000_000019"]
    assert len(load_split("cityscapes", root, "trainval").samples) == 3
    assert (len(split.classes), split.classes.names[0], split.classes.names[18]) == (19, "road", "bicycle")
    ids = ids_of(split)
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
    write_values(mask, every(0))  # conversion to train ids broke off
    assert load_split("cityscapes", root, "train").samples[0].mask.name.endswith("labelIds.png")
    write_values(root / "gtFine" / "train" / "bochum" / "bochum_000000_000019_gtFine_labelTrainIds.png", every(0))
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
    assert names(split) == ["ADE_train_00000001", "ADE_train_00000002"]
    assert (len(split.classes), split.classes.names[0], split.classes.names[149]) == (150, "wall", "flag")
    np.testing.assert_array_equal(ids_of(split), every(255, *range(150)))


# COCO


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def test_coco(coco_root, cache):
    before = sorted(coco_root.rglob("*"))
    assert available_splits("coco", coco_root) == ("train", "val", "test")
    split = load_split("coco", coco_root, "train")
    assert names(split) == ["000000000001", "000000000002", "000000000003"]  # the others have too few pixels
    assert split.samples[0].image == coco_root / "train2017" / "000000000001.jpg"
    aeroplane, chair, person, tv = (split.classes.names.index(n) for n in ("aeroplane", "chair", "person", "tvmonitor"))

    expected = np.zeros(COCO_SIZE[::-1], np.uint8)
    expected[:40, :40] = aeroplane
    expected[10:18, 10:18] = person
    np.testing.assert_array_equal(ids_of(split, 0), expected)
    expected = np.zeros(COCO_SIZE[::-1], np.uint8)
    expected[8:, 32:] = chair
    np.testing.assert_array_equal(ids_of(split, 1), expected)
    expected[8:, 32:] = person
    expected[10:20, 40:50] = tv
    np.testing.assert_array_equal(ids_of(split, 2), expected)

    val = load_split("coco", coco_root, "val")
    assert np.bincount(ids_of(val).ravel())[val.classes.names.index("sofa")] == 32 * 32
    assert [sample.mask for sample in load_split("coco", coco_root, "test", masks=False).samples] == [None]
    assert sorted(coco_root.rglob("*")) == before  # nothing is written beside the data
    assert not list(cache.rglob("*.tmp"))


def test_coco_masks_are_drawn_once(coco_root, monkeypatch, capsys):
    first = load_split("coco", coco_root, "train")
    assert "Drawing the masks" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)  # no longer needed
    assert load_split("coco", coco_root, "train") == first
    assert capsys.readouterr().err == ""


def test_coco_masks_are_drawn_again_when_the_annotations_change(coco_root):
    first = load_split("coco", coco_root, "train")
    path = coco_root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    path.write_text(json.dumps(content))
    second = load_split("coco", coco_root, "train")
    assert len(second.samples) == 4  # the cup has become a person
    assert first.samples[0].mask != second.samples[0].mask
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert load_split("coco", coco_root, "train").samples[0].mask != second.samples[0].mask


def test_coco_drawing_goes_on_after_an_interruption(coco_root, monkeypatch, cache):
    drawn_so_far = []
    save = Image.Image.save

    def stop_at_the_third(self, *args, **options):
        drawn_so_far.append(self)
        if len(drawn_so_far) == 3:
            raise OSError("disk full")
        save(self, *args, **options)

    monkeypatch.setattr(Image.Image, "save", stop_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        load_split("coco", coco_root, "train")
    assert len(list(cache.rglob("*.png"))) == 2
    assert not list(cache.rglob("images.json"))
    assert len(load_split("coco", coco_root, "train").samples) == 3
    assert len(drawn_so_far) == 4  # two are not drawn again


def test_coco_of_2014_in_folder_images(coco_root):
    for split in ("train", "val"):
        path = coco_root / "annotations" / f"instances_{split}2017.json"
        path.rename(path.with_name(f"instances_{split}2014.json"))
        (coco_root / "images").mkdir(exist_ok=True)
        (coco_root / f"{split}2017").rename(coco_root / "images" / f"{split}2014")
    assert load_split("coco", coco_root, "val").samples[0].image.parent == coco_root / "images" / "val2014"


def test_coco_without_pycocotools(coco_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "rmiseg\[coco\]"'):
        load_split("coco", coco_root, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', r"instances_train2017\.json is damaged"),
        ('{"images": [], "annotations": []}', r"instances_train2017\.json does not hold .*categories"),
        ("[]", r"instances_train2017\.json does not hold"),
    ],
)
def test_coco_with_bad_annotations(coco_root, content, message):
    (coco_root / "annotations" / "instances_train2017.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_split("coco", coco_root, "train")


def test_coco_with_regions_of_another_size(coco_root):
    path = coco_root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"height": 48', '"height": 47'))
    with pytest.raises(ValueError, match=r"annotation 3 is drawn on 64 x 48 pixels, but its image has 64 x 47"):
        load_split("coco", coco_root, "train")


def test_cache_folder(monkeypatch, tmp_path):
    assert drawn.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RMISEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert drawn.cache_folder() == tmp_path / "rmiseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert drawn.cache_folder() == Path.home() / ".cache" / "rmiseg"


# COCO-Stuff and COCO's panoptic annotations

STUFF_VALUES = [*(set(range(91)) - {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}), *range(91, 182)]


@pytest.mark.parametrize("place", ["stuffthingmaps", "annotations"])
def test_coco_stuff(coco_root, place):
    for split, number in (("train", 5), ("val", 1)):
        for image in (coco_root / f"{split}2017").iterdir():
            write_values(
                coco_root / place / f"{split}2017" / f"{image.stem}.png", every(*STUFF_VALUES, 255, size=COCO_SIZE)
            )
            write_values(coco_root / place / f"{split}2017" / f"{image.stem}_labelTrainIds.png", every(0))
        assert len(load_split("coco-stuff", coco_root, split).samples) == number
    split = load_split("coco-stuff", coco_root, "train")
    assert len(split.classes) == 171
    named = dict(zip(split.classes.values, split.classes.names))
    assert (named[0], named[89], named[91], named[181]) == ("person", "toothbrush", "banner", "wood")
    np.testing.assert_array_equal(ids_of(split), every(*range(171), 255, size=COCO_SIZE))


@pytest.fixture
def panoptic_root(coco_root: Path) -> Path:
    """Each image has two persons, segments 1 and 70000, a rug, segment 300, and the rest is void."""
    for split in ("train", "val"):
        images = sorted((coco_root / f"{split}2017").iterdir())
        folder = coco_root / "annotations" / f"panoptic_{split}2017"
        folder.mkdir()
        numbers = np.resize([0, 1, 300, 70000], COCO_SIZE[::-1])
        colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1).astype(np.uint8)
        for image in images:
            Image.fromarray(colors).save(folder / f"{image.stem}.png")
        content = {
            "images": [{"id": int(image.stem), "file_name": image.name} for image in images],
            "annotations": [
                {
                    "image_id": int(image.stem),
                    "file_name": f"{image.stem}.png",
                    "segments_info": [
                        {"id": number, "category_id": category} for number, category in ((1, 1), (300, 200), (70000, 1))
                    ],
                }
                for image in images
            ],
        }
        (coco_root / "annotations" / f"panoptic_{split}2017.json").write_text(json.dumps(content))
    return coco_root


def test_coco_panoptic(panoptic_root, monkeypatch):
    assert available_splits("coco-panoptic", panoptic_root) == ("train", "val", "test")
    split = load_split("coco-panoptic", panoptic_root, "train")
    assert len(split.samples) == 5
    assert (len(split.classes), split.classes.names[132]) == (133, "rug-merged")
    np.testing.assert_array_equal(ids_of(split), np.resize([255, 0, 132, 0], COCO_SIZE[::-1]))
    monkeypatch.setattr(drawn, "_draw", None)  # would fail if called
    assert load_split("coco-panoptic", panoptic_root, "train") == split


def test_coco_panoptic_with_index_pngs(panoptic_root):
    shutil.rmtree(panoptic_root / "annotations" / "panoptic_val2017")
    with pytest.raises(FileNotFoundError, match="annotations/panoptic_val2017 does not exist"):
        load_split("coco-panoptic", panoptic_root, "val")
    folder = panoptic_root / "annotations" / "panoptic_semantic_val2017"
    write_values(folder / "000000000006.png", every(0, 1, 92, 200, size=COCO_SIZE))
    split = load_split("coco-panoptic", panoptic_root, "val")
    assert split.samples[0].mask.parent == folder
    np.testing.assert_array_equal(ids_of(split), every(255, 0, 80, 132, size=COCO_SIZE))


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
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for name in registry.names("dataset"):
        assert f"| `{name}` |" in text
        assert textwrap.indent(registry.find("dataset", name).make.tree("ROOT"), "  ") in text, name


# rmiseg data check


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
        ids_of(load_split("voc", voc_home, "val"))
