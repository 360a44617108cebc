"""Folders that are nearly a data set, and what is said of those that are none."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from miniatures import write_image, write_mask
from rmiseg.data import check_dataset, load_split, open_training_data
from rmiseg.data.sets.finding import scan_splits
from rmiseg.planning.splits import choose_folds

CLASSES = "classes: [a, b]\n"


def pairs(root: Path, images: str, masks: str, *names: str, ending: str = "") -> Path:
    for name in names or ("a", "b"):
        write_image(root / images / f"{name}.png")
        write_mask(root / masks / f"{name}{ending}.png")
    (root / "dataset.yaml").write_text(CLASSES)
    return root


def refused(root: Path, split: str = "train") -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_split("folder", root, split)
    return str(error.value)


@pytest.mark.parametrize("folder", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"])
def test_folders_of_the_system_are_no_data(tmp_path, folder):
    root = pairs(tmp_path, "images", "masks")
    write_image(root / "images" / folder / "a.png")
    write_mask(root / "masks" / folder / "a.png")
    train, val = scan_splits("folder", root)
    assert len(train.samples) + len(val.samples) == 2
    assert not any(folder in note for note in train.notes)


def test_the_field_of_view_is_no_truth(tmp_path):
    """DRIVE has vessels in 1st_manual/ and the field of view in mask/."""
    root = pairs(tmp_path, "training/images", "training/1st_manual", "21_training", "22_training")
    pairs(root, "training/images", "training/mask", "21_training", "22_training", ending="_mask")
    train = load_split("folder", root, "train")
    assert train.samples[0].mask.parent.name == "1st_manual"
    assert any("not from mask/ beside it" in note for note in train.notes)


def test_other_folders_of_as_many_images_are_named(tmp_path):
    root = pairs(tmp_path, "images", "masks")
    shutil.copytree(root / "masks", root / "second_reader")
    shutil.copytree(root / "images", root / "train_images")  # of a split, by its name
    assert any("and not from second_reader/ beside it" in note for note in load_split("folder", root, "train").notes)
    shutil.rmtree(root / "second_reader")
    assert not any("beside it" in note for note in load_split("folder", root, "train").notes)


def test_years_of_splits(tmp_path):
    root = pairs(tmp_path, "images/train2017", "masks/train2017", "a", "b", "c")
    pairs(root, "images/val2017", "masks/val2017", "d")
    assert [len(split.samples) for split in scan_splits("folder", root)] == [3, 1]


@pytest.mark.parametrize(("images", "masks"), [("inputs", "targets"), ("images_png", "masks_png")])
def test_further_names_of_folders(tmp_path, images, masks):
    assert len(load_split("folder", pairs(tmp_path, images, masks), "train")) == 1


def test_labels_of_a_tool_are_for_the_import(tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "a.json").write_text("{}")
    assert f"`rmiseg data import {tmp_path} --out NEW`" in refused(tmp_path)
    (tmp_path / "train" / "labels").mkdir(parents=True)
    (tmp_path / "train" / "images").mkdir()
    assert "so are masks. What a labelling tool exported" in refused(tmp_path)
    (tmp_path / "dataset.yaml").write_text(CLASSES)
    shutil.move(tmp_path / "a.png", tmp_path / "train" / "images")
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0 0 1 0 1 1")
    assert "labels of a labelling tool become masks by `rmiseg data import`" in refused(tmp_path)


def test_archives_are_to_be_unpacked(tmp_path):
    archive = tmp_path / "data.zip"
    archive.write_bytes(b"PK")
    assert "is a file: unpack it, and name the folder" in refused(archive)
    assert "unpack data.zip" in refused(tmp_path)
    write_image(tmp_path / "images" / "a.png")
    assert "unpack data.zip" in refused(tmp_path)


def test_the_folder_around_and_many_inside(tmp_path):
    root = pairs(tmp_path / "data", "images", "masks")
    assert f"{root} is one: name that" in refused(root / "images")
    for name in ("p1", "p2", "p3"):
        shutil.copytree(root, tmp_path / "cases" / name)
    assert f"3 folders in {tmp_path / 'cases'}, such as p1, are one each" in refused(tmp_path / "cases")


def test_one_image_and_none(tmp_path):
    root = pairs(tmp_path, "images", "masks", "a")
    assert "one image cannot be both" in refused(root, "val")
    (root / "train.txt").write_text("\n")
    (root / "val.txt").write_text("a\n")
    assert f"{root / 'train.txt'} names no image" in refused(root)
    (root / "train.txt").write_text("/home/other/images/a.png\n")
    assert "there is 'a.png'; lines are paths from there" in refused(root)
    (root / "train.txt").write_text("'a'\n")
    assert "such as 'a', whose mask" in refused(root)


def test_several_masks_of_an_image(tmp_path):
    root = pairs(tmp_path, "images", "images", ending="_mask")
    write_mask(root / "images" / "a_mask_1.png")
    warnings = check_dataset("folder", root, workers=0).warnings
    assert any("a_mask_1.png is called as a further mask of a.png is" in warning for warning in warnings)


def test_videos_and_lists_that_are_not_read(tmp_path):
    root = pairs(tmp_path, "images", "masks")
    (root / "images" / "clip.mp4").write_bytes(b"")
    (root / "splits.csv").write_text("a,train\n")
    warnings = load_split("folder", root, "train").warnings
    assert any("of a video, save the frames as images" in warning for warning in warnings)
    assert any("splits.csv may say which images belong to a split" in warning for warning in warnings)


def test_a_range_that_does_nothing_is_told(tmp_path):
    root = pairs(tmp_path, "images", "masks")
    (root / "dataset.yaml").write_text(f"{CLASSES}range: [0, 100]\n")
    notes = check_dataset("folder", root, workers=0).splits[0].notes
    assert any("the range of values does nothing" in note for note in notes)


def test_the_only_image_of_a_class_is_learned_from():
    names = [f"{number}" for number in range(8)]
    for only in range(8):
        shown = np.ones((8, 3), bool)
        shown[:, 2] = np.arange(8) == only
        assert names[only] not in choose_folds(names, shown, 5).parts[0]


def test_the_same_images_on_both_sides_are_told(tmp_path):
    root = pairs(tmp_path, "images", "masks", "a", "b", "c")
    (root / "train.txt").write_text("a\nb\n")
    (root / "val.txt").write_text("b\nc\n")
    for val, images in (("val", "1 image"), ("train", "2 images")):
        stream = io.StringIO()
        open_training_data("folder", str(root), ("train", val), console=Console(file=stream, width=300))
        assert f"warning: {images} in both train and {val}" in stream.getvalue()


def test_what_the_option_val_leaves(tmp_path):
    root = str(pairs(tmp_path, "images", "masks"))
    with pytest.raises(ValueError, match="the option val names none, so that none is left for val"):
        load_split("folder", root, "val", options={"val": []})
    with pytest.raises(ValueError, match="the option val names all images, so that none is left for train"):
        load_split("folder", root, "train", options={"val": ["a", "b"]})


def test_images_in_folders_and_masks_in_none(tmp_path):
    root = pairs(tmp_path, "images", "masks", "a1", "b1", "c1")
    for name in "abc":
        (root / "images" / name).mkdir()
        shutil.move(root / "images" / f"{name}1.png", root / "images" / name)
    train = load_split("folder", root, "train")
    assert all(sample.image.name == sample.mask.name for sample in train.samples)
    assert any("3 of 3 images have masks of other names, in other folders" in note for note in train.notes)
    for name in "abc":  # now the names alone do not tell
        (root / "images" / name / f"{name}1.png").rename(root / "images" / name / "1.png")
    assert "and a/1.png and a1.png do not" in refused(root)
