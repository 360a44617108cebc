"""Common to all formats: limits, splits, names, classes."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmiseg.config import DataImportConfig
from rmiseg.config.registry import names
from rmiseg.data.labels import Documents, import_labels
from rmiseg.data.labels.shapes import exact_polygons
from support.labels import SIZE, imported, write_json, write_photo

SQUARE = [[2, 2], [9, 2], [9, 9], [2, 9]]


def write_labels(folder: Path, labels: dict[str, str], **others: Any) -> Path:
    """labelme's JSON with one label for each image."""
    for name, label in labels.items():
        write_photo(folder / name)
        shape = {"label": label, "points": SQUARE, "shape_type": "polygon"}
        write_json(folder / f"{name}.json", {"imagePath": Path(name).name, "shapes": [shape], **others})
    return folder


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (header, b"IDAT")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(1_000_000, 1_000_000), (20_000, 20_000)])
def test_images_of_absurd_sizes(tmp_path, size):
    source = write_labels(tmp_path / "labels", {"a.png": "car"}, imageWidth=size[0], imageHeight=size[1])
    (source / "a.png").write_bytes(png_header(*size))
    with pytest.raises(ValueError, match=r"cannot read image .*a.png"):
        imported(source)


def test_outlines_that_take_all_memory(tmp_path):
    far = np.array([[-90.0, 0.0], [120.0, 0.0]] * 100_000)
    before = time.perf_counter()
    with pytest.raises(ValueError, match=r"an outline of 4.2e\+07 pixels is longer than any in 32 x 24 pixels"):
        exact_polygons([far], SIZE)
    assert time.perf_counter() - before < 5


def test_nesting_and_archives(tmp_path):
    source = tmp_path / "labels"
    source.mkdir()
    (source / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a.json is (nested too deeply|damaged)"):
        imported(source)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"a.zip is an archive: unpack it"):
        imported(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "\0", "a\0.jpg"])
def test_references_that_are_no_names(tmp_path, name):
    source = write_labels(tmp_path / "labels", {"a.jpg": "car"})
    shape = {"label": "car", "points": SQUARE, "shape_type": "polygon"}
    write_json(source / "a.jpg.json", {"imagePath": name, "shapes": [shape]})
    with pytest.raises(ValueError, match=r"a.jpg.json names the image .*, which is no name of a file"):
        imported(source)


def test_names_that_are_not_utf8(tmp_path):
    """Of images, on file systems that have such names; and of classes."""
    source = write_labels(tmp_path / "labels", {"a.jpg": "car"})
    os.rename(source / "a.jpg", os.fsencode(source) + b"/\xff.jpg")
    shape = {"label": "car", "points": SQUARE, "shape_type": "polygon"}
    write_json(source / "a.jpg.json", {"imagePath": "\udcff.jpg", "shapes": [shape]})
    assert len(imported(source, val=0, copy=True)[1]) == 1
    source = write_labels(tmp_path / "others", {"a.jpg": "\ud800"})
    with pytest.raises(ValueError, match=r"others: the name of the class '\\ud800' is no text"):
        imported(source)


def test_images_stay_in_their_split(tmp_path):
    """When more are labeled; and there is one in each."""
    first = write_labels(tmp_path / "first", {f"{i:03}.jpg": "car" for i in range(40)})
    before = set(imported(first)[1])
    assert 1 <= sum(name.startswith("val") for name in before) <= 20
    more = write_labels(tmp_path / "more", {f"{i:03}.jpg": "car" for i in range(60)})
    assert before < set(imported(more)[1])
    two = write_labels(tmp_path / "two", {"000.jpg": "car", "001.jpg": "car"})
    assert {name.partition("/")[0] for name in imported(two, val=0.01)[1]} == {"train", "val"}


def test_names_that_are_alike(tmp_path):
    labels = dict.fromkeys(["x/a.jpg", "y/a.jpg", "y/a.png", "A.jpg", f"{'n' * 200}1.jpg", f"{'n' * 200}2.jpg"], "car")
    _, masks, _ = imported(write_labels(tmp_path / "labels", labels), val=0)
    assert len(masks) == 6
    assert len({name.lower() for name in masks}) == 6


def test_classes(tmp_path):
    source = write_labels(tmp_path / "labels", {"a.jpg": "car", "b.jpg": "void", "c.jpg": "BG", "d.jpg": "tree"})
    report, masks, classes = imported(source, val=0, classes=["boat", "car"])
    assert classes == ["BG", "boat", "car"]
    assert report.notes == ["of --classes, boat have no labels"]
    assert report.unused.lines()[0].startswith("1 labels are of classes that --classes does not name: tree in d.jpg")
    assert masks["train/a"].max() == 2
    assert masks["train/b"].max() == 255
    assert masks["train/c"].max() == 0
    many = write_labels(tmp_path / "many", {f"{i}.jpg": f"class {i}" for i in range(255)})
    with pytest.raises(ValueError, match="many: 256 classes; there must be 1 to 255"):
        imported(many)


def test_sources_of_two_formats(tmp_path):
    source = write_labels(tmp_path / "labels", {"a.jpg": "car"})
    write_json(source / "z.json", {"images": [], "annotations": [], "categories": []})
    with pytest.raises(ValueError, match=r"of several formats; name one with --format: coco .*, labelme"):
        imported(source)
    report, _, _ = imported(source, format="labelme", val=0)
    assert report.unused.lines()[0].startswith("1 JSON files are not of labelme")
    assert len(names("labels")) == 19


def test_a_failed_import_leaves_the_one_before(tmp_path):
    source = write_labels(tmp_path / "labels", {"a.jpg": "car"})
    config = DataImportConfig(source=str(source), out=str(tmp_path / "out"), overwrite=True)
    import_labels(config)
    (source / "b.jpg.json").write_text("{")
    with pytest.raises(ValueError, match=r"b.jpg.json is damaged"):
        import_labels(config)
    assert (tmp_path / "out" / "dataset.yaml").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "out"]


def test_images_are_looked_up(tmp_path):
    """By the longest part of the path that fits, where several have one name."""
    for name in ("x/one/a.jpg", "x/two/a.jpg", "y/b.jpg"):
        write_photo(tmp_path / name)
    documents = Documents(tmp_path)
    document = tmp_path / "labels" / "labels.json"
    assert documents.find_image("two/a.jpg", document) == tmp_path / "x" / "two" / "a.jpg"
    assert documents.find_image("http://host/b.jpg", document) == tmp_path / "y" / "b.jpg"
    assert documents.find_image("../x/one/a.jpg", document) == tmp_path / "x" / "one" / "a.jpg"
    assert documents.find_image("none.jpg", document) is None
    with pytest.raises(ValueError, match=r"labels.json names the image 'a.jpg', of which there are several"):
        documents.find_image("a.jpg", document)


def test_labels_among_many_other_files(tmp_path):
    source = write_labels(tmp_path / "labels", {"z.jpg": "car"})
    for number in range(30):
        write_json(source / f"{number:02}.json", {"other": number})
    assert imported(source, val=0)[0].format == "labelme"


def test_images_that_are_not_read(tmp_path):
    source = write_labels(tmp_path / "labels", {"a.jpg": "car"})
    text = (source / "a.jpg.json").read_text().replace("a.jpg", "a.heic")
    (source / "a.jpg.json").write_text(text)
    (source / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"a\.heic, which is no image that is read here: convert it, and name the new"):
        imported(source)
