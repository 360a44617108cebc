"""Images to score on, where a data set does not say which."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from miniatures import write_shapes
from rmiseg.config import DataConfig
from rmiseg.data import load_split
from rmiseg.planning import choose_folds, planned_val
from rmiseg.planning.splits import sequence_of


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("seq1_0001", "seq1_"),
        ("drive/0001", "drive/"),
        ("a-frame12", "a-"),
        ("0001TP_006690", "0001TP_"),
        ("003", None),
        ("Image_01L", None),
        ("00ae65c1c6631ae6", None),
    ],
)
def test_sequence_of_a_name(name, begin):
    assert sequence_of(name) == begin


def test_frames_of_a_sequence_stay_together():
    names = [f"seq{number}_{frame:04}" for number in range(6) for frame in range(10)]
    folds = choose_folds(names, None, 5)
    assert folds.sequences == 6
    assert sorted(name for part in folds.parts for name in part) == names
    parts_of = {name[:5]: {i for i, part in enumerate(folds.parts) if name in part} for name in names}
    assert all(len(parts) == 1 for parts in parts_of.values())


def test_names_that_are_classes_are_no_sequences():
    """Cats all on one side, and dogs on the other, teach nothing."""
    names = [f"cat_{i}" for i in range(10)] + [f"dog_{i}" for i in range(10)]
    shown = np.array([[True, i < 10, i >= 10] for i in range(20)])
    folds = choose_folds(names, shown, 5)
    assert folds.sequences == 0
    assert {name[:3] for name in folds.parts[0]} == {"cat", "dog"}


def test_every_class_is_on_both_sides():
    rng = np.random.default_rng(3)
    shown = np.ones((40, 4), bool)
    shown[:, 1] = rng.permutation(40) < 2  # in two images
    shown[:, 2] = rng.permutation(40) < 10
    shown[:, 3] = rng.permutation(40) < 1  # in one
    names = [f"n{i:02}x" for i in range(40)]
    val = choose_folds(names, shown, 5).parts[0]
    inside = shown[[name in val for name in names]]
    assert len(val) == 8
    assert inside[:, 1].sum() == 1
    assert inside[:, 2].sum() == 2


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_few_images(count):
    folds = choose_folds([f"x{i}y" for i in range(count)], np.ones((count, 1), bool), 5)
    assert [len(part) > 0 for part in folds.parts] == [True] * min(count, 5)


def test_planned_val_is_a_list_that_any_command_reads(tmp_path):
    root = write_shapes(tmp_path, count=10)
    decision = planned_val(DataConfig(root=str(root)))
    assert decision.option == "data.options"
    splits = [load_split("folder", root, name, options=decision.value) for name in ("train", "val")]
    assert [len(split) for split in splits] == [8, 2]
    assert list(splits[1].names) == sorted(decision.value["val"])
    assert planned_val(DataConfig(root=str(root))) == decision


def test_planned_val_of_sequences(tmp_path):
    root = write_shapes(tmp_path, count=10)
    for index in range(10):
        for folder in ("images", "masks"):
            path = root / folder / f"shape{index:02}.png"
            path.rename(path.with_name(f"seq{index // 2}_{index:04}.png"))
    decision = planned_val(DataConfig(root=str(root)))
    (entry,) = decision.value["val"]
    assert entry.endswith("*")
    val = load_split("folder", root, "val", options=decision.value)
    assert len({name[:5] for name in val.names}) == 1
    assert len(val) == 2
    assert "no frames" in decision.because


def test_folders_that_say_it_themselves_are_left_alone(tmp_path):
    root = write_shapes(tmp_path, count=4)
    (root / "train.txt").write_text("shape00\nshape01\n")
    (root / "val.txt").write_text("shape02\n")
    assert planned_val(DataConfig(root=str(root))) is None
    assert planned_val(DataConfig(name="camvid", root=str(root))) is None
    assert planned_val(DataConfig(root=str(tmp_path / "no"))) is None
    with pytest.raises(ValueError, match=r"leave data\.options\.val out"):
        load_split("folder", root, "val", options={"val": ["shape02"]})


def test_names_that_are_not_there(tmp_path):
    root = write_shapes(tmp_path, count=4)
    for wrong in ("nothing", "nothing*"):
        with pytest.raises(ValueError, match="there is none of that name"):
            load_split("folder", root, "val", options={"val": ["shape02", wrong]})


def test_one_image(tmp_path):
    root = write_shapes(tmp_path, count=1)
    assert planned_val(DataConfig(root=str(root))) is None
    Image.open(root / "images/shape00.png").verify()
