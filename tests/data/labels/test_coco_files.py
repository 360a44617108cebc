"""COCO's JSON, against pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from miniatures import run_lengths, square
from rmiseg.config import DataImportConfig
from rmiseg.data.labels import import_labels
from support.labels import SIZE, imported, random_polygon, write_json, write_photo

CATEGORIES = [{"id": 7, "name": "car"}, {"id": 3, "name": "road"}, {"id": 9, "name": "unseen"}]


def write_coco(folder: Path, rows: list[dict[str, Any]], images: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Path:
    """A file of annotations, given as what they hold beside the usual, and its images."""
    for name in images:
        write_photo(folder / "images" / name)
    content = {
        "images": [
            {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(images, start=1)
        ],
        "annotations": [{"id": i, "image_id": 1, "category_id": 7, **row} for i, row in enumerate(rows)],
        "categories": CATEGORIES,
    }
    write_json(folder / "annotations.json", content)
    return folder


def test_polygons_are_those_of_pycocotools(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for index in range(30):
        parts = [np.ravel(random_polygon(rng, 3 + index % 6)).tolist() for _ in range(1 + index % 3)]
        rows.append({"image_id": index + 1, "segmentation": parts})
    region = rng.random(SIZE) < 0.5
    rows.append({"image_id": 31, "segmentation": run_lengths(region, compressed=True)})
    rows.append({"image_id": 32, "segmentation": run_lengths(region, compressed=False)})
    source = write_coco(tmp_path / "coco", rows, tuple(f"{i:02}.png" for i in range(1, 33)))
    _, masks, classes = imported(source, val=0)
    assert classes == ["background", "car"]
    coco = COCO(source / "annotations.json")
    for image_id, found in coco.imgToAnns.items():
        np.testing.assert_array_equal(masks[f"train/{image_id:02}"], coco.annToMask(found[0]))


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths(tmp_path, seed):
    from rmiseg.data.labels.shapes import run_lengths as decoded

    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 200, 2).tolist())
    region = np.repeat(rng.random(size[0] * size[1]) < 0.5, rng.integers(1, 60))[: size[0] * size[1]].reshape(size)
    runs = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
    np.testing.assert_array_equal(decoded(runs["counts"].decode(), runs["size"], size), region)


def test_smaller_objects_lie_in_front_and_crowds_behind(tmp_path, capsys):
    crowd = np.ones(SIZE, bool)
    rows = [
        {"segmentation": [square(2, 2, 4)]},
        {"segmentation": [square(0, 0, 10)], "category_id": 3},
        {"segmentation": run_lengths(crowd, compressed=False), "iscrowd": 1, "category_id": 3},
        {"segmentation": [square(20, 5, 8)]},
    ]
    report, masks, classes = imported(write_coco(tmp_path / "coco", rows), val=0)
    assert classes == ["background", "road", "car"]  # by the numbers of the categories
    expected = np.full(SIZE, 1)
    expected[2:6, 2:6] = expected[5:13, 20:28] = 2
    np.testing.assert_array_equal(masks["train/a"], expected)
    assert report.overlaps == {("car", "road"): (16 + 64, 1)}
    assert any("unseen" in note for note in report.notes)


def test_what_is_not_used_is_said(tmp_path):
    rows = [
        {"segmentation": [square(0, 0, 4)]},
        {"segmentation": [], "bbox": [10, 10, 5, 5]},
        {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": []},
        {"segmentation": [square(0, 0, 4)], "image_id": 99},
    ]
    source = write_coco(tmp_path / "coco", rows)
    report, masks, _ = imported(source, val=0)
    assert set(masks) == {"train/a"}
    assert [(len(found), reason[:20]) for reason, found in report.unused.reasons.items()] == [
        (1, "polygons of fewer th"),
        (1, "labels without an ou"),
        (1, "annotations of image"),
        (1, "labels are boxes, no"),
        (1, "images without label"),
    ]
    _, masks, _ = imported(source, val=0, empty="background", boxes="fill")
    assert set(masks) == {"train/a", "train/b"}
    assert masks["train/a"][10:15, 10:15].all()
    assert masks["train/a"].sum() == 16 + 25


def test_splits_of_roboflow(tmp_path):
    """Folders of the splits, each with a file; pixels without a label are ignored."""
    source = tmp_path / "coco"
    for split, name in (("train", "a.jpg"), ("valid", "a.jpg"), ("test", "c.jpg")):
        write_photo(source / split / name)
        content = {
            "images": [{"id": 0, "file_name": name, "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "segmentation": [square(0, 0, 4)]}],
            "categories": [{"id": 0, "name": "things"}, {"id": 1, "name": "Void"}, {"id": 2, "name": "car"}],
        }
        content["annotations"].append(
            {**content["annotations"][0], "segmentation": [square(8, 8, 4)], "category_id": 2}
        )
        write_json(source / split / "_annotations.coco.json", content)
    report, masks, classes = imported(source, unlabeled="ignore")
    assert report.images == {"train": 1, "val": 1, "test": 1}
    assert classes == ["car"]
    for name in ("train/a", "val/a", "test/c"):
        assert (masks[name] == 0).sum() == 16
        assert (masks[name] == 255).sum() == SIZE[0] * SIZE[1] - 16


BAD = {
    "not JSON": (b'{"images": [', "is damaged, it may be cut short"),
    "not UTF-8": (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "stra\xdfe"}]}', "not UTF-8"),
}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"segmentation": [[0, 0, float("nan"), 0, 5, 5]]}, "annotations.json: it holds NaN, which is no number"),
        (
            {"segmentation": [[0, 0, 1e9, 0, 5, 5]]},
            r"annotations.json: image a.jpg: label 1, 'car': the coordinate 1e\+09",
        ),
        (
            {"segmentation": [[0, 0, "1e400", 0, 5, 5]]},
            "annotations.json: annotation 0 of image a.jpg: a coordinate is not",
        ),
        ({"segmentation": [[0, 0, 5, 5, 5, 0, 1]]}, "pairs of x and y"),
        (
            {"segmentation": {"counts": [1], "size": [10**9, 10**9]}},
            "annotations.json: image a.jpg.* run lengths are for",
        ),
        ({"segmentation": {"counts": [10**18], "size": list(SIZE)}}, "must add up to the 768 pixels"),
        ({"segmentation": {"counts": "~~~~~~", "size": list(SIZE)}}, "no text as COCO has it"),
        ({"segmentation": {"counts": "oooo", "size": list(SIZE)}}, "cut short"),
        ({"category_id": 4, "segmentation": []}, "annotation 0 has the category 4, which is none of"),
        ({"image_id": "x", "segmentation": []}, "annotations.json: image_id must be a whole number, not 'x'"),
        ({"segmentation": 5}, "annotations.json does not hold COCO's annotations"),
    ],
)
def test_hostile_annotations(tmp_path, row, message):
    source = write_coco(tmp_path / "coco", [row])
    with pytest.raises(ValueError, match=message):
        imported(source, format="coco")
    assert not (tmp_path / "imported").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


@pytest.mark.parametrize("bad", BAD)
def test_damaged_files(tmp_path, bad):
    source = write_coco(tmp_path / "coco", [])
    content, message = BAD[bad]
    (source / "annotations.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"annotations.json.*{message}"):
        imported(source, format="coco")


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg", "a/../../../secret.jpg"])
def test_paths_that_lead_outside(tmp_path, name):
    write_photo(tmp_path / "secret.jpg")
    source = write_coco(tmp_path / "x" / "coco", [{"segmentation": [square(0, 0, 4)]}])
    content = json.loads((source / "annotations.json").read_text())
    content["images"][0]["file_name"] = name
    write_json(source / "annotations.json", content)
    with pytest.raises(ValueError, match=r"annotations.json names the image .*secret.jpg', which lies outside"):
        imported(source)
    _, masks, _ = imported(source, images=str(tmp_path), val=0)  # as somebody asked for
    assert set(masks) == {"train/secret"}


def test_sizes_that_differ(tmp_path):
    source = write_coco(tmp_path / "coco", [{"segmentation": [square(0, 0, 4)]}])
    write_photo(source / "images" / "a.jpg", (100, 50))
    with pytest.raises(
        ValueError, match=r"no image can be used.*\n.*another size than their labels.*50 x 100, not 32 x 24"
    ):
        imported(source)


def test_folders(tmp_path):
    source = write_coco(tmp_path / "coco", [{"segmentation": [square(0, 0, 4)]}])

    def run(**options: Any) -> None:
        import_labels(DataImportConfig(source=str(source), **{"out": str(tmp_path / "out"), **options}))

    run()
    assert (tmp_path / "out" / "images" / "train" / "a.jpg").is_symlink()
    with pytest.raises(FileExistsError, match="--overwrite replaces it"):
        run()
    run(overwrite=True, copy=True)
    assert not (tmp_path / "out" / "images" / "train" / "a.jpg").is_symlink()
    with pytest.raises(FileExistsError, match="is not of `rmiseg data import`"):
        run(out=str(source), overwrite=True)
    (source / "import.json").write_text("{}")
    with pytest.raises(ValueError, match="holds the source"):
        run(out=str(source), overwrite=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        import_labels(DataImportConfig(source=str(tmp_path / "none"), out=str(tmp_path / "other")))
    with pytest.raises(ValueError, match="has images alone: name the folder of the labels, and this one with --images"):
        import_labels(DataImportConfig(source=str(source / "images"), out=str(tmp_path / "other")))


def test_masks_of_datumaro_are_no_crowds(tmp_path):
    """Datumaro and CVAT call every mask a crowd; a small one lies in front of a polygon all the same."""
    small = np.zeros(SIZE, bool)
    small[5:9, 5:9] = True
    rows = [
        {"segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]]},
        {"segmentation": run_lengths(small, False), "iscrowd": 1, "category_id": 3},
    ]
    source = write_coco(tmp_path / "x", rows)
    assert not (imported(source, val=0)[1]["train/a"] == 1).any()
    content = json.loads((source / "annotations.json").read_text())
    write_json(source / "annotations.json", {**content, "licenses": [{"name": "", "id": 0, "url": ""}]})
    assert ((imported(source, val=0)[1]["train/a"] == 1) == small).all()
