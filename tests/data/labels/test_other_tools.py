"""Labels of V7, Hasty, Datumaro, Cityscapes, Mapillary, Roboflow, VoTT and COCO panoptic."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rmiseg.data.labels.shapes import exact_polygons
from support.labels import SIZE, imported, random_polygon, write_json, write_photo

pytest.importorskip("pycocotools")
RNG = np.random.default_rng(5)
OUTER, INNER = [[2, 3], [29, 3], [29, 21], [2, 21]], [[8, 8], [20, 8], [20, 16], [8, 16]]
POLYGON = random_polygon(RNG)
CORNERS = [{"x": x, "y": y} for x, y in POLYGON]


def pixels(*polygons):
    return exact_polygons([np.array(each, float) for each in polygons], SIZE)


def pairs(corners):
    return [{"x": x, "y": y} for x, y in corners]


DARWIN_2 = {
    "version": "2.0",
    "item": {
        "name": "a.png",
        "path": "/folder",
        "slots": [{"type": "image", "slot_name": "0", "width": SIZE[1], "height": SIZE[0]}],
    },
}
DARWIN_1 = {"dataset": "d", "image": {"filename": "a.png", "width": SIZE[1], "height": SIZE[0]}}


@pytest.mark.parametrize(
    ("head", "shapes"),
    [
        (DARWIN_2, [{"polygon": {"paths": [CORNERS]}}, {"polygon": {"paths": [pairs(OUTER), pairs(INNER)]}}]),
        (DARWIN_1, [{"polygon": {"path": CORNERS}}, {"complex_polygon": {"path": [pairs(OUTER), pairs(INNER)]}}]),
        (
            DARWIN_1,
            [{"polygon": {"path": CORNERS}}, {"polygon": {"path": pairs(OUTER), "additional_paths": [pairs(INNER)]}}],
        ),
    ],
)
def test_polygons_of_darwin(tmp_path, head, shapes):
    root = tmp_path / "x"
    write_photo(root / "images" / "a.png")
    box = {"bounding_box": {"x": 1, "y": 1, "w": 4, "h": 4}}
    labels = [{"name": name, "id": name, **box, **shape} for name, shape in zip(("car", "road"), shapes)]
    labels += [{"name": "post", **box}, {"name": "day", "tag": {}}, {"name": "edge", "line": {"path": CORNERS}}]
    write_json(root / "releases" / "a.json", {**head, "annotations": labels})
    report, masks, classes = imported(root)
    assert classes == ["background", "car", "road"]
    ring = pixels(OUTER) & ~pixels(INNER)
    assert np.array_equal(masks["train/a"], np.where(ring, 2, np.where(pixels(POLYGON), 1, 0)))
    assert [line.split(":")[0] for line in report.unused.lines()] == [
        "1 labels are of the kind tag, whose area is not read",
        "1 labels are of the kind line, whose area is not read",
        "1 labels are boxes, no outlines (--boxes fill takes all of a box)",
    ]


def test_masks_of_darwin(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "a.png")
    numbers = RNG.integers(0, 3, SIZE[0] * SIZE[1])
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    runs = np.stack([numbers[starts], np.diff(starts, append=numbers.size)], axis=1).ravel().tolist()
    layer = {"dense_rle": runs, "mask_annotation_ids_mapping": {"p": 1, "q": 2}, "total_pixels": numbers.size}
    masks = [{"id": key, "name": name, "mask": {}} for key, name in (("p", "car"), ("q", "road"))]
    content = {**DARWIN_2, "annotations": [*masks, {"id": "r", "name": "__raster_layer__", "raster_layer": layer}]}
    write_json(root / "a.json", content)
    assert np.array_equal(imported(root)[1]["train/a"], numbers.reshape(SIZE))
    for change, message in (
        ({"dense_rle": runs[:-2]}, "must add up to the 768"),
        ({"dense_rle": [0, -768]}, "pairs of a value"),
        ({"dense_rle": "abc"}, "whole numbers, not 'abc'"),
        ({"mask_annotation_ids_mapping": {"z": 1}}, "no annotation has the id 'z'"),
        ({"mask_annotation_ids_mapping": None}, "does not hold"),
    ):
        content["annotations"][-1]["raster_layer"] = {**layer, **change}
        write_json(root / "a.json", content)
        with pytest.raises(ValueError, match=message):
            imported(root)
    write_json(root / "a.json", {**DARWIN_2, "annotations": [{"name": "car", "frames": {"0": {}}}]})
    with pytest.raises(ValueError, match=r"a\.json: it is of a video"):
        imported(root)


def test_hasty(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "train" / "a.png")
    write_photo(root / "val" / "a.png")
    behind = {"class_name": "road", "polygon": OUTER, "bbox": [2, 3, 29, 21], "mask": None, "z_index": 0}
    front = {"class_name": "car", "polygon": POLYGON, "bbox": [0, 0, 9, 9], "mask": None, "z_index": 3}
    box = {"class_name": "road", "polygon": None, "bbox": [2, 3, 9, 9], "mask": None}
    size = {"width": SIZE[1], "height": SIZE[0]}
    images = [
        {"image_name": "a.png", "dataset_name": "train", **size, "labels": [front, behind, box]},
        {"image_name": "a.png", "dataset_name": "val", **size, "labels": [behind]},
    ]
    classes = [{"class_name": "road", "color": "#ff800044"}, {"class_name": "car", "color": "#0000ff44"}]
    content = {"export_format_version": "1.1", "label_classes": classes, "images": images}
    write_json(root / "export.json", content)
    report, masks, names = imported(root)
    assert names == ["background", "road", "car"]
    assert np.array_equal(masks["train/a"], np.where(pixels(POLYGON), 2, pixels(OUTER)))
    assert np.array_equal(masks["val/a"], pixels(OUTER))
    assert report.unused.lines()[0].startswith("1 labels are boxes")
    box["mask"] = [3, 4]
    write_json(root / "export.json", content)
    with pytest.raises(ValueError, match=r"image a.png, label 2, 'road': it is a mask .* export PNG masks, or COCO"):
        imported(root)


def test_datumaro(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    root = tmp_path / "x"
    write_photo(root / "images" / "train" / "a.png")
    mask = RNG.random(SIZE) < 0.1
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = {"counts": code["counts"].decode(), "size": list(SIZE)}
    labels = [
        {"type": "mask", "label_id": 1, "rle": rle, "z_order": 2},
        {"type": "polygon", "label_id": 0, "points": np.ravel(POLYGON).tolist(), "z_order": 0},
        {"type": "bbox", "label_id": 0, "bbox": [1, 1, 5, 5]},
        {"type": "points", "label_id": 0, "points": [1, 2, 3, 4]},
        {"type": "label", "label_id": 0},
        {"type": "polygon", "label_id": None, "points": [0, 0, 9, 0, 9, 9]},
    ]
    content = {
        "categories": {
            "label": {"labels": [{"name": "car"}, {"name": "road"}]},
            "mask": {"colormap": [{"label_id": 1, "r": 1, "g": 2, "b": 3}]},
        },
        "items": [{"id": "a", "annotations": labels, "image": {"path": "a.png", "size": list(SIZE)}}],
    }
    write_json(root / "annotations" / "train.json", content)
    report, masks, classes = imported(root)
    assert classes == ["background", "car", "road"]
    assert np.array_equal(masks["train/a"], np.where(mask, 2, pixels(POLYGON)))
    assert len(report.unused.lines()) == 3
    labels[0]["label_id"] = 7
    write_json(root / "annotations" / "train.json", content)
    with pytest.raises(ValueError, match="has the label 7, of 2"):
        imported(root)
    content["items"][0] = {"id": "a", "annotations": [], "video": {}}
    write_json(root / "annotations" / "train.json", content)
    with pytest.raises(ValueError, match="item a is no image"):
        imported(root)


def test_polygons_of_cityscapes(tmp_path):
    """Deleted objects are left out, groups are of their class, and what is no part of the scene is ignored."""
    root = tmp_path / "x"
    write_photo(root / "leftImg8bit" / "val" / "ulm" / "ulm_0_1_leftImg8bit.png")
    write_photo(root / "leftImg8bit" / "train" / "ulm" / "ulm_0_0_leftImg8bit.png")
    corners = np.round(POLYGON).astype(int).tolist()
    objects = [
        {"label": "road", "polygon": OUTER},
        {"label": "cargroup", "polygon": corners},
        {"label": "out of roi", "polygon": INNER},
        {"label": "sky", "polygon": OUTER, "deleted": 1},
    ]
    content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": objects}
    write_json(root / "gtFine" / "val" / "ulm" / "ulm_0_1_gtFine_polygons.json", content)
    write_json(root / "gtFine" / "train" / "ulm" / "ulm_0_0_gtFine_polygons.json", content)
    _, masks, classes = imported(root)
    assert classes == ["background", "car", "road"]
    expected = Image.new("L", SIZE[::-1])
    for polygon, value in ((OUTER, 2), (corners, 1), (INNER, 255)):
        ImageDraw.Draw(expected).polygon([tuple(each) for each in polygon], fill=value)
    assert sorted(masks) == ["train/ulm_0_0_leftImg8bit", "val/ulm_0_1_leftImg8bit"]
    assert all(np.array_equal(mask, np.array(expected)) for mask in masks.values())


def test_polygons_of_mapillary(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "images" / "a.jpg")
    objects = [{"id": 1, "label": "object--car", "polygon": OUTER}]
    content = {"width": SIZE[1], "height": SIZE[0], "properties": {}, "objects": objects}
    write_json(root / "polygons" / "a.json", content)
    _, masks, classes = imported(root)
    assert classes == ["background", "object--car"]
    assert masks["train/a"].sum() == 28 * 19


def test_masks_of_roboflow(tmp_path):
    root = tmp_path / "x"
    expected = {}
    for split, folder in (("train", "train"), ("val", "valid")):
        write_photo(root / folder / "a_jpg.rf.1f.jpg")
        mask = RNG.integers(0, 3, SIZE).astype(np.uint8)
        Image.fromarray(mask).save(root / folder / "a_jpg.rf.1f_mask.png")
        (root / folder / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, car\n2, road\n")
        expected[f"{split}/a_jpg.rf.1f"] = mask
    write_photo(root / "train" / "b.jpg")
    report, masks, classes = imported(root)
    assert classes == ["background", "car", "road"]
    assert {name: mask.tolist() for name, mask in masks.items()} == {k: mask.tolist() for k, mask in expected.items()}
    assert report.unused.lines()[0].startswith("1 images without labels are left out")
    for text, message in (
        ("Pixel Value, Class\n0, background\n", r"a_mask.png has \d+ pixels of the value 1, which has no name in"),
        ("Pixel Value, Class\n0, background\n1\n", "line 3: '1' is not like"),
        ("Pixel Value, Class\n0, a\n0, b\n", "line 3: the value 0 is a and b"),
        ("a,b\n0, a\n", "does not begin with"),
    ):
        (root / "train" / "_classes.csv").write_text(text)
        with pytest.raises(ValueError, match=message.replace("a_mask", "a_jpg.rf.1f_mask")):
            imported(root)


@pytest.mark.parametrize("image", ["a.jpg", "a.png"])
def test_coco_panoptic(tmp_path, image):
    root = tmp_path / "x"
    write_photo(root / "train2017" / image)
    numbers = RNG.choice([0, 7, 7 + 256 * 3, 7 + 65536 * 9], SIZE)
    colors = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1).astype(np.uint8)
    (root / "annotations" / "panoptic_train2017").mkdir(parents=True)
    Image.fromarray(colors).save(root / "annotations" / "panoptic_train2017" / "a.png")
    segments = [{"id": int(each), "category_id": 2 if each == 7 else 1} for each in np.unique(numbers)[1:]]
    content = {
        "images": [{"id": 3, "file_name": image}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
    }
    path = write_json(root / "annotations" / "panoptic_train2017.json", content)
    report, masks, classes = imported(root)
    assert report.format == "coco-panoptic"
    assert classes == ["background", "car", "sky"]
    assert np.array_equal(masks["train/a"], np.where(numbers == 0, 255, np.where(numbers == 7, 2, 1)))
    segments.pop()
    write_json(path, content)
    with pytest.raises(ValueError, match="pixels of the segment 589831, which is not listed"):
        imported(root)
    content["annotations"][0]["file_name"] = "b.png"
    write_json(path, content)
    with pytest.raises(ValueError, match=r"the segments b\.png, which are not there: unpack panoptic_train2017\.zip"):
        imported(root)


@pytest.mark.parametrize("mark", ["", "#", "\ufeff"])
def test_tables_of_via(tmp_path, mark):
    root = tmp_path / "x"
    write_photo(root / "a.png")
    shape = {"name": "polygon", "all_points_x": [x for x, _ in POLYGON], "all_points_y": [y for _, y in POLYGON]}
    columns = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    rows = [
        [*columns, "region_shape_attributes", "region_attributes"],
        ["a.png", 12, "{}", 1, 0, json.dumps(shape), '{"class": "car"}'],
        ["b.png", 12, "{}", 0, 0, "{}", "{}"],
    ]
    with open(root / "via.csv", "w", encoding="utf-8", newline="") as file:
        file.write(mark)
        csv.writer(file).writerows(rows)
    report, masks, classes = imported(root)
    assert (report.format, classes) == ("via", ["background", "car"])
    assert np.array_equal(masks["train/a"], pixels(POLYGON))
    text = (root / "via.csv").read_text()
    for old, new, message in (
        ('""class"": ""car""', '""class"" ""car""', r"via\.csv, line 2: it is damaged"),
        ('"{""class"": ""car""}"', '"{}",3', r"via\.csv, line 2: .* another number of cells"),
        ('"{""class"": ""car""}"', '"{""class"": ""car""', r"via\.csv, line \d: "),
    ):
        (root / "via.csv").write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            imported(root)


@pytest.mark.parametrize("export", [True, False])
def test_vott(tmp_path, export):
    root = tmp_path / "x"
    write_photo(root / "a b.png")
    regions = [
        {"type": "POLYGON", "tags": ["car"], "points": pairs(OUTER)},
        {"type": "POLYGON", "tags": ["road", "car"], "points": CORNERS},
        {"type": "RECTANGLE", "tags": ["car"], "points": pairs(INNER)},
        {"type": "POLYGON", "tags": [], "points": pairs(INNER)},
        {"type": "POLYLINE", "tags": ["car"], "points": pairs(INNER)},
    ]
    size = {"width": SIZE[1], "height": SIZE[0]}
    entry = {"asset": {"name": "a%20b.png", "path": "file:C:/d/a%20b.png", "size": size}, "regions": regions}
    tags = [{"name": "road", "color": "#5db300"}, {"name": "car", "color": "#e81123"}]
    write_json(root / "p.json", {"name": "p", "tags": tags, "assets": {"f1": entry}} if export else entry)
    report, masks, classes = imported(root)
    assert classes == ["background", "road", "car"] if export else ["background", "car", "road"]
    car, road = classes.index("car"), classes.index("road")
    assert np.array_equal(masks["train/a b"], np.where(pixels(POLYGON), road, car * pixels(OUTER)))
    assert [line.partition(":")[0] for line in report.unused.lines()] == [
        "1 labels have several classes, of which the first is taken",
        "1 labels have no class",
        "1 labels are of the kind POLYLINE, whose area is not read",
        "1 labels are boxes, no outlines (--boxes fill takes all of a box)",
    ]
