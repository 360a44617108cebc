"""labelme's JSON, against labelme where it is installed, and as Pillow draws it."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from support.labels import SIZE, imported, random_polygon, write_json, write_photo


def png(region: np.ndarray) -> str:
    """A mask as labelme stores it."""
    file = io.BytesIO()
    Image.fromarray(region.astype(np.uint8) * 255).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label: str, points: Any, kind: str = "polygon", **others: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **others}


def write_labelme(folder: Path, name: str, shapes: list[dict[str, Any]], **others: Any) -> Path:
    write_photo(folder / name)
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }
    return write_json(folder / f"{Path(name).stem}.json", {**content, **others})


def shapes_of_all_kinds() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    shapes = [shape("a", random_polygon(rng, 3 + index % 6)) for index in range(20)]
    shapes += [shape("a", random_polygon(rng, 2), "rectangle") for _ in range(8)]
    shapes += [shape("a", random_polygon(rng, 2), "circle") for _ in range(8)]
    shapes += [shape("a", random_polygon(rng, 4), "oriented_rectangle") for _ in range(4)]
    part = rng.random((5, 7)) < 0.5
    return [*shapes, shape("a", [[3.7, 2.2], [9, 6]], "mask", mask=png(part))]


def test_shapes_are_those_of_labelme(tmp_path):
    labelme = pytest.importorskip("labelme.utils.shape", exc_type=ImportError)
    source = tmp_path / "labelme"
    for number, each in enumerate(shapes_of_all_kinds()):
        write_labelme(source, f"{number:02}.png", [each])
    _, masks, classes = imported(source, val=0, boxes="fill")
    assert classes == ["background", "a"]
    for number, each in enumerate(shapes_of_all_kinds()):
        if each["shape_type"] == "mask":
            with Image.open(io.BytesIO(base64.b64decode(each["mask"]))) as image:
                each["mask"] = np.array(image, bool)
        expected, _ = labelme.shapes_to_label(SIZE, [each], {"a": 1})
        found = masks.get(f"train/{number:02}", np.zeros(SIZE))
        np.testing.assert_array_equal(found, expected, err_msg=str(each))


def test_polygons_as_pillow_draws_them(tmp_path):
    rng = np.random.default_rng(2)
    source = tmp_path / "labelme"
    polygons = [random_polygon(rng) for _ in range(2)]
    write_labelme(source, "a.jpg", [shape("one", polygons[0]), shape("two", polygons[1])])
    _, masks, classes = imported(source, val=0)
    assert classes == ["background", "one", "two"]
    expected = Image.new("L", SIZE[::-1])
    for value, polygon in enumerate(polygons, start=1):  # the later one lies in front
        ImageDraw.Draw(expected).polygon([tuple(corner) for corner in polygon], outline=value, fill=value)
    np.testing.assert_array_equal(masks["train/a"], np.array(expected))


TRIANGLE = [[2, 2], [20, 3], [10, 20]]


def test_labels_file_and_special_names(tmp_path):
    """labelme's own labels.txt: __ignore__ and _background_ are no classes of things."""
    source = tmp_path / "labelme"
    (source / "sub").mkdir(parents=True)
    (source / "labels.txt").write_text("__ignore__\n_background_\nzebra\nant\n")
    write_labelme(source, "a.jpg", [shape("zebra", TRIANGLE), shape("__ignore__", [[0, 0], [9, 0]], "rectangle")])
    write_labelme(
        source / "sub", "a.jpg", [shape("ant", TRIANGLE), shape("_background_", [[0, 0], [9, 9]], "rectangle")]
    )
    report, masks, classes = imported(source, val=0, boxes="fill")
    assert classes == ["background", "zebra", "ant"]
    assert set(masks) == {"train/labelme_a", "train/sub_a"}
    assert (masks["train/labelme_a"][0, :10] == 255).all()
    assert (masks["train/sub_a"][:10, :10] == 0).all()
    assert ("background", "ant") in report.overlaps
    _, masks, classes = imported(source, val=0, classes=["ant", "zebra"])
    assert classes == ["background", "ant", "zebra"]
    assert masks["train/labelme_a"][9, 10] == 2


def test_images_without_labels(tmp_path):
    source = tmp_path / "labelme"
    write_labelme(source, "a.jpg", [shape("car", TRIANGLE), shape("car", [[0, 0], [5, 5]], "line")])
    write_labelme(source, "b.jpg", [])
    write_photo(source / "c.jpg")
    report, masks, _ = imported(source, val=0)
    assert set(masks) == {"train/a"}
    reasons = report.unused.lines()
    assert reasons[0].startswith("1 labels are of the kind line, whose area is not read: car in a.json")
    assert reasons[1].startswith("2 images without labels are left out")
    _, masks, _ = imported(source, val=0, empty="background")
    assert set(masks) == {"train/a", "train/b", "train/c"}
    assert masks["train/c"].max() == 0


