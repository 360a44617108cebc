"""Predictions as labels for labelling tools, and the way back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmiseg.data import ClassTable
from rmiseg.inference.labels import LabelFiles, writable_labels
from rmiseg.inference.sources import Source
from support.labels import imported, write_photo

CLASSES = ClassTable(("background", "car", "road"), (0, 1, 2), (255,), ((0, 0, 0), (0, 0, 142), (128, 64, 128)))
POLYGONS = ("coco", "cvat", "label-studio", "labelme")
WRITABLE = (*POLYGONS, "kaggle-columns", "kaggle-rows")


def test_formats():
    assert sorted(writable_labels()) == sorted(WRITABLE)
    with pytest.raises(ValueError, match="are read, but not written"):
        LabelFiles("yolo", [], CLASSES, 1.0)
    with pytest.raises(ValueError, match=r"film.mp4 is a video"):
        LabelFiles("coco", [Source(Path("film.mp4"), Path("film"))], CLASSES, 1.0)


def random_ids(seed: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Class ids with parts inside of holes, parts that touch at corners, and single pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (size[0] // 5, size[1] // 5)).repeat(5, 0).repeat(5, 1)
    coarse[12:28, 10:40] = 1
    coarse[16:24, 15:35] = 0
    coarse[18:20, 20:25] = 1
    return np.where(rng.random(size) < 0.05, rng.integers(0, 3, size), coarse).astype(np.uint8)


def accept_predictions(path: Path) -> None:
    """Do what Label Studio does when somebody submits a prediction as it is."""
    tasks = json.loads(path.read_text())
    path.write_text(json.dumps([{**task, "annotations": task.pop("predictions")} for task in tasks]))


def written(tmp_path: Path, name: str, all_ids: list[np.ndarray], tolerance: float) -> Path:
    """The labels of some images, whose files are in the folder photos."""
    sources = []
    for number, ids in enumerate(all_ids):
        file = write_photo(tmp_path / "photos" / "deep" / f"straße {number}.png", ids.shape)
        sources.append(Source(file, Path("deep", file.stem)))
    labels = LabelFiles(name, sources, CLASSES, tolerance)
    for source, ids in zip(sources, all_ids):
        labels.write(tmp_path / "out", source.name, ids)
    labels.finish(tmp_path / "out")
    folder = tmp_path / "out" / name
    if name == "label-studio":
        accept_predictions(folder / "tasks.json")
    return folder


@pytest.mark.parametrize("name", WRITABLE)
def test_without_tolerance_labels_are_the_prediction_again(tmp_path, name):
    """Holes and what lies in them are kept, to the pixel."""
    all_ids = [random_ids(seed) for seed in range(4)]
    folder = written(tmp_path, name, all_ids, 0.0)
    report, masks, classes = imported(folder, images=str(tmp_path / "photos"), val=0, classes=["car", "road"])
    assert classes == ["background", "car", "road"]
    assert not report.overlaps
    for number, ids in enumerate(all_ids):
        np.testing.assert_array_equal(masks[f"train/straße {number}"], ids)


@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio", "kaggle-rows"])
def test_labels_of_images_that_come_later_are_added(tmp_path, name):
    """Those of before are kept, and each image has a number of its own."""
    sources = [
        Source(write_photo(tmp_path / "photos" / f"{each}.png", (40, 50)), Path(each)) for each in ("a", "c", "b")
    ]
    all_ids = {source.name: random_ids(seed) for seed, source in enumerate(sources)}
    for group in (sources[:2], sources[2:]):
        labels = LabelFiles(name, group, CLASSES, 0.0)
        for source in group:
            labels.write(tmp_path / "out", source.name, all_ids[source.name])
        (file, *_) = labels.finish(tmp_path / "out")
    if name == "label-studio":
        accept_predictions(file)
    if name == "cvat":
        assert [image.attrib["id"] for image in ElementTree.parse(file).getroot().iter("image")] == ["0", "1", "2"]
    _, masks, _ = imported(file.parent, images=str(tmp_path / "photos"), val=0, classes=["car", "road"])
    for each, ids in all_ids.items():
        np.testing.assert_array_equal(masks[f"train/{each}"], ids)


@pytest.mark.parametrize("name", POLYGONS)
def test_outlines_are_simplified_to_a_tolerance(tmp_path, name):
    """Discs with holes: far fewer corners, and no pixel farther from an edge than the tolerance."""
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(y - 60, x - 80)
    ids = ((radius < 50) & (radius > 20)).astype(np.uint8) + 2 * (radius < 10).astype(np.uint8)
    sizes, masks = [], []
    for tolerance in (0.0, 1.5):
        root = tmp_path / str(tolerance)
        folder = written(root, name, [ids], tolerance)
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        _, found, _ = imported(folder, images=str(root / "photos"), val=0)
        masks.append(found["train/straße 0"])
    assert sizes[1] < sizes[0] / 2
    np.testing.assert_array_equal(masks[0], ids)
    wrong = masks[1] != ids
    assert 0 < wrong.sum() < 0.03 * (ids > 0).sum()
    distance = np.min([np.abs(radius - edge) for edge in (50, 20, 10)], axis=0)
    assert distance[wrong].max() < 1.5 + 1  # of the middle of a pixel


def test_classes_and_colors_come_along(tmp_path):
    ids = random_ids(0)
    root = ElementTree.parse(written(tmp_path, "cvat", [ids], 1.0) / "annotations.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == ["car", "road"]
    assert [label.findtext("color") for label in root.iter("label")] == ["#00008e", "#804080"]
    assert [image.attrib["name"] for image in root.iter("image")] == ["deep/straße 0.png"]
    view = ElementTree.parse(written(tmp_path, "label-studio", [ids], 1.0) / "config.xml").getroot()
    assert [label.attrib["background"] for label in view.iter("Label")] == ["#00008e", "#804080"]
    content = json.loads((written(tmp_path, "coco", [ids], 1.0) / "annotations.json").read_text())
    assert [(each["id"], each["name"]) for each in content["categories"]] == [(2, "car"), (3, "road")]
    content = json.loads((written(tmp_path, "labelme", [ids], 1.0) / "deep" / "straße 0.json").read_text())
    image = tmp_path / "out" / "labelme" / "deep" / content["imagePath"]
    assert image.resolve() == (tmp_path / "photos" / "deep" / "straße 0.png").resolve()


def test_labelme_opens_them(tmp_path):
    labelme = pytest.importorskip("labelme._label_file", exc_type=ImportError)
    ids = random_ids(0)
    path = written(tmp_path, "labelme", [ids], 1.0) / "deep" / "straße 0.json"
    content = json.loads(path.read_text())
    shapes = [labelme._load_shape_json_obj(shape) for shape in content["shapes"]]
    assert {shape["label"] for shape in shapes} == {"car", "road"}
    assert all(len(shape["points"]) > 2 for shape in shapes)


def test_nothing_to_label(tmp_path):
    for name in WRITABLE:
        folder = written(tmp_path / name, name, [np.zeros((9, 9), np.uint8)], 1.0)
        _, masks, _ = imported(folder, images=str(tmp_path / name / "photos"), val=0, empty="background", format=name)
        assert [mask.max() for mask in masks.values()] == [0]


def test_pictures_are_where_labelme_looks(tmp_path):
    """imagePath leads from the label to the image, of which the results are elsewhere."""
    folder = written(tmp_path, "labelme", [random_ids(1)], 1.0)
    with pytest.raises(ValueError, match=r"which lies outside of .* --images"):
        imported(folder)
    with Image.open(tmp_path / "photos" / "deep" / "straße 0.png") as image:
        assert image.size == (50, 40)
