"""Lists of paths of any kind, and what is said of names that do not pair up."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniatures import write_image, write_mask
from rmiseg.data import available_splits, check_dataset, load_split, scan_split


def data_set(root: Path, images: list[str], masks: list[str]) -> Path:
    for name in images:
        write_image(root / f"{name}.png")
    for name in masks:
        write_mask(root / f"{name}.png")
    (root / "dataset.yaml").write_text("classes: [a, b]")
    return root


def simple(root: Path) -> Path:
    return data_set(root, [f"images/p/{n}" for n in range(4)], [f"masks/p/{n}" for n in range(4)])


@pytest.mark.parametrize("form", ["{root}/images/p/{n}.png", "images/p/{n}.png", "./images/p/{n}", "p/{n}", "./p/{n}"])
def test_lists_of_paths_from_anywhere(tmp_path, form):
    root = simple(tmp_path)
    (root / "train.txt").write_text("".join(form.format(root=root, n=n) + "\n" for n in range(3)))
    (root / "valid.txt").write_text(form.format(root=root, n=3))
    assert list(available_splits("folder", root)) == ["train", "val"]
    found = [[sample.name for sample in load_split("folder", root, split).samples] for split in ("train", "val")]
    assert found == [["p/0", "p/1", "p/2"], ["p/3"]]


def test_lists_of_pairs_and_of_what_lies_elsewhere(tmp_path):
    root = simple(tmp_path / "data")
    write_image(tmp_path / "else.png")
    (root / "train.txt").write_text(f"images/p/0.png masks/p/0.png\n{tmp_path}/else.png\n../else.png\n")
    problems = scan_split("folder", root, "train").problems
    assert len(problems) == 3
    assert "a line names one image, such as 'images/p/0.png', whose mask is found by its name" in problems[0]
    assert all("else.png' in " in problem for problem in problems[1:])


@pytest.mark.parametrize("name", ["ImageSets/Segmentation/train.txt", "splits/val.txt", "train.csv", "val.json"])
def test_lists_that_are_not_read_are_told(tmp_path, name):
    root = simple(tmp_path)
    assert check_dataset("folder", root, workers=0).warnings == []
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("p/0")
    (warning,) = check_dataset("folder", root, workers=0).warnings
    assert warning.startswith(f"{root / name} may say which images belong to a split, and is not read: lists are ")


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (
            ["imagesTr/c1_0000", "imagesTr/c1_0001", "imagesTr/c2_0000", "imagesTr/c2_0001"],
            ["labelsTr/c1", "labelsTr/c2"],
            "c1_0000.png and c1_0001.png are called as images of one case are for nnU-Net: save them as the bands of "
            "one file, such as a TIFF, and write `bands: 2`",
        ),
        (["images/a"], ["masks/a_mask", "masks/a_label"], "a may have the mask a_label or a_mask: a mask holds all"),
        (
            ["images/a"],
            ["masks/road/a", "masks/car/a"],
            "a may have the mask car/a or road/a: a mask holds all classes",
        ),
        (["images/frame1", "images/frame2"], ["masks/0001", "masks/x"], "frame1.png and 0001.png do not"),
    ],
)
def test_why_images_have_no_mask(tmp_path, images, masks, message):
    report = check_dataset("folder", data_set(tmp_path, images, masks), workers=0)
    assert any(message in warning for warning in report.warnings), report.warnings
    assert report.problem_count


def test_images_of_two_splits_with_the_same_pixels(tmp_path):
    root = data_set(tmp_path, ["images/train/a", "images/train/b"], ["masks/train/a", "masks/train/b"])
    write_image(root / "images/train/b.png", seed=1)
    write_image(root / "images/val/c.png", seed=1)
    write_mask(root / "masks/val/c.png")
    (warning,) = check_dataset("folder", root, workers=0).warnings
    assert warning.startswith(f"1 image of val with the pixels of one of train, e.g. {root / 'images/val/c.png'} and ")
    write_image(root / "images/val/c.png", seed=2)
    assert check_dataset("folder", root, workers=0).warnings == []
