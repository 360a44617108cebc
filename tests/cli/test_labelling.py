"""The loop without code: label, train, pre-label, correct, train again, in every format that is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmiseg.cli import main
from rmiseg.data import load_split
from rmiseg.data.classes import ClassTable
from rmiseg.data.description import read_description
from rmiseg.inference.labels import LabelFiles
from rmiseg.inference.sources import Source
from support.commands import error_of, small_recipe
from support.labels import masks_of, write_json, write_photo

TOOLS = {"coco": "annotations.json", "cvat": "annotations.xml", "label-studio": "tasks.json", "labelme": "shape00.json"}


def submit(folder: Path) -> None:
    """Do what Label Studio does when somebody submits predictions as they are."""
    path = folder / TOOLS["label-studio"]
    if path.exists():
        tasks = json.loads(path.read_text())
        path.write_text(json.dumps([{**task, "annotations": task.pop("predictions")} for task in tasks]))


def label(root: Path, split: str, classes: ClassTable, name: str, out: Path) -> None:
    """Draw the labels of a split, as somebody would in the tool."""
    data = load_split("folder", root, split)
    sources = [Source(sample.image, Path(sample.name)) for sample in data.samples]
    labels = LabelFiles(name, sources, classes, 0.0)
    for index, source in enumerate(sources):
        labels.write(out, source.name, data.read_mask(index))
    labels.finish(out)
    submit(out / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOOLS)
def test_label_train_prelabel_correct_train_again(name, shapes, tmp_path, capsys):
    images, data = str(shapes / "images"), tmp_path / "data"
    classes = load_split("folder", shapes, "train").classes
    label(shapes, "train", classes, name, tmp_path / "labels")
    options = ["--images", images, "--unlabeled", "ignore", "--out"]
    first = ["data", "import", str(tmp_path / "labels" / name), *options, str(data)]
    assert main(first) == 0
    drawn = {key.partition("/")[2]: mask for key, mask in masks_of(data).items()}
    train = load_split("folder", shapes, "train")
    assert drawn.keys() == {Path(each).name for each in train.names}
    names = read_description(data).classes.names
    order = np.array([*map(names.index, classes.names), *[255] * (256 - len(names))])  # it may be another
    for i, each in enumerate(train.names):
        np.testing.assert_array_equal(drawn[Path(each).name], order[train.read_mask(i)])
    assert main(["data", "check", "--root", str(data)]) == 0
    short = ["--optim.lr", "0.03", "--train.epochs", "1", "--out"]
    assert main(["train", small_recipe(tmp_path, data), *short, str(tmp_path / "run")]) == 0
    # The other images are labeled by the model, and corrected: here, they are taken as they are.
    more = [str(sample.image) for sample in load_split("folder", shapes, "val").samples]
    predict = ["predict", str(tmp_path / "run"), *more, "--write", f"index,{name}", "--out", str(tmp_path / "more")]
    assert main([*predict, "--tolerance", "0"]) == 0
    submit(tmp_path / "more" / name)
    second = ["data", "import", str(tmp_path / "more" / name), *options, str(tmp_path / "data2")]
    assert main([*second, "--classes", ",".join(names)]) == 0
    index = {path.stem: np.array(Image.open(path)) for path in (tmp_path / "more" / "index").iterdir()}
    found = {key.partition("/")[2]: mask for key, mask in masks_of(tmp_path / "data2").items()}
    assert index.keys() == found.keys()
    for key, mask in found.items():
        np.testing.assert_array_equal(mask, index[key])
    for kind in ("images", "masks"):
        for path in (tmp_path / "data2" / kind).rglob("*.png"):
            shutil.copy(path, data / kind / "train" / path.name)
    again = ["train", small_recipe(tmp_path, data), "--init", str(tmp_path / "run"), *short, str(tmp_path / "run2")]
    assert main(again) == 0


@pytest.mark.slow
def test_prediction_with_labels(run, shapes, tmp_path, capsys):
    """Every image has its file, so that a prediction can go on; the file of all is made in the end."""
    photos = tmp_path / "photos"
    shutil.copytree(shapes / "images", photos)
    arguments = ["predict", str(run), str(photos), "--write", "coco,labelme", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    together = tmp_path / "out" / "coco" / "annotations.json"
    expected = together.read_text()
    assert len(json.loads(expected)["images"]) == len(list(photos.rglob("*.png")))
    part = next((tmp_path / "out" / "coco" / ".parts").rglob("*.json"))
    part.unlink()
    together.unlink()
    assert "use --overwrite" in error_of(arguments, capsys)
    assert main([*arguments, "--resume", "auto"]) == 0
    assert "1 image (" in capsys.readouterr().out
    assert together.read_text() == expected
    assert "tolerance 1.0, not 2.0" in error_of([*arguments, "--resume", "auto", "--tolerance", "2"], capsys)
    assert "'yolo' is none of index, gray" in error_of([*arguments, "--write", "yolo"], capsys)
    assert "tolerance must be 0 or more" in error_of([*arguments, "--tolerance=-1"], capsys)


@pytest.mark.slow
def test_import_says_what_it_did(tmp_path, capsys):
    source = tmp_path / "labels"
    for name in ("a", "b", "c"):
        write_photo(source / f"{name}.jpg")
    shape = {"label": "car", "points": [[2, 2], [9, 2], [9, 9]], "shape_type": "polygon"}
    other = {"label": "road", "points": [[0, 0], [20, 0], [20, 20]], "shape_type": "polygon"}
    line = {"label": "road", "points": [[0, 0], [20, 0]], "shape_type": "line"}
    for name, shapes in (("a", [other, shape]), ("b", [shape, line])):
        write_json(source / f"{name}.json", {"imagePath": f"{name}.jpg", "shapes": shapes})
    out = str(tmp_path / "out")
    assert main(["data", "import", str(source), "--out", out]) == 0
    text = capsys.readouterr().out
    for line_of in (
        f"labelme JSON: 3 labels, images: 1 train, 1 val, in {out}",
        "labels of two classes overlap:",
        "  car won over road: 36 pixels in 1 image",
        "  1 labels are of the kind line, whose area is not read: road in b.json",
        "  1 images without labels are left out (--empty background takes them as background): ",
    ):
        assert line_of in text
    saved = json.loads((tmp_path / "out" / "import.json").read_text())
    assert saved["overlaps"] == [{"won": "car", "lost": "road", "pixels": 36, "images": 1}]
    assert "--overwrite replaces it" in error_of(["data", "import", str(source), "--out", out], capsys)
    assert "labels xyz is none of coco, labelme" in error_of(
        ["data", "import", str(source), "--out", str(tmp_path / "other"), "--format", "xyz"], capsys
    )
