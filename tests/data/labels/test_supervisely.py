"""Supervisely's projects, against its package where it is installed, and as OpenCV draws them."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from support.labels import SIZE, imported, random_polygon, write_json, write_photo


def whole(corners: list[list[float]]) -> list[list[int]]:
    return np.trunc(corners).astype(int).tolist()


def polygon(label: str, outer: list[list[float]], *holes: list[list[float]]) -> dict[str, Any]:
    return {"classTitle": label, "geometryType": "polygon", "points": {"exterior": outer, "interior": list(holes)}}


def bitmap(label: str, data: bytes, left: int, top: int) -> dict[str, Any]:
    content = {"data": base64.b64encode(data).decode(), "origin": [left, top]}
    return {"classTitle": label, "geometryType": "bitmap", "bitmap": content}


def png(region: np.ndarray) -> bytes:
    """A mask as Supervisely packs it: an image of one bit a pixel, compressed again."""
    file = io.BytesIO()
    Image.fromarray(region).save(file, format="PNG", bits=1)
    return zlib.compress(file.getvalue())


def write_project(root: Path, images: dict[str, list[dict[str, Any]]]) -> Path:
    """Images by the data set and their name, with their objects."""
    classes = [{"title": "road", "color": "#804080"}, {"title": "car", "color": "#00008E"}]
    write_json(root / "meta.json", {"classes": classes, "tags": []})
    for name, objects in images.items():
        folder, _, file = name.partition("/")
        write_photo(root / folder / "img" / file)
        content = {"size": {"height": SIZE[0], "width": SIZE[1]}, "tags": [], "objects": objects}
        write_json(root / folder / "ann" / f"{file}.json", content)
    return root


def cases() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    found = [polygon("car", whole(random_polygon(rng, 3 + i % 6))) for i in range(10)]
    found += [
        polygon("car", whole(random_polygon(rng, 5)), *[whole(random_polygon(rng, 3)) for _ in range(2)])
        for _ in range(10)
    ]
    return [*found, *(bitmap("car", png(rng.random((9, 12)) < 0.5), 3 + i, 2) for i in range(5))]


def test_objects_are_those_of_supervisely(tmp_path):
    supervisely = pytest.importorskip("supervisely", exc_type=ImportError)
    source = write_project(tmp_path / "project", {f"ds/{i:02}.png": [each] for i, each in enumerate(cases())})
    _, masks, _ = imported(source, val=0)
    for i, each in enumerate(cases()):
        kind = supervisely.Polygon if each["geometryType"] == "polygon" else supervisely.Bitmap
        expected = np.zeros(SIZE, np.uint8)
        kind.from_json(each).draw(expected, 1)
        np.testing.assert_array_equal(masks.get(f"train/{i:02}", np.zeros(SIZE)), expected)


def test_objects(tmp_path):
    """A polygon with a hole, as OpenCV draws both, and a bitmap before it; the data sets say the splits."""
    outer, hole = [[1, 1], [20, 2], [18, 20], [3, 17]], [[6, 6], [12, 7], [9, 12]]
    region = np.random.default_rng(1).random((6, 7)) < 0.5
    images = {"train/a.jpg": [polygon("road", outer, hole), bitmap("car", png(region), 10, 4)]}
    images["valid/a.jpg"] = [{"classTitle": "car", "geometryType": "line", "points": {"exterior": [], "interior": []}}]
    report, masks, classes = imported(write_project(tmp_path / "project", images), empty="background")
    assert classes == ["background", "road", "car"]
    expected = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.array(outer, np.int32)], 1)
    cv2.fillPoly(expected, [np.array(hole, np.int32)], 0)
    expected[4:10, 10:17][region] = 2
    np.testing.assert_array_equal(masks["train/a"], expected)
    assert masks["val/a"].max() == 0
    assert report.unused.lines() == ["1 labels are of the kind line, whose area is not read: car in a.jpg.json"]
    assert "- [0, 0, 142]" in (tmp_path / "imported" / "dataset.yaml").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (polygon("car", [[0, 0], [1e9, 1], [2, 2]]), "a.jpg.json: image a.jpg: label 1, 'car': the coordinate"),
        (bitmap("car", zlib.compress(bytes(10**7)), 0, 0), "a.jpg.json.* a mask is larger than its image"),
        (bitmap("car", png(np.ones((40, 40), bool)), 0, 0), "40 x 40 pixels does not fit"),
        (bitmap("car", png(np.ones((4, 4), bool)), -1, 0), r"at \(-1, 0\) does not fit"),
        (bitmap("car", b"\x78\x9c" + bytes([255]) * 9, 0, 0), "a mask is damaged"),
        ({"classTitle": "car", "geometryType": "polygon"}, "a.jpg.json does not hold Supervisely's labels"),
    ],
)
def test_hostile_objects(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        imported(write_project(tmp_path / "project", {"ds/a.jpg": [wrong]}))
