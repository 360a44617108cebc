"""YOLO's segmentation labels, against supervision where it is installed, and as OpenCV draws them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from support.labels import SIZE, imported, random_polygon, write_photo


def line(class_id: int, polygon: list[list[float]]) -> str:
    """A polygon in pixels as YOLO has it."""
    shares = (np.array(polygon) / SIZE[::-1]).ravel()
    return " ".join([str(class_id), *(f"{x:.6g}" for x in shares)])


def write_yolo(root: Path, files: dict[str, list[str]], **description: object) -> Path:
    for name, lines in files.items():
        write_photo(root / f"{name}.jpg")
        path = root / f"{name.replace('images', 'labels')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    content = {"names": ["road", "car"], "nc": 2, **description}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


SQUARE = [[2, 2], [9, 2], [9, 9], [2, 9]]


def test_polygons_are_those_of_supervision(tmp_path):
    supervision = pytest.importorskip("supervision", exc_type=ImportError)
    rng = np.random.default_rng(0)
    files = {f"images/{i:02}": [line(0, random_polygon(rng, 3 + i % 7))] for i in range(40)}
    source = write_yolo(tmp_path / "yolo", files)
    _, masks, _ = imported(source, val=0)
    theirs = supervision.DetectionDataset.from_yolo(
        str(source / "images"), str(source / "labels"), str(source / "data.yaml"), force_masks=True
    )
    assert len(masks) == 40
    for path, _, labels in theirs:
        np.testing.assert_array_equal(masks[f"train/{Path(path).stem}"], labels.mask[0])


def test_polygons_as_opencv_draws_them(tmp_path):
    """Smaller ones lie in front of larger ones."""
    small = random_polygon(np.random.default_rng(3), 4, (8, 8))
    large = [[0, 0], [30, 1], [31, 22], [4, 20]]
    source = write_yolo(tmp_path / "yolo", {"images/a": [line(1, small), line(0, large)], "images/b": []})
    report, masks, classes = imported(source, val=0)
    assert classes == ["background", "road", "car"]
    expected = np.zeros(SIZE, np.uint8)
    for value, polygon in ((1, large), (2, small)):
        cv2.fillPoly(expected, [np.round(polygon).astype(np.int32)], value)
    np.testing.assert_array_equal(masks["train/a"], expected)
    assert ("car", "road") in report.overlaps
    assert report.unused.lines()[0].startswith("1 images without labels are left out")


@pytest.mark.parametrize("prefix", ["", "../", "./"])
def test_splits_of_data_yaml(tmp_path, prefix):
    """Folders as they are called, though some programs write them as if they lay above the file."""
    names = {"first/images/a": [line(0, SQUARE)], "second/images/a": [line(1, SQUARE)]}
    entries = {"train": f"{prefix}first/images", "val": f"{prefix}second/images"}
    report, masks, _ = imported(write_yolo(tmp_path / "yolo", names, **entries))
    assert report.images == {"train": 1, "val": 1}
    assert masks["train/a"].max() == 1
    assert masks["val/a"].max() == 2


def test_lists_of_images_and_names_by_number(tmp_path):
    files = {"images/a": [line(0, SQUARE)], "images/b": [line(5, SQUARE)], "images/c": [line(5, SQUARE)]}
    source = write_yolo(
        tmp_path / "yolo", files, names={0: "road", 5: "car"}, train="train.txt", val="val.txt", path="."
    )
    (source / "train.txt").write_text("./images/a.jpg\n./images/c.jpg\n")
    (source / "val.txt").write_text("./images/b.jpg\n")
    assert set(imported(source)[1]) == {"train/a", "train/c", "val/b"}


def test_labels_of_label_studio(tmp_path):
    """classes.txt, in UTF-16, in place of data.yaml; boxes; a confidence; a label file without an image."""
    source = write_yolo(tmp_path / "yolo", {"images/a": ["0 0.5 0.5 0.25 0.5", line(1, SQUARE) + " 0.9"]})
    (source / "data.yaml").unlink()
    (source / "classes.txt").write_text("road\ncar\n", encoding="utf-16")
    (source / "labels" / "lost.txt").write_text(line(0, SQUARE))
    report, masks, classes = imported(source, val=0)
    assert classes == ["background", "car"]
    expected = np.zeros(SIZE)
    expected[2:10, 2:10] = 1
    np.testing.assert_array_equal(masks["train/a"], expected)
    assert [reason[:16] for reason in report.unused.reasons] == [
        "numbers at the e",
        "label files have",
        "labels are boxes",
    ]
    _, masks, classes = imported(source, val=0, boxes="fill")
    assert classes == ["background", "road", "car"]
    assert (masks["train/a"][6:19, 12:21] == 1).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 nan 0.5 0.5 0.5 0.5 0.6", "a.txt, line 1: a coordinate is not a finite number"),
        ("0 0.5 0.5 0.5 0.5 0.5 1e300", "a.txt, line 1: coordinates are shares of width and height, 0 to 1"),
        ("7 0.5 0.5 0.5 0.5 0.5 0.6", "a.txt, line 1: there is no class 7"),
        ("0.5 0.5 0.5 0.5 0.5 0.5 0.6", "a.txt, line 1: the number of a class must be a whole number"),
        ("0 0.5 0.5", "a.txt, line 1: 3 numbers are neither"),
        ("0 a b c d e f", "a.txt, line 1: corners must be numbers"),
        (b"0 \xff", "a.txt: line 1 is not UTF-8"),
    ],
)
def test_hostile_labels(tmp_path, text, message):
    source = write_yolo(tmp_path / "yolo", {"images/a": []})
    (source / "labels" / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        imported(source)


def test_other_data_sets(tmp_path):
    source = write_yolo(tmp_path / "yolo", {"images/a": [line(0, SQUARE)]}, kpt_shape=[17, 3])
    with pytest.raises(ValueError, match="keypoints"):
        imported(source)
    source = write_yolo(tmp_path / "out", {"images/a": [line(0, SQUARE)]}, train="../../etc", val="/etc")
    assert imported(source, val=0)[0].images == {"train": 1}


@pytest.mark.parametrize("before", ["", "./", "data/", "/content/set/", "images\\..\\", "D:\\set\\"])
def test_lists_of_images_as_they_lay_elsewhere(tmp_path, before):
    """Of another machine, of Windows, or below a folder that is not there."""
    source = write_yolo(tmp_path / "yolo", {f"images/{name}": [line(0, SQUARE)] for name in "abcd"}, train="train.txt")
    content = yaml.safe_load((source / "data.yaml").read_text())
    (source / "data.yaml").write_text(yaml.safe_dump({**content, "val": "val.txt", "test": "../test/images"}))
    separator = "\\" if "\\" in before else "/"
    for split, names in (("train", "abd"), ("val", "cx")):
        (source / f"{split}.txt").write_text("".join(f"{before}images{separator}{name}.jpg\n" for name in names))
    report, masks, _ = imported(source)
    assert set(masks) == {"train/a", "train/b", "train/d", "val/c"}
    assert f"{source / 'val.txt'}: 1 of 2 images are not there, such as {before}images{separator}x.jpg" in report.notes
    assert f"{source / 'data.yaml'}: test is ../test/images, which is not there" in report.notes


def test_folders_of_another_machine(tmp_path):
    files = {f"{folder}/images/{name}": [line(0, SQUARE)] for folder, name in ("pa", "pb", "qc", "qd")}
    source = write_yolo(tmp_path / "yolo", files, train="D:/set/p/images", val="D:/set/q/images")
    assert set(imported(source)[1]) == {"train/a", "train/b", "val/c", "val/d"}


def test_labels_of_uploads(tmp_path):
    """Label Studio puts eight letters before the names, which the images at home lack."""
    source = write_yolo(tmp_path / "yolo", {"images/a": [line(0, SQUARE)]})
    (source / "labels" / "a.txt").rename(source / "labels" / "0a1b2c3d-a.txt")
    assert set(imported(source)[1]) == {"train/a"}
