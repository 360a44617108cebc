"""Data sets that are known by the names of their files, where nobody says what they are."""

from __future__ import annotations

import pytest

from miniatures import (
    every,
    write_ade20k,
    write_camvid,
    write_cityscapes,
    write_coco,
    write_image,
    write_shapes,
    write_values,
    write_voc,
)
from rmiseg.cli import main
from rmiseg.config import DataConfig, OpenConfig
from rmiseg.data import available_splits, load_split
from rmiseg.data.sets.finding import recognized
from rmiseg.planning import planned_folds, planned_name, with_name

WRITERS = {
    "voc": write_voc,
    "cityscapes": write_cityscapes,
    "ade20k": write_ade20k,
    "camvid": write_camvid,
}


@pytest.mark.parametrize("name", WRITERS)
def test_known_by_its_files(tmp_path, name):
    WRITERS[name](tmp_path)
    assert recognized(tmp_path) == name
    with pytest.raises(ValueError, match=f"--data.name {name}"):
        load_split("folder", tmp_path, "train")
    with pytest.raises(ValueError, match=f"--data.name {name}"):
        available_splits("folder", tmp_path)


@pytest.mark.parametrize("home", ["VOC2012", "VOCdevkit/VOC2012"])
def test_known_by_the_folder_around(tmp_path, home):
    write_voc(tmp_path / home)
    assert recognized(tmp_path) == "voc"


def test_what_is_not_known(tmp_path):
    assert recognized("") is None
    assert recognized(tmp_path / "nothing") is None
    assert recognized(write_shapes(tmp_path / "own", count=2)) is None
    (tmp_path / "coco").mkdir()
    assert recognized(write_coco(tmp_path / "coco")) is None  # three data sets have these images


def test_a_description_says_what_the_masks_mean(tmp_path):
    """Images of CamVid with somebody's own masks."""
    write_camvid(tmp_path, lists=False)
    (tmp_path / "dataset.yaml").write_text(f"classes: {[f'mine {value}' for value in range(12)]}")
    assert recognized(tmp_path) is None
    assert load_split("folder", tmp_path, "train").classes.names[0] == "mine 0"


def test_the_layout_alone_is_not_enough(tmp_path):
    """Somebody's own images in the folders of the SegNet tutorial are not streets."""
    for split in ("train", "val"):
        write_image(tmp_path / split / "a.png")
        write_values(tmp_path / f"{split}annot" / "a.png", every(0, 1))
    assert recognized(tmp_path) is None
    with pytest.raises(ValueError, match=r"dataset.yaml is missing"):
        load_split("folder", tmp_path, "train")


def test_masks_that_are_elsewhere(tmp_path):
    write_camvid(tmp_path)
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").unlink()
        (tmp_path / f"{split}annot").rename(tmp_path / f"{split}_labels")
    assert recognized(tmp_path) is None


def test_decided_where_nobody_gave_a_name(camvid_root):
    config = OpenConfig(data=DataConfig(root=str(camvid_root()), options={"val": None}))
    assert planned_name(config).value == "camvid"
    named = with_name(config, "camvid").data
    assert (named.name, named.options) == ("camvid", {})
    given = OpenConfig(data=config.data, given=("data.name",))
    assert planned_name(given) is None
    data, parts = planned_folds(config, 2)
    assert data.name == "camvid"
    assert sorted(map(len, parts)) == [2, 2]


def test_commands_without_a_name(camvid_root, capsys):
    root = str(camvid_root())
    assert main(["data", "check", "--root", root, "--workers", "0"]) == 0
    assert "camvid" in capsys.readouterr().out
    options = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--device", "cpu"]
    assert main(["plan", "--data.root", root, *options]) == 0
    out = capsys.readouterr().out
    assert "data.name" in out
    assert "11 classes" in out
