"""Ellipses and turned boxes, as each tool writes them: centers, radii and angles, in pixels, percent or shares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.labels import imported, write_json, write_photo

pytest.importorskip("pycocotools")
HEIGHT, WIDTH = 60, 80
CENTER, RADII, ANGLE = (44, 28), (24, 12), 30


def turned(x, y, degrees):
    """Coordinates along the sides of what is turned clockwise, as seen."""
    angle = np.deg2rad(degrees)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def pixels_from(x0, y0):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return columns - x0, rows - y0


def ellipse(degrees):
    along, across = turned(*pixels_from(*CENTER), degrees)
    return (along / RADII[0]) ** 2 + (across / RADII[1]) ** 2 < 1


def cvat(root: Path):
    (cx, cy), (rx, ry) = CENTER, RADII
    shape = f'<ellipse label="car" cx="{cx}" cy="{cy}" rx="{rx}" ry="{ry}" rotation="{ANGLE}" z_order="0"/>'
    image = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">{shape}</image>'
    (root / "annotations.xml").write_text(f"<annotations>{image}</annotations>")
    return ANGLE


def label_studio(root: Path):
    percent = 100 / np.array([WIDTH, HEIGHT])
    (x, y), (rx, ry) = (CENTER * percent).tolist(), (RADII * percent).tolist()
    value = {"x": x, "y": y, "radiusX": rx, "radiusY": ry, "rotation": ANGLE, "ellipselabels": ["car"]}
    result = {"id": "e", "type": "ellipselabels", "original_width": WIDTH, "original_height": HEIGHT, "value": value}
    write_json(root / "t.json", [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [result]}]}])
    return ANGLE


def datumaro(root: Path):
    box = [*np.subtract(CENTER, RADII).tolist(), *np.add(CENTER, RADII).tolist()]
    item = {"id": "a", "annotations": [{"type": "ellipse", "label_id": 0, "points": box}]}  # which names no image
    categories = {"label": {"labels": [{"name": "car"}]}}
    write_json(root / "annotations" / "default.json", {"categories": categories, "items": [item]})
    return 0


def darwin(root: Path):
    center, radius = ({"x": x, "y": y} for x, y in (CENTER, RADII))
    shape = {"center": center, "radius": radius, "angle": np.deg2rad(ANGLE)}
    label = {"name": "car", "ellipse": shape, "bounding_box": {"x": 1, "y": 1, "w": 4, "h": 4}}
    others = [{"annotators": [], "name": "day", "tag": {}}]
    slot = {"type": "image", "slot_name": "0", "width": WIDTH, "height": HEIGHT}
    item = {"name": "a.png", "path": "/", "slots": [slot]}
    write_json(root / "a.json", {"version": "2.0", "item": item, "annotations": [label, *others]})
    return ANGLE


@pytest.mark.parametrize("write", [cvat, label_studio, datumaro, darwin])
def test_ellipses(tmp_path, write):
    root = tmp_path / "x"
    write_photo(root / "a.png", (HEIGHT, WIDTH))
    expected = ellipse(write(root))
    report, masks, _ = imported(root)
    assert np.count_nonzero(masks["train/a"] != expected) < 0.05 * expected.sum()
    assert all("kind tag" in reason for reason in report.unused.reasons)


def test_boxes_of_label_studio_are_turned_about_their_corner(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "a.png", (HEIGHT, WIDTH))
    label_studio(root)
    tasks = json.loads((root / "t.json").read_text())
    value = {"x": 30, "y": 10, "width": 40, "height": 50, "rotation": ANGLE, "rectanglelabels": ["car"]}
    tasks[0]["annotations"][0]["result"][0]["value"] = value
    write_json(root / "t.json", tasks)
    along, across = turned(*pixels_from(24, 6), ANGLE)
    expected = (along > 0) & (along < 32) & (across > 0) & (across < 30)
    mask = imported(root, boxes="fill")[1]["train/a"]
    assert np.count_nonzero(mask != expected) < 0.05 * expected.sum()
