"""Label Studio's JSON, against label-studio-sdk where it is installed, and pycocotools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from rmiseg.data.labels.label_studio import brush
from support.labels import SIZE, imported, random_polygon, write_json, write_photo

PLACE = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
# 4 x 2 pixels, of which the first and the last two are drawn; as label-studio-sdk packs them.
PACKED = [0, 0, 0, 32, 57, 27, 252, 127, 248, 76, 2, 127, 240]
PACKED_SIZE = (2, 4)


def polygon(label: str, corners: list[list[float]], **others: Any) -> dict[str, Any]:
    points = (100 * np.array(corners) / SIZE[::-1]).tolist()
    return {"type": "polygonlabels", **PLACE, "value": {"points": points, "polygonlabels": [label]}, **others}


def task(image: str, *results: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(results)}], **others}


def write_tasks(root: Path, *tasks: dict[str, Any], images: tuple[str, ...] = ("a.jpg",)) -> Path:
    for name in images:
        write_photo(root / name)
    write_json(root / "project-1.json", list(tasks))
    return root


def test_polygons(tmp_path):
    """The corners are those that Label Studio exports to COCO, x / 100 * width, drawn as pycocotools does."""
    rng = np.random.default_rng(0)
    polygons = [random_polygon(rng, 3 + i % 6) for i in range(20)]
    names = tuple(f"{i:02}.png" for i in range(20))
    tasks = [task(name, polygon("car", corners)) for name, corners in zip(names, polygons)]
    _, masks, _ = imported(write_tasks(tmp_path / "studio", *tasks, images=names), val=0)
    for i, each in enumerate(tasks):
        shares = each["annotations"][0]["result"][0]["value"]["points"]
        flat = [value for x, y in shares for value in (x / 100 * SIZE[1], y / 100 * SIZE[0])]
        expected = coco_mask.decode(coco_mask.frPyObjects([flat], *SIZE))[..., 0]
        np.testing.assert_array_equal(masks[f"train/{i:02}"], expected)


def test_strokes_are_those_of_label_studio(tmp_path):
    sdk = pytest.importorskip("label_studio_sdk.converter.brush", exc_type=ImportError)
    rng = np.random.default_rng(0)
    for number in range(20):
        size = (int(rng.integers(1, 60)), int(rng.integers(1, 90)))
        region = np.repeat(rng.random(size) < 0.5, 1 + number * 40)[: size[0] * size[1]].reshape(size)
        packed = sdk.mask2rle(region.astype(np.uint8) * 255)
        np.testing.assert_array_equal(brush(packed, size), region)
        np.testing.assert_array_equal(brush(packed, size), sdk.decode_rle(packed).reshape(*size, 4)[..., 3] > 0)


def test_strokes():
    expected = [[1, 0, 0, 0], [0, 0, 1, 1]]
    np.testing.assert_array_equal(brush(PACKED, PACKED_SIZE), expected)


SQUARE, SMALL = [[0, 0], [16, 0], [16, 12], [0, 12]], [[4, 3], [8, 3], [8, 6], [4, 6]]


def test_tasks(tmp_path):
    """The latest annotation counts; cancelled ones and predictions do not; a class may come apart from its outline."""
    whole = {"type": "polygon", "id": "x", **PLACE, "value": {"points": polygon("", SMALL)["value"]["points"]}}
    tasks = [
        task("/data/upload/3/0a1b2c3d-a.jpg", polygon("road", SQUARE), polygon("car", SMALL)),
        task("/data/local-files/?d=deep/b.jpg", whole, {"type": "labels", "id": "x", "value": {"labels": ["car"]}}),
        {
            "data": {"pic": "s3://bucket/c.jpg", "text": "about"},
            "annotations": [
                {"result": [polygon("road", SMALL)], "updated_at": "2024-01-02"},
                {"result": [polygon("road", SQUARE)], "updated_at": "2024-01-01"},
                {"result": [polygon("road", SQUARE)], "updated_at": "2024-01-03", "was_cancelled": True},
            ],
        },
        {"data": {"image": "d.jpg"}, "annotations": [], "predictions": [{"result": [polygon("road", SQUARE)]}]},
        task("e.jpg", {"type": "choices", "value": {"choices": ["good"]}}),
    ]
    names = ("a.jpg", "deep/b.jpg", "c.jpg", "d.jpg", "e.jpg")
    report, masks, classes = imported(write_tasks(tmp_path / "studio", *tasks, images=names), val=0)
    assert classes == ["background", "car", "road"]
    assert {name: (mask == 1).sum() for name, mask in masks.items()} == {"train/a": 12, "train/b": 12, "train/c": 0}
    assert (masks["train/a"] == 2).sum() == 16 * 12 - 12
    assert (masks["train/c"] == 2).sum() == 12
    assert report.notes == [
        "1 images have several annotations, of which the latest is taken, or that called ground truth"
    ]
    assert report.unused.lines()[0].startswith("1 images have predictions or drafts alone")


def test_ground_truth_comes_before_the_latest(tmp_path):
    results = [("2024-01-01", True, SMALL), ("2024-01-02", False, SQUARE)]
    annotations = [
        {"result": [polygon("road", corners)], "updated_at": day, "ground_truth": truth}
        for day, truth, corners in results
    ]
    tasks = [{"data": {"image": "a.jpg"}, "annotations": annotations}]
    _, masks, _ = imported(write_tasks(tmp_path / "studio", *tasks, images=("a.jpg",)), val=0)
    assert masks["train/a"].sum() == 12


def test_other_labels(tmp_path):
    box = {"type": "rectanglelabels", **PLACE, "value": {"x": 50, "y": 50, "width": 25, "height": 25}}
    named = {**box, "value": {**box["value"], "rectanglelabels": ["car"]}}
    key_point = {"x": 50, "y": 50, "width": 1, "keypointlabels": ["car"]}
    turned = polygon("car", SQUARE, image_rotation=90)
    results = [polygon("car", SMALL), box, named, {**box, "type": "keypointlabels", "value": key_point}, turned]
    source = write_tasks(tmp_path / "studio", task("a.jpg", *results))
    report, masks, _ = imported(source, val=0)
    assert masks["train/a"].sum() == 12
    assert len(report.unused.reasons) == 4
    assert imported(source, val=0, boxes="fill")[1]["train/a"][12:18, 16:24].all()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            {"points": [[0, 0], [1, None], [2, 2]]},
            "task 1: label 1, 'car': a coordinate is not a finite",
        ),
        ({"points": [[0, 0], [1e20, 1], [2, 2]]}, r"project-1.json: image a.jpg: label 1, 'car': the coordinate"),
        ({"rle": [1, 2, 3]}, "project-1.json: image a.jpg: label 1, 'car': strokes are cut short"),
        ({"rle": PACKED}, "strokes are for 8 pixels, not the 32 x 24"),
        ({"rle": [0, 0, 12, 0, 57, 27]}, "strokes are cut short"),
        ({"rle": [10**30]}, "strokes must be numbers from 0 to 255"),
        ({"rle": "abc"}, "strokes must be numbers from 0 to 255"),
        ({"points": {}}, "corners must be"),
    ],
)
def test_hostile_labels(tmp_path, result, message):
    wrong = {"type": "x", **PLACE, "value": {**result, "polygonlabels": ["car"]}}
    with pytest.raises(ValueError, match=message):
        imported(write_tasks(tmp_path / "studio", task("a.jpg", wrong)))


@pytest.mark.parametrize(
    "name", ["/data/local-files/?d=../../a.jpg", "../../a.jpg", "/data/local-files/?d=/../../a.jpg"]
)
def test_addresses_that_lead_outside(tmp_path, name):
    write_photo(tmp_path / "a.jpg")
    source = write_tasks(tmp_path / "x" / "studio", task(name, polygon("car", SQUARE)), images=())
    with pytest.raises(ValueError, match=r"project-1.json names the image .* which lies outside of"):
        imported(source)


def test_images_that_are_not_there(tmp_path):
    tasks = [task("https://example.org/x/a.jpg?key=1", polygon("car", SQUARE)), task("b.jpg", polygon("car", SQUARE))]
    report, masks, _ = imported(write_tasks(tmp_path / "studio", *tasks), val=0)
    assert set(masks) == {"train/a"}
    assert report.unused.lines() == ["1 images are not found (--images names their folder): b.jpg"]


def test_what_is_said_of_a_label_draws_it_no_second_time(tmp_path):
    """A choice or a text of a label (perRegion) holds its outline again, behind the labels of all others."""
    car, road = polygon("car", SQUARE, id="x"), polygon("road", SMALL, id="y")
    choice = {**car, "type": "choices", "value": {**car["value"], "choices": ["dirty"]}}
    del choice["value"]["polygonlabels"]
    report, masks, _ = imported(write_tasks(tmp_path / "studio", task("a.jpg", car, road, choice)), val=0)
    assert report.labels == 2
    assert (masks["train/a"] == 2).sum() == 12


def test_labels_for_another_size_than_those_before_them(tmp_path):
    other = polygon("road", SMALL, original_width=2 * SIZE[1])
    source = write_tasks(tmp_path / "studio", task("a.jpg", polygon("car", SQUARE), other))
    report, masks, _ = imported(source, val=0)
    assert masks["train/a"].sum() == 16 * 12
    assert report.unused.lines() == ["1 labels are for another size than those before them: road in a.jpg: 64 x 24"]


def test_polygons_of_two_corners(tmp_path):
    source = write_tasks(tmp_path / "studio", task("a.jpg", polygon("car", SQUARE), polygon("car", SQUARE[:2])))
    assert imported(source, val=0)[0].unused.lines() == ["1 polygons of fewer than three corners: car in a.jpg"]
