"""Exports that are not read, or not all of them, and what is said then; and odd ones that are read."""

from __future__ import annotations

import base64
import json
import os

import numpy as np
import pytest
from PIL import Image

from support.labels import SIZE, imported, write_json, write_photo

pytest.importorskip("pycocotools")
OUTER = [[2, 3], [29, 3], [29, 21], [2, 21]]
VECTOR = {"vertices": [{"x": 1, "y": 2}], "vectorlabels": ["car"]}


@pytest.mark.parametrize(
    ("name", "content", "title", "remedy"),
    [
        ("a.ndjson", {"data_row": {"id": "1"}, "projects": {}}, "Labelbox", "COCO, or masks as PNG"),
        ("a.json", [{"ID": "1", "DataRow ID": "2", "Label": {"objects": []}}], "Labelbox", "Python package"),
        ("a.json", {"name": "v1", "dataset": {"samples": []}}, r"Segments\.ai", "export_dataset"),
        ("a.json", [{"label_hash": "1", "data_units": {}}], "Encord", "export COCO"),
        ("a.json", [{"externalId": "a", "labels": [{"jsonResponse": {}}]}], "Kili", "COCO, which is read, or YOLO"),
        ("a.json", {"metadata": {"name": "a"}, "instances": []}, "SuperAnnotate", "export_annotation"),
        ("a.json", {"info": {"description": "ISAT"}, "objects": [{"category": "a"}]}, "ISAT", "COCO and VOC"),
        ("a.json", {"annotation": {"imsize": [1, 2, 3], "object": []}}, "full ADE20K", "data set `ade20k`"),
        ("a.json", [{"name": "a", "labels": [{"category": "car", "poly2d": []}]}], "BDD100K", "bdd100k"),
        ("a.geojson", {"type": "FeatureCollection", "crs": {}, "features": []}, "a map", "gdal_rasterize"),
        ("a.json", {"filename": "a", "annotations": [{"type": "segment", "coordinates": []}]}, "Dataloop", "COCO"),
        ("a.json", [{"image": "a", "annotations": [{"label": "a", "coordinates": {}}]}], "CreateML", "boxes"),
        ("a.manifest", {"source-ref": "s3://a", "a-ref": "s3://b"}, "Ground Truth", "data set `folder`"),
        ("a.json", {"project": {}, "attribute": {}, "file": {}, "metadata": {}}, "VIA 3", "VIA 2"),
        ("a.json", {"image": {"image_id": 1, "file_name": "a"}, "annotations": []}, "SA-1B", "no classes"),
        ("a.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n", "boxes in a CSV file", "no outlines"),
        ("a.xml", "<annotation><object><polygon><pt/></polygon></object></annotation>", "LabelMe of MIT", "CVAT"),
        ("a.xml", '<Annotations MicronsPerPixel="0.25"></Annotations>', "Aperio ImageScope", "QuPath"),
        ("a.xml", "<ASAP_Annotations></ASAP_Annotations>", "ASAP", "masks"),
    ],
)
def test_tools_that_are_not_read(tmp_path, name, content, title, remedy):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"looks like .*{title}.*, which is not read: .*{remedy}"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("data", "places", "message"),
    [
        ({"pages": ["a.png", "b.png"]}, ["image"], "several images, pages: make a task of each"),
        ({"image1": "a.png", "image2": "b.png"}, ["image1", "image2"], "labels on several images, image1, image2"),
        ({"left": "a.png", "right": "b.png"}, ["photo"], "on 'photo', which is none of its images left, right"),
        ({"video": "a.mp4"}, ["video"], "name no image: video. A video is to be exported as frames"),
        ({"image": "b.png", "depth": "a.png"}, ["depth"], ""),
        ({"image": "a.png", "depth": "b.png"}, ["image"], ""),
    ],
)
def test_tasks_of_several_images(tmp_path, data, places, message):
    root = tmp_path / "x"
    write_photo(root / "a.png")
    write_photo(root / "b.png", (8, 9))
    value = {"points": [[10, 10], [90, 10], [50, 90]], "polygonlabels": ["car"]}
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "type": "polygonlabels"}
    result = [{"to_name": place, "value": value, **size} for place in places]
    write_json(root / "tasks.json", [{"id": 1, "data": data, "annotations": [{"result": result}]}])
    if not message:
        assert list(imported(root)[1]) == ["train/a"]
        return
    with pytest.raises(ValueError, match=message):
        imported(root)


def test_keys_that_are_given_twice(tmp_path):
    write_photo(tmp_path / "x" / "a.png")
    text = '{"imagePath": "a.png", "shapes": [], "imageHeight": 24, "imageWidth": 32, "shapes": []}'
    (tmp_path / "x" / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json: an object in it has the key 'shapes' twice"):
        imported(tmp_path / "x")


@pytest.mark.parametrize(
    ("value", "change", "said"),
    [
        (
            {"vertices": [{"x": 1, "y": 2}], "vectorlabels": ["car"]},
            {"type": "vectorlabels"},
            "of the kind vectorlabels",
        ),
        ({"imageDataURL": "data:", "bitmasklabels": ["car"]}, {"type": "bitmask"}, "of the kind bitmask"),
        ({"x": 1, "y": 2, "keypointlabels": ["car"]}, {"type": "keypointlabels"}, "of the kind keypointlabels"),
        ({"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": ["car"]}, {"item_index": 1}, r"several \(item_index\)"),
    ],
)
def test_labels_of_label_studio_that_are_not_read(tmp_path, value, change, said):
    write_photo(tmp_path / "x" / "a.png")
    result = {"original_width": SIZE[1], "original_height": SIZE[0], "value": value, **change}
    write_json(tmp_path / "x" / "t.json", {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [result]}]})
    with pytest.raises(ValueError, match=said):
        imported(tmp_path / "x")