def test_images_elsewhere_and_inside(tmp_path):
    """Labels in a folder of their own, whose images lie beside it; and an image that the file itself holds."""
    source = tmp_path / "set" / "labels"
    path = write_labelme(source, "a.jpg", [shape("car", TRIANGLE)], imagePath="..\\images\\a.jpg")
    with pytest.raises(ValueError, match=r"a.json names the image .*, which lies outside of .*--images"):
        imported(source)
    (source / "a.jpg").rename(write_photo(tmp_path / "set" / "images" / "a.jpg"))
    expected = imported(source, val=0, images=str(tmp_path / "set" / "images"))[1]["train/a"]
    np.testing.assert_array_equal(imported(tmp_path / "set", val=0)[1]["train/a"], expected)

    content = json.loads(path.read_text())
    file = tmp_path / "set" / "images" / "a.jpg"
    write_json(path, {**content, "imagePath": "a.jpg", "imageData": base64.b64encode(file.read_bytes()).decode()})
    assert set(imported(source, val=0)[1]) == {"train/a"}
    assert (source.parent / "imported" / "images" / "train" / "a.jpg").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("stored", [False, True])
def test_orientation(tmp_path, stored):
    """labelme shows images turned as their orientation says; other labels are turned, too."""
    source = tmp_path / "labelme"
    path = write_labelme(source, "a.jpg", [shape("car", [[0, 0], [5, 0], [5, 2], [0, 2]])])
    with Image.open(source / "a.jpg") as image:
        exif = image.getexif()
        exif[274] = 6
        image.save(source / "a.jpg", exif=exif)
    height, width = SIZE if stored else SIZE[::-1]
    write_json(path, {**json.loads(path.read_text()), "imageHeight": height, "imageWidth": width})
    _, masks, _ = imported(source, val=0)
    drawn = np.zeros((height, width))
    drawn[:3, :6] = 1
    np.testing.assert_array_equal(masks["train/a"], np.rot90(drawn, -1) if stored else drawn)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (shape("car", [[0, float("inf")], [1, 1], [2, 2]]), "a.json: it holds Infinity"),
        (shape("car", [[0, 1e30], [1, 1], [2, 2]]), r"a.json.*label 1, 'car': the coordinate 1e\+30 lies far outside"),
        (shape("car", [[0, 0], ["x", 1], [2, 2]]), "a.json: shape 1, 'car': corners must be numbers"),
        (shape("car", [[0, 0], [5, 5]], "mask", mask="@@"), "a.json.* not base64"),
        (shape("car", [[0, 0], [5, 5]], "mask", mask="AAAA"), "a.json.* a mask cannot be read"),
        (shape("car", [[30, 0], [35, 5]], "mask", mask=png(np.ones((6, 6), bool))), "does not fit into 32 x 24"),
        (
            shape("car", [[0, 0], [5, 5]], "mask", mask=png(np.ones((30000, 10), bool))),
            "30000 pixels does not fit",
        ),
        (
            shape("car", [[0, 0], [5, 5]], "mask", mask=base64.b64encode(zlib.compress(bytes(10**8))).decode()),
            "a mask is larger than its image",
        ),
        ({"points": []}, "a.json does not hold labelme's labels: 'label' is missing"),
        ({"label": "x", "points": None, "shape_type": []}, "a.json: shape 1"),
    ],
)
def test_hostile_labels(tmp_path, wrong, message):
    write_labelme(tmp_path / "labelme", "a.jpg", [wrong])
    with pytest.raises(ValueError, match=message):
        imported(tmp_path / "labelme")


def test_shapes_of_x_anylabeling(tmp_path):
    """A turned box and a quadrilateral, as it calls them."""
    write_photo(tmp_path / "x" / "a.png")
    corners = [[4, 8], [12, 2], [20, 12], [12, 18]]
    shapes = [{"label": kind, "points": corners, "shape_type": kind} for kind in ("rotation", "quadrilateral")]
    write_json(tmp_path / "x" / "a.json", {"imagePath": "a.png", "shapes": shapes[:1]})
    turned = imported(tmp_path / "x", val=0, boxes="fill")[1]["train/a"]
    write_json(tmp_path / "x" / "a.json", {"imagePath": "a.png", "shapes": shapes})
    report, masks, classes = imported(tmp_path / "x", val=0)
    assert classes == ["background", "quadrilateral"]
    assert turned.any()
    assert (masks["train/a"] == turned).all()
    assert report.unused.lines()[0].startswith("1 labels are boxes")


def test_names_of_images_say_no_split(tmp_path):
    """Those of folders do."""
    for name in ("test_a.png", "b/val 3.png", "val/train-c.png", "train/d.png"):
        folder, _, last = name.rpartition("/")
        write_labelme(tmp_path / "x" / folder, last, [shape("car", [[2, 2], [20, 2], [9, 19]])])
    assert set(imported(tmp_path / "x", val=0)[1]) == {"train/test_a", "train/val 3", "val/train-c", "train/d"}
