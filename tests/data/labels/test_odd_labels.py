"""Labels that are nearly right: what is read, what is counted as not used, and what is refused with the remedy."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rmiseg.config import DataImportConfig
from rmiseg.data.labels import import_labels
from support.labels import SIZE, imported, write_json, write_photo

TRIANGLE = [[2, 3], [20, 4], [18, 19]]
FLAT = [x for corner in TRIANGLE for x in corner]


def labelme(root: Path, *shapes: dict[str, Any]) -> Path:
    write_photo(root / "a.png")
    listed = [{"label": "car", "points": TRIANGLE, "shape_type": "polygon", **shape} for shape in shapes]
    write_json(root / "a.json", {"imagePath": "a.png", "shapes": listed})
    return root


def coco(root: Path, segmentation: Any, *names: str) -> Path:
    write_photo(root / "a.png")
    categories = [{"id": i, "name": name} for i, name in enumerate(names or ("car",), start=1)]
    rows = [
        {"id": i, "image_id": 1, "category_id": i, "segmentation": segmentation} for i in range(1, 1 + len(categories))
    ]
    image = {"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
    write_json(root / "a.json", {"images": [image], "annotations": rows, "categories": categories})
    return root


def unused(root: Path, **options: Any) -> str:
    return "\n".join(imported(root, val=0, **options)[0].unused.lines())


def test_labels_without_a_class(tmp_path):
    assert "1 labels have no class:  in a.png" in unused(labelme(tmp_path / "x", {"label": ""}, {}))
    assert "1 labels have no class" in unused(labelme(tmp_path / "y", {"label": " "}, {}))


def test_polygons_of_two_corners(tmp_path):
    few = {"points": TRIANGLE[:2]}
    assert "1 polygons of fewer than three corners: car in a.json" in unused(labelme(tmp_path / "x", few, {}))


def test_rectangles_of_four_corners(tmp_path):
    two = labelme(tmp_path / "two", {"points": [[2, 3], [20, 19]], "shape_type": "rectangle"})
    four = labelme(tmp_path / "four", {"points": [[2, 3], [20, 3], [20, 19], [2, 19]], "shape_type": "rectangle"})
    masks = [imported(root, val=0, boxes="fill")[1]["train/a"] for root in (two, four)]
    assert masks[0].any()
    assert (masks[0] == masks[1]).all()
    turned = labelme(tmp_path / "turned", {"points": [[2, 3], [20, 5], [18, 19], [0, 17]], "shape_type": "rectangle"})
    with pytest.raises(ValueError, match="a rectangle has 4 points"):
        imported(turned, boxes="fill")


def test_one_polygon_without_a_list_around_it(tmp_path):
    masks = [imported(coco(tmp_path / "x", each), val=0)[1]["train/a"] for each in (FLAT, [FLAT])]
    assert masks[0].any()
    assert (masks[0] == masks[1]).all()


def test_shares_in_place_of_pixels_and_pixels_in_place_of_shares(tmp_path):
    with pytest.raises(ValueError, match=r"no label covers a pixel of its image. Are its coordinates shares"):
        imported(coco(tmp_path / "x", [[x / 100 for x in FLAT]]))
    root = tmp_path / "yolo"
    write_photo(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "data.yaml").write_text("names: [car]\nnc: 1\n")
    (root / "labels" / "a.txt").write_text("0 1 1 3 1 3 3\n")
    with pytest.raises(
        ValueError, match=r"a.txt, line 1: coordinates are shares .*: are these pixels, or key points\?"
    ):
        imported(root)
    (root / "labels" / "a.txt").write_text("0 -0.2 0.1 1.3 0.1 0.5 0.9\n")  # a little beyond the image
    assert imported(root, val=0)[1]["train/a"].any()


def test_names_that_are_nearly_the_same(tmp_path):
    notes = imported(coco(tmp_path / "x", [FLAT], "car", "Car", "car "), val=0)[0].notes
    told = "differ in capitals, blanks or the form of Unicode alone, and are classes of their own"
    assert f"'car' and 'Car' and 'car ' {told}" in notes
    notes = imported(coco(tmp_path / "z", [FLAT], "caf\u00e9", "cafe\u0301", "bus", "bus\u200b"), val=0)[0].notes
    assert f"'caf\u00e9' and 'cafe\u0301' {told}" in notes
    assert rf"'bus' and 'bus\u200b' {told}" in notes
    root = coco(tmp_path / "y", [FLAT], "car", "road")
    text = (root / "a.json").read_text()
    (root / "a.json").write_text(text.replace('{"id": 2, "name": "road"}', '{"id": 1, "name": "road"}'))
    with pytest.raises(ValueError, match=r"a.json: the category id 1 is that of car and of road"):
        imported(root)


def test_several_classes_of_one_label(tmp_path):
    write_photo(tmp_path / "x" / "a.png")
    value = {"points": TRIANGLE, "polygonlabels": ["car", "road"]}
    result = {"original_width": SIZE[1], "original_height": SIZE[0], "type": "polygonlabels", "value": value}
    write_json(tmp_path / "x" / "a.json", [{"data": {"image": "a.png"}, "annotations": [{"result": [result]}]}])
    assert "1 labels have several classes, of which the first is taken: car in a.png" in unused(tmp_path / "x")


def test_ticked_boxes(tmp_path):
    shape = {"name": "polygon", "all_points_x": [2, 20, 18], "all_points_y": [3, 4, 19]}
    write_photo(tmp_path / "x" / "a.png")
    regions = [
        {"shape_attributes": shape, "region_attributes": {"kind": kind}}
        for kind in ({"car": True, "road": False}, {"road": True}, {"car": True, "road": True}, {})
    ]
    write_json(tmp_path / "x" / "via.json", {"a": {"filename": "a.png", "regions": regions}})
    report, _, classes = imported(tmp_path / "x", val=0)
    assert classes == ["background", "car", "road"]
    assert report.unused.lines()[0] == "2 labels have no class: region 3 of a.png, region 4 of a.png"


def test_shapes_that_nobody_knows(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "a.png")
    corners = ";".join(f"{x},{y}" for x, y in TRIANGLE)
    shapes = f'<blob label="car"/><tag label="car"/><polygon label="car" points="{corners}"/>'
    size = f'width="{SIZE[1]}" height="{SIZE[0]}"'
    (root / "a.xml").write_text(f'<annotations><image id="0" name="a.png" {size}>{shapes}</image></annotations>')
    assert unused(root) == "1 labels are of the kind blob, whose area is not read: car in a.png"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", "<annotation><object><bndbox></bndbox></object></annotation>", "boxes of Pascal VOC"),
        (
            "a.json",
            '[{"id": 1, "image": "a.png", "annotator": 1}]',
            "Label Studio's JSON-MIN, which is not read: export JSON",
        ),
        ("a.csv", "filename,region_count", "CSV files, of which those of VIA and of run lengths"),
    ],
)
def test_exports_that_are_taken_for_others(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        imported(tmp_path)


@pytest.mark.parametrize("label", [None, True, ["car"], {"name": "car"}])
def test_labels_that_are_no_names(tmp_path, label):
    with pytest.raises(ValueError, match=r"a\.json: .* is no name of a class"):
        imported(labelme(tmp_path / "a", {"label": label}))
    with pytest.raises(ValueError, match=r"a\.json: .* is no name of a class"):
        imported(coco(tmp_path / "b", [FLAT], label))


@pytest.mark.parametrize(
    ("names", "line", "message"),
    [
        ("[car]", "0 1 1 20 1 10 20", "line 1: coordinates are shares of width and height, 0 to 1: are these pixels"),
        ("[car]", "4 .1 .1 .8 .1 .5 .9", "line 1: there is no class 4"),
        ("[car]", "0 0,1 0,1 0,8 0,1 0,5 0,9", "line 1: "),
        (
            "[true, no]",
            "0 .1 .1 .8 .1 .5 .9",
            "data.yaml: True is no name of a class; in YAML, words",
        ),
    ],
)
def test_yolo_labels_whose_description_has_names_alone(tmp_path, names, line, message):
    write_photo(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(line)
    (tmp_path / "data.yaml").write_text(f"names: {names}")
    with pytest.raises(ValueError, match=message):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("images/a%20b.png", "a b.png"),
        ("a%20b.png?token=1&x=y", "a b.png"),
        ("/data/upload/3/0a1b2c3d-a_b.png", "a b.png"),
        ("IMAGES\\A%20B.PNG", "a b.png"),
        ("a%20b.png", "a%20b.png"),  # as it is, first
    ],
)
def test_images_by_what_systems_make_of_their_names(tmp_path, reference, file):
    write_photo(tmp_path / "photos" / "a b.png")
    write_photo(tmp_path / "photos" / file)
    image = {"id": 1, "file_name": reference, "height": SIZE[0], "width": SIZE[1]}
    row = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [FLAT]}
    content = {"images": [image], "annotations": [row], "categories": [{"id": 1, "name": "car"}]}
    write_json(tmp_path / "a.json", content)
    _, masks, _ = imported(tmp_path, val=0)
    assert list(masks) == [f"train/{Path(file).stem}"]


def test_two_images_of_such_names_are_refused(tmp_path):
    root = coco(tmp_path / "x", [FLAT])
    (root / "a.png").unlink()
    for name in ("a b.png", "a_b.png"):
        write_photo(root / name)
    (root / "a.json").write_text((root / "a.json").read_text().replace("a.png", "0a1b2c3d-A_B.png"))
    with pytest.raises(ValueError, match="of which there are several"):
        imported(root)


def test_an_image_that_lies_elsewhere_and_inside_of_its_labels(tmp_path):
    write_photo(tmp_path / "elsewhere" / "a.png")
    data = base64.b64encode((tmp_path / "elsewhere" / "a.png").read_bytes()).decode()
    labelme(tmp_path / "x", {})
    for name in ("..\\pictures\\c.jpg", "/home/other/d.jpg", "C:\\Users\\e.jpg", "/", ".."):
        stem = name.replace("\\", "/").rpartition("/")[2].removesuffix(".jpg") or "none"
        shape = {"label": "car", "points": TRIANGLE, "shape_type": "polygon"}
        write_json(tmp_path / "x" / f"{stem}.json", {"imagePath": name, "imageData": data, "shapes": [shape]})
    _, masks, _ = imported(tmp_path / "x", val=0)
    assert set(masks) == {"train/a", "train/c", "train/d", "train/e", "train/none"}


def test_what_was_imported_before_is_no_source(tmp_path):
    root = labelme(tmp_path / "x", {})
    config = DataImportConfig(source=str(root), out=str(root / "mydata"), val=0, empty="background", overwrite=True)
    for _ in range(2):
        import_labels(config)
        assert len(list((root / "mydata" / "masks").rglob("*.png"))) == 1


def test_labels_twice_are_told_with_the_remedy(tmp_path):
    root = coco(tmp_path / "x", [FLAT])
    (root / "b.json").write_text((root / "a.json").read_text())
    with pytest.raises(ValueError, match=r"labels twice, .*: leave one, or name one file as the source"):
        imported(root)


def test_two_images_of_one_name_in_one_file(tmp_path):
    """As in exports of two tasks, which hold one file for both."""
    root = coco(tmp_path / "x", [FLAT])
    content = json.loads((root / "a.json").read_text())
    content["images"].append({**content["images"][0], "id": 2})
    content["annotations"].append({**content["annotations"][0], "id": 2, "image_id": 2})
    write_json(root / "a.json", content)
    with pytest.raises(ValueError, match=r"labels twice, in \S+a\.json alone: .* Export them one by one"):
        imported(root)


def test_key_points_of_yolo_are_no_outlines(tmp_path):
    write_photo(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.3 0.3 0.1 0.1 2 0.2 0.2 2\n")
    (tmp_path / "data.yaml").write_text("names: [car]\nnc: 1\n")
    with pytest.raises(ValueError, match="or key points"):
        imported(tmp_path)


def test_masks_in_labels_start_no_programs(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "EPS")  # for which Pillow would start Ghostscript
    mask = {"shape_type": "mask", "points": [[1, 1], [4, 4]], "mask": base64.b64encode(stream.getvalue()).decode()}
    with pytest.raises(ValueError, match="a mask cannot be read: cannot identify"):
        imported(labelme(tmp_path / "x", mask))
