"""VGG Image Annotator's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from support.labels import SIZE, imported, random_polygon, write_json, write_photo


def polygon(label: str, corners: list[list[float]]) -> dict[str, Any]:
    x, y = zip(*corners)
    shape = {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)}
    return {"shape_attributes": shape, "region_attributes": {"type": label, "note": ""}}


def write_via(root: Path, images: dict[str, list[dict[str, Any]]], version: int = 2, project: bool = True) -> Path:
    entries = {}
    for name, regions in images.items():
        write_photo(root / name)
        listed = regions if version == 2 else {str(i): region for i, region in enumerate(regions)}
        entries[f"{name}123"] = {"filename": name, "size": 123, "regions": listed, "file_attributes": {}}
    write_json(root / "via.json", {"_via_settings": {}, "_via_img_metadata": entries} if project else entries)
    return root


@pytest.mark.parametrize(("version", "project"), [(2, True), (2, False), (1, False)])
def test_polygons(tmp_path, version, project):
    rng = np.random.default_rng(0)
    polygons = [random_polygon(rng, 3 + i % 6) for i in range(10)]
    images = {f"{i:02}.png": [polygon("car", corners)] for i, corners in enumerate(polygons)}
    report, masks, classes = imported(write_via(tmp_path / "via", images, version, project), val=0)
    assert classes == ["background", "car"]
    assert "its attribute 'type'" in report.notes[0]
    for i, corners in enumerate(polygons):
        runs = coco_mask.frPyObjects([np.ravel(corners).tolist()], *SIZE)
        np.testing.assert_array_equal(masks[f"train/{i:02}"], coco_mask.decode(runs)[..., 0])


def test_other_regions(tmp_path):
    shapes = [
        {"name": "rect", "x": 2, "y": 3, "width": 4, "height": 5},
        {"name": "circle", "cx": 20, "cy": 12, "r": 6},
        {"name": "ellipse", "cx": 20, "cy": 12, "rx": 8, "ry": 3, "theta": 0.5},
        {"name": "point", "cx": 20, "cy": 12},
    ]
    images = {
        f"{i}.png": [{"shape_attributes": shape, "region_attributes": {"class": "a"}}] for i, shape in enumerate(shapes)
    }
    images["4.png"] = [{"shape_attributes": shapes[1], "region_attributes": {}}]
    report, masks, _ = imported(write_via(tmp_path / "via", images), val=0, boxes="fill")
    areas = {name: int(mask.sum()) for name, mask in masks.items()}
    assert areas["train/0"] == 20
    assert areas["train/1"] == pytest.approx(np.pi * 36, rel=0.05)
    assert areas["train/2"] == pytest.approx(np.pi * 24, rel=0.05)
    assert set(areas) == {"train/0", "train/1", "train/2"}
    assert [line[:25] for line in report.unused.lines()] == [
        "1 labels are of the kind ",
        "1 labels have no class: r",
        "2 images without labels a",
    ]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]},
            "region 1 of a.jpg, 'x': a polygon has",
        ),
        ({"name": "polygon", "all_points_x": [1, 2, "z"], "all_points_y": [1, 2, 3]}, "corners must be numbers"),
        ({"name": "circle", "cx": 1, "cy": 1, "r": 1e300}, "via.json: image a.jpg: label 1, 'x': the coordinate"),
        ({"name": "circle"}, "via.json does not hold VIA's labels: 'r' is missing"),
    ],
)
def test_hostile_regions(tmp_path, shape, message):
    region = {"shape_attributes": shape, "region_attributes": {"class": "x"}}
    with pytest.raises(ValueError, match=message):
        imported(write_via(tmp_path / "via", {"a.jpg": [region]}))


def test_a_remark_that_more_regions_have_than_a_class(tmp_path):
    polygons = [polygon("car", [[2, 2], [9, 2], [9, 9]]), polygon("", [[2, 2], [9, 2], [9, 9]])]
    for each in polygons:
        each["region_attributes"]["remark"] = "seen"
    report, _, classes = imported(write_via(tmp_path / "via", {"a.png": polygons}), val=0)
    assert classes == ["background", "car"]
    assert report.unused.lines() == ["1 labels have no class: region 2 of a.png"]
