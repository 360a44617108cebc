"""Predictions as labels, opened with the libraries of the tools that they are for."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rmiseg.data import ClassTable
from rmiseg.inference.labels import LabelFiles
from rmiseg.inference.sources import Source
from support.labels import write_photo

CLASSES = ClassTable(("background", "car", "road"), (0, 1, 2), (255,), ((0, 0, 0), (0, 0, 142), (128, 64, 128)))


def predicted() -> np.ndarray:
    """Class ids with a hole, a part in it, and two parts that touch at a corner."""
    ids = np.zeros((40, 50), np.uint8)
    ids[4:30, 5:35] = 1
    ids[10:20, 10:25] = 0
    ids[13:16, 14:20] = 2
    ids[30:36, 35:45] = 2
    return ids


def written(tmp_path: Path, name: str) -> Path:
    photo = write_photo(tmp_path / "photos" / "a.png", (40, 50))
    labels = LabelFiles(name, [Source(photo, Path("a"))], CLASSES, 0.0)
    labels.write(tmp_path / "out", Path("a"), predicted())
    labels.finish(tmp_path / "out")
    return tmp_path / "out" / name


def test_pycocotools(tmp_path):
    tools = pytest.importorskip("pycocotools.coco")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = tools.COCO(str(written(tmp_path, "coco") / "annotations.json"))
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["car", "road"]
    found = np.zeros((40, 50), np.uint8)
    for each in coco.loadAnns(coco.getAnnIds(imgIds=coco.getImgIds())):
        mask = coco.annToMask(each).astype(bool)
        assert not found[mask].any()
        assert each["area"] == mask.sum()
        found[mask] = each["category_id"] - 1
    np.testing.assert_array_equal(found, predicted())


def test_supervision(tmp_path):
    supervision = pytest.importorskip("supervision", exc_type=ImportError)
    path = written(tmp_path, "coco") / "annotations.json"
    data = supervision.DetectionDataset.from_coco(str(tmp_path / "photos"), str(path), force_masks=True)
    ((_, _, found),) = list(data)
    assert data.classes == ["car", "road"]
    for class_id in (0, 1):  # its outlines are a pixel wider
        covered = found.mask[found.class_id == class_id].any(axis=0)
        assert covered[predicted() == class_id + 1].all()
        assert covered.sum() < 1.6 * (predicted() == class_id + 1).sum()


@pytest.mark.parametrize(("name", "kind"), [("cvat", "cvat"), ("coco", "coco_instances")])
def test_datumaro(tmp_path, name, kind):
    datumaro = pytest.importorskip("datumaro", exc_type=ImportError)
    folder = written(tmp_path, name)
    shutil.rmtree(folder / ".parts")
    shutil.copytree(tmp_path / "photos", folder / "images")
    if name == "coco":
        (folder / "annotations").mkdir()
        (folder / "annotations.json").rename(folder / "annotations" / "instances_train.json")
    (item,) = list(datumaro.Dataset.import_from(str(folder), kind))
    assert len({each.label for each in item.annotations}) == 2
    shapes = [each for each in item.annotations if each.type != datumaro.AnnotationType.bbox]
    assert sum(each.get_area() for each in shapes) == pytest.approx((predicted() > 0).sum(), abs=1)


def test_label_studio(tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter", exc_type=ImportError)
    folder = written(tmp_path, "label-studio")
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks):  # as the server has them once somebody has submitted them as they are
        task["id"] = number
        task["annotations"] = [{**each, "id": 1, "completed_by": 1} for each in task.pop("predictions")]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    made = converter.Converter((folder / "config.xml").read_text(), str(tmp_path / "photos"), download_resources=False)
    made.convert_to_coco(str(folder / "tasks.json"), str(tmp_path / "coco"), is_dir=False)
    content = json.loads((tmp_path / "coco" / "result.json").read_text())
    assert sorted(each["name"] for each in content["categories"]) == ["car", "road"]
    assert sum(each["area"] for each in content["annotations"]) == pytest.approx((predicted() > 0).sum(), abs=1)


def test_cvat_sdk(tmp_path):
    """CVAT's own reader of its XML is part of its server; the package of its client checks the names of shapes."""
    models = pytest.importorskip("cvat_sdk.models", exc_type=ImportError)
    from xml.etree import ElementTree

    root = ElementTree.parse(written(tmp_path, "cvat") / "annotations.xml").getroot()
    for number, shape in enumerate(root.iter("polygon")):
        points = [float(x) for pair in shape.attrib["points"].split(";") for x in pair.split(",")]
        made = models.LabeledShapeRequest(
            type=models.ShapeType(shape.tag),
            frame=0,
            label_id=number,
            points=points,
            z_order=int(shape.attrib["z_order"]),
        )
        assert len(made.points) % 2 == 0
        assert len(made.points) >= 6