def test_images_inside_of_documents(tmp_path):
    root = tmp_path / "x"
    code = base64.b64encode(write_photo(root / "a.png").read_bytes()).decode()
    (root / "a.png").unlink()
    shape = {"label": "car", "points": OUTER}
    for number, (path, data) in enumerate([(None, code), ("", code), ("gone.png", f"data:image/png;base64,{code}")]):
        write_json(root / f"b{number}.json", {"imagePath": path, "imageData": data, "shapes": [shape]})
    assert sorted(name.split("/")[1] for name in imported(root)[1]) == ["b0", "b1", "gone"]
    value = {"points": [[10, 10], [90, 10], [50, 90]], "polygonlabels": ["car"]}
    result = {"original_width": SIZE[1], "original_height": SIZE[0], "value": value}
    task = {"id": 7, "data": {"image": f"data:image/png;base64,{code}"}, "annotations": [{"result": [result]}]}
    write_json(tmp_path / "y" / "t.json", [task])
    assert list(imported(tmp_path / "y")[1]) == ["train/task7"]


def test_ids_of_coco_that_are_texts_and_names_in_other_capitals(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "Bild\u00fc.PNG")
    content = {
        "images": [{"id": "6f-a", "file_name": "bildu\u0308.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 2, "name": "road"}, {"id": "c", "name": "car"}],
        "annotations": [{"image_id": "6f-a", "category_id": "c", "segmentation": [np.ravel(OUTER).tolist()]}],
    }
    write_json(root / "i.json", content)
    assert imported(root)[2] == ["background", "car"]
    content["annotations"][0]["category_id"] = "d"
    write_json(root / "i.json", content)
    with pytest.raises(ValueError, match=r"has the category d, which is none of \[2, 'c'\]"):
        imported(root)
    write_json(root / "i.json", {**content, "annotations": None})
    with pytest.raises(ValueError, match="a value is not of the kind it should be"):
        imported(root)


def test_four_corners_and_numbers_of_classes_of_yolo(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text("0 .1 .1 .9 .2 .8 .9 .1 .8\n")
    (root / "data.yaml").write_text("names: [car]\nnc: 3\n")
    notes = imported(root)[0].notes
    assert notes[0] == f"{root / 'data.yaml'}: nc is 3, but 1 classes have names"
    assert notes[1].startswith("all polygons have four corners: turned boxes (YOLO OBB)")
    (root / "data.yaml").write_text("names: car, road\nnc: 2\n")
    with pytest.raises(ValueError, match=r"data\.yaml: names must be a list, not 'car, road'"):
        imported(root)


def test_what_has_no_end_and_what_is_packed(tmp_path):
    """Links to devices and pipes are no files; archives are to be unpacked, UTF-16 to be saved anew."""
    (tmp_path / "x").mkdir()
    os.symlink("/dev/zero", tmp_path / "x" / "a.json")
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "pipe", tmp_path / "x" / "b.json")
    with pytest.raises(ValueError, match="It holds nothing"):
        imported(tmp_path / "x")
    (tmp_path / "x" / "c.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"holds the archive c\.zip: unpack it"):
        imported(tmp_path / "x")
    (tmp_path / "x" / "a.xml").write_bytes("<annotations/>".encode("utf-16"))
    with pytest.raises(ValueError, match=r"holds a\.xml, which is UTF-16: save it as UTF-8"):
        imported(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("task-1-annotation-2-by-3-tag-car-0.png", "brush labels of Label Studio, .*: export JSON"),
        ("Segmentation.seg.nrrd", "volumes as NRRD .* as NIfTI"),
        ("ct.nii.gz", "volumes .NIfTI., which need no import"),
        ("obj.names", "YOLO 1.1, .* export Ultralytics YOLO Segmentation"),
        ("labels/a.txt", "neither data.yaml nor classes.txt: write the names"),
        ("train.tfrecord", "TFRecord, .* export COCO"),
        ("parcels.shp", "shapefiles, which are not read: gdal_rasterize"),
        ("label_colors.txt", "CVAT's export CamVid, .* Segmentation mask"),
        ("PixelLabelData/Label_1.png", "pixel labels of MATLAB, which need no import"),
        ("a_cp_masks.png", "images alone: .* Masks that are images need no import"),
    ],
)
def test_files_that_are_known_by_their_names(tmp_path, name, told):
    write_photo(tmp_path / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"no text")
    with pytest.raises(ValueError, match=told):
        imported(tmp_path)


def test_numbers_in_place_of_colors(tmp_path):
    write_photo(tmp_path / "x" / "JPEGImages" / "a.jpg")
    (tmp_path / "x" / "SegmentationClass").mkdir()
    Image.fromarray(np.full(SIZE, 3, np.uint8)).save(tmp_path / "x" / "SegmentationClass" / "a.png")
    with pytest.raises(ValueError, match=r"the color \(3, 3, 3\).*Are its values numbers of classes\? Then name them"):
        imported(tmp_path / "x")
