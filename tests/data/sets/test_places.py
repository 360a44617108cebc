"""Folders of somebody's own data set, whatever they are called, and where a split comes from that nobody named."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from miniatures import every, write_image, write_mask, write_values
from rmiseg.data import check_dataset, load_split, open_training_data, scan_split
from rmiseg.data.sets.places import find_places


def write_pairs(root: Path, images: str, masks: str, count: int = 5, ending: str = "") -> None:
    for index in range(count):
        write_image(root / images / f"{index}.png", seed=index)
        write_values(root / masks / f"{index}{ending}.png", every(0, 1))
    (root / "dataset.yaml").write_text("classes: [a, b]")


def said(root: Path) -> str:
    """Notes of a training, which accepts what the check accepts."""
    report = check_dataset("folder", root, workers=0)
    assert report.problem_count == 0
    assert not [warning for warning in report.warnings if "no split" in warning]
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=300))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("img", "mask"),
        ("Images", "Masks"),
        ("IMAGES", "LABELS"),
        ("image", "label"),
        ("images", "GT"),
        ("images", "ground_truth"),
        ("JPEGImages", "SegmentationClass"),
        ("imgs", "annotation"),
    ],
)
def test_folders_of_other_names(images, masks, tmp_path):
    write_pairs(tmp_path, images, masks)
    assert f"images in {images}/, masks in {masks}/" in said(tmp_path)
    assert [len(load_split("folder", tmp_path, split)) for split in ("train", "val")] == [4, 1]


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Valid"), ("TRAINING", "validation")])
@pytest.mark.parametrize("pattern", ["{}/images {}/masks", "{}/Img {}/Mask", "images/{} masks/{}", "Image/{} Label/{}"])
def test_divided_folders(names, pattern, tmp_path):
    for name in names:
        write_pairs(tmp_path, *pattern.format(name, name).split())
    said(tmp_path)
    assert [len(load_split("folder", tmp_path, split)) for split in ("train", "val")] == [5, 5]


@pytest.mark.parametrize(
    ("patterns", "counts"),
    [
        (["train train_masks", "val val_masks"], [5, 5]),
        (["train trainannot", "val valannot"], [5, 5]),
        (["train_images train_labels"], [4, 1]),
        (["images_train masks_train", "images_valid masks_valid"], [5, 5]),
        (["imagesTr labelsTr"], [4, 1]),
        (["train/images train/masks"], [4, 1]),
        (["images/train masks/train"], [4, 1]),
    ],
)
def test_folders_side_by_side_and_val_made_of_train(patterns, counts, tmp_path):
    for pattern in patterns:
        write_pairs(tmp_path, *pattern.split())
    assert ("nothing is called val" in said(tmp_path)) == (counts == [4, 1])
    assert [len(load_split("folder", tmp_path, split)) for split in ("train", "val")] == counts


def test_folders_of_images_and_of_masks_that_call_a_split_otherwise(tmp_path):
    write_pairs(tmp_path, "images/Train", "masks/train")
    write_pairs(tmp_path, "images/valid", "masks/val")
    assert "split val: images in images/valid/, masks in masks/val/" in said(tmp_path)
    assert load_split("folder", tmp_path, "val").samples[0].mask == tmp_path / "masks" / "val" / "0.png"


def test_folders_that_are_no_splits_are_taken_together(tmp_path):
    for patient in ("p1", "p2"):
        write_pairs(tmp_path, f"images/{patient}", f"masks/{patient}")
    assert "has the folders p1, p2, none of which is a split" in said(tmp_path)
    assert [len(load_split("folder", tmp_path, split)) for split in ("train", "val")] == [8, 2]


@pytest.mark.parametrize("folder", ["images", ".", "benign"])
def test_images_beside_their_masks(folder, tmp_path):
    write_pairs(tmp_path, folder, folder, ending="_mask")
    assert "holds both images and masks" in said(tmp_path)
    assert [len(load_split("folder", tmp_path, split)) for split in ("train", "val")] == [4, 1]


def test_any_other_folder_is_not_searched(tmp_path):
    deep = tmp_path / "a" / "b"
    write_pairs(deep / "c", ".", ".", ending="_mask")
    write_pairs(deep, "images", "masks")
    assert find_places(tmp_path)[0]["train"].images == tmp_path / "images"
    with pytest.raises(FileNotFoundError, match=rf"{deep} is one: name that"):
        load_split("folder", tmp_path, "train")


def test_images_of_test_need_no_masks(tmp_path):
    write_pairs(tmp_path, "images/train", "masks/train")
    for index in range(2):
        write_image(tmp_path / "images" / "test" / f"{index}.png")
    said(tmp_path)
    test = scan_split("folder", tmp_path, "test")
    assert (len(test), test.labeled, test.images_without_mask) == (2, False, ())
    assert any("no image of test has a mask" in note for note in test.notes)
    write_mask(tmp_path / "masks" / "test" / "other.png", value=1)
    assert len(scan_split("folder", tmp_path, "test").images_without_mask) == 2


def test_options_name_images_whose_names_are_no_utf8(tmp_path):
    write_pairs(tmp_path, "images", "masks")
    for folder in ("images", "masks"):
        os.rename(tmp_path / folder / "4.png", os.fsencode(tmp_path / folder) + b"/gr\xfc\xdf.png")
    split = load_split("folder", tmp_path, "val", options={"val": ["gr\\udcfc*"]})
    assert [os.fsencode(sample.name) for sample in split.samples] == [b"gr\xfc\xdf"]
