"""Pairs of images and masks whose names differ, and the layouts of other programs."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from miniatures import write_image, write_mask
from rmiseg.data import available_splits, check_dataset, load_split, scan_split
from rmiseg.data.sets.finding import load_splits
from rmiseg.data.sets.pairing import pair, walk, why_unpaired
from rmiseg.runtime.files import printable, replacing

CASES = Path(__file__).parents[1] / "cases"


def paired(images: list[str], masks: list[str]) -> dict[str, str]:
    return pair({key: Path(key) for key in images}, {key: Path(key) for key in masks})[0]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["img_000"], ["img_000_mask"]),
        (["a_1", "b_1"], ["a_1_cp_masks", "b_1_cp_masks"]),  # Cellpose
        (["a", "b"], ["a_label", "b_label"]),
        (["a"], ["a-gt"]),
        (["a", "b"], ["a.jpg", "b.jpg"]),
        (["train/a"], ["train/a_seg"]),
        (["img_1", "img_2"], ["mask_1", "mask_2"]),
        (["001_sat", "002_sat"], ["001_mask", "002_mask"]),
        (["case_1_0000", "case_2_0000"], ["case_1", "case_2"]),
        (["IMG_1", "IMG_2"], ["img_1", "img_2"]),
        ([unicodedata.normalize("NFC", "Größe")], [unicodedata.normalize("NFD", "Größe")]),
        (["Image_01L", "Image_01R"], ["Image_01L_1stHO", "Image_01R_1stHO"]),
        (["scan 10", "scan 11", "scan 12"], ["lesion10", "lesion11", "lesion12"]),
    ],
)
def test_names_that_differ_in_the_same_way(images, masks):
    assert paired(images, masks) == dict(zip(images, masks))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["img_1"], ["img_10"]),
        (["cat"], ["dog"]),
        (["a"], ["a_mask", "a_gt"]),  # which one?
        (["A", "a"], ["Ä", "AA"]),
        (["train/a"], ["val/a_mask"]),
        (["a1", "a2", "a3"], ["b7", "b8", "b9"]),
    ],
)
def test_names_that_tell_nothing(images, masks):
    assert paired(images, masks) == {}


def test_equal_names_come_first():
    assert paired(["a", "a_mask"], ["a", "a_mask"]) == {"a": "a", "a_mask": "a_mask"}


def test_decision_is_told():
    split = load_split("folder", CASES / "suffix", "train")
    assert len(split) == 1
    assert "img_000.jpg and img_000_mask.png" in split.notes[0]
    assert check_dataset("folder", CASES / "suffix", workers=0).splits[0].notes == list(split.notes)


LAYOUTS = {
    "labels": ("images/train/{}", "labels/train/{}", "images/val/{}", "labels/val/{}"),
    "inside": ("train/images/{}", "train/masks/{}", "valid/images/{}", "valid/masks/{}"),
    "inside, labels": ("train/images/{}", "train/labels/{}", "val/images/{}", "val/labels/{}"),
    "valid": ("images/train/{}", "masks/train/{}", "images/valid/{}", "masks/valid/{}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_programs(tmp_path, layout):
    train_image, train_mask, val_image, val_mask = LAYOUTS[layout]
    for index in range(3):
        write_image(tmp_path / train_image.format(f"t{index}.png"))
        write_mask(tmp_path / train_mask.format(f"t{index}.png"))
    write_image(tmp_path / val_image.format("v.png"))
    write_mask(tmp_path / val_mask.format("v.png"))
    (tmp_path / "dataset.yml").write_text("classes: [a, b]")
    assert available_splits("folder", tmp_path) == ("train", "val")
    train, val = (load_split("folder", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 1)
    assert val.samples[0].image == tmp_path / val_image.format("v.png")
    assert val.samples[0].mask == tmp_path / val_mask.format("v.png")
    assert any("val: images in" in note for note in val.notes)


def test_layout_of_nnunet(tmp_path):
    for index in range(10):
        write_image(tmp_path / "imagesTr" / f"case_{index:03d}_0000.png")
        write_mask(tmp_path / "labelsTr" / f"case_{index:03d}.png")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    assert available_splits("folder", tmp_path) == ("train", "val")
    assert [len(load_split("folder", tmp_path, split)) for split in ("train", "val")] == [8, 2]


def test_files_of_other_suffixes_are_counted(split_root):
    for name in ("a.heic", "b.heic", "c.NEF"):
        (split_root / "images" / "train" / name).write_bytes(b"")
    (split_root / "images" / "train" / "Thumbs.db").write_bytes(b"")
    report = check_dataset("folder", split_root, workers=0)
    (warning,) = report.warnings
    assert "not read as images: 2 .heic, 1 .nef, such as a.heic" in warning


def test_labels_of_another_kind_are_named(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.1 0.1")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    with pytest.raises(ValueError, match=r"not read as masks: 1 \.txt"):
        load_split("folder", tmp_path, "train")


def test_jfif_and_a_mask_called_after_a_jpeg(tmp_path):
    for split in ("train", "val"):
        path = write_image(tmp_path / "images" / split / "a.jpg")
        path.rename(path.with_suffix(".jfif"))
        write_mask(tmp_path / "masks" / split / "a.jpg.png")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    split = scan_split("folder", tmp_path, "train")
    assert split.problems == ()
    assert [sample.mask.name for sample in split.samples] == ["a.jpg.png"]


def test_names_that_are_no_utf_8(folder_root):
    for folder, suffix in (("images", b".jpg"), ("masks", b".png")):
        for index in range(10):
            where = os.fsencode(folder_root / folder)
            os.rename(
                os.path.join(where, b"photo_%d" % index + suffix), os.path.join(where, b"\xf6%d" % index + suffix)
            )
    assert sum(len(load_split("folder", folder_root, split)) for split in ("train", "val")) == 10
    assert check_dataset("folder", folder_root, workers=0).problem_count == 0


def test_each_folder_is_listed_once(folder_root, monkeypatch):
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: listed.append(os.path.basename(os.fspath(path).rstrip("/"))) or scandir(path)
    )

    load_splits("folder", folder_root, ("train", "val"))
    assert listed.count("masks") == 1


def test_links_that_go_in_circles(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert walk(tmp_path) == ["a/x.png"]


def test_results_of_such_names_and_of_long_ones(tmp_path):
    for name in (b"gr\xf6sse.png", b"n" * 251 + b".png"):
        path = tmp_path / os.fsdecode(name)
        with replacing(path) as temporary:
            temporary.write_bytes(b"whole")
        assert path.read_bytes() == b"whole"
    assert printable(os.fsdecode(b"gr\xf6sse")) == r"gr\udcf6sse"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (0, "from 1 to 4, and those of the masks from 0 to 3: is the mask of each image numbered 1 lower"),
        (2, "from 2 to 5: is the mask of each image numbered 1 higher"),
        (101, "from 101 to 104: is the mask of each image numbered 100 higher"),
    ],
)
def test_masks_that_are_numbered_otherwise(first, said):
    images = {f"img_{n:04d}": Path(f"img_{n:04d}.png") for n in range(1, 5)}
    masks = {f"mask_{n:04d}": Path(f"mask_{n:04d}.png") for n in range(first, first + 4)}
    assert said in why_unpaired(images, masks, pair(images, masks)[0])
    assert "numbered" not in why_unpaired(images, dict(list(masks.items())[1:]), pair(images, masks)[0])


def test_pipes_and_links_to_nowhere(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "images" / "b.png")
    write_mask(tmp_path / "masks" / "a.png", value=1)
    os.mkfifo(tmp_path / "images" / "c.png")
    os.mkfifo(tmp_path / "masks" / "c.png")
    (tmp_path / "masks" / "b.png").symlink_to("nowhere.png")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    report = check_dataset("folder", tmp_path, workers=0)
    (said,) = [line for split in report.splits for line in split.unreadable]
    assert said.endswith("b.png does not exist: it is a symbolic link to nowhere.png, where there is nothing")
    assert sum(split.images for split in report.splits) == 2
