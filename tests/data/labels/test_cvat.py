"""CVAT's XML of images, against pycocotools, and against CVAT's own code where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from support.labels import SIZE, imported, random_polygon, write_photo


def points(polygon: list[list[float]]) -> str:
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in polygon)


def polygon(label: str, corners: list[list[float]], z_order: int = 0) -> str:
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points(corners)}" z_order="{z_order}"/>'


def write_cvat(root: Path, images: dict[str, str], folder: str = "images", head: str = "") -> Path:
    """A file of annotations, given as the labels of each image, and the images."""
    rows = []
    for number, (name, labels) in enumerate(images.items()):
        write_photo(root / folder / name)
        rows.append(f'<image id="{number}" name="{name}" width="{SIZE[1]}" height="{SIZE[0]}">{labels}</image>')
    labels = "".join(
        f"<label><name>{name}</name><color>{color}</color><attributes></attributes></label>"
        for name, color in (("road", "#804080"), ("car", "#00008e"), ("tree", "#00ff00"))
    )
    text = f"""<?xml version="1.0" encoding="utf-8"?>{head}
    <annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>{"".join(rows)}</annotations>"""
    (root / "annotations.xml").write_text(text)
    return root


def test_polygons_are_those_of_cvat(tmp_path):
    """CVAT draws polygons by pycocotools when it exports masks, and reads its own XML by datumaro."""
    rng = np.random.default_rng(0)
    polygons = {f"{i:02}.png": random_polygon(rng, 3 + i % 6) for i in range(20)}
    source = write_cvat(tmp_path / "cvat", {name: polygon("car", corners) for name, corners in polygons.items()})
    _, masks, _ = imported(source, val=0)
    for name, corners in polygons.items():
        runs = coco_mask.frPyObjects([np.ravel(corners).tolist()], *SIZE)
        np.testing.assert_array_equal(masks[f"train/{name[:2]}"], coco_mask.decode(runs)[..., 0])


def test_polygons_and_masks_as_datumaro_reads_them(tmp_path):
    datumaro = pytest.importorskip("datumaro", exc_type=ImportError)
    tools = pytest.importorskip("datumaro.util.mask_tools", exc_type=ImportError)
    rng = np.random.default_rng(1)
    # It keeps 32 bits of a coordinate, CVAT all: quarters are the same in both.
    labels = {
        f"{i:02}.png": polygon("car", (np.round(np.multiply(random_polygon(rng), 4)) / 4).tolist()) for i in range(8)
    }
    source = write_cvat(tmp_path / "cvat", labels)
    _, masks, _ = imported(source, val=0)
    theirs = datumaro.Dataset.import_from(str(source), "cvat")
    assert len(theirs) == 8
    for item in theirs:
        drawn = tools.rles_to_mask([each.points for each in item.annotations], SIZE[1], SIZE[0])
        np.testing.assert_array_equal(masks[f"train/{item.id}"], drawn)


def test_masks_are_those_of_cvat(tmp_path):
    sdk = pytest.importorskip("cvat_sdk.masks", exc_type=ImportError)
    rng = np.random.default_rng(2)
    images, expected = {}, {}
    for number in range(10):
        region = np.zeros(SIZE, bool)
        region[3:17, 5 : 20 + number] = rng.random((14, 15 + number)) < 0.6
        *counts, left, top, right, bottom = sdk.encode_mask(region)
        place = f'left="{left}" top="{top}" width="{right - left + 1}" height="{bottom - top + 1}"'
        images[f"{number}.png"] = f'<mask label="car" rle="{", ".join(map(str, counts))}" {place} z_order="0"/>'
        expected[f"train/{number}"] = region
    _, masks, _ = imported(write_cvat(tmp_path / "cvat", images), val=0)
    for name, region in expected.items():
        np.testing.assert_array_equal(masks[name], region)


LARGE, SMALL = [[0, 0], [20, 0], [20, 20], [0, 20]], [[5, 5], [9, 5], [9, 9], [5, 9]]


def test_order_and_colors(tmp_path):
    labels = polygon("car", SMALL, z_order=1) + polygon("road", LARGE)
    source = write_cvat(tmp_path / "cvat", {"deep/a.jpg": labels, "b.jpg": ""})
    report, masks, classes = imported(source, val=0)
    assert classes == ["background", "road", "car"]
    assert (masks["train/a"][5:9, 5:9] == 2).all()
    assert (masks["train/a"] == 1).sum() == 400 - 16
    assert report.overlaps == {("car", "road"): (16, 1)}
    assert "- [128, 64, 128]" in (tmp_path / "imported" / "dataset.yaml").read_text()


def test_other_kinds(tmp_path):
    box = '<box label="car" xtl="2" ytl="3" xbr="9" ybr="7" {}z_order="0"/>'
    others = '<polyline label="car" points="1,1;5,5"/><points label="car" points="5,5"/><tag label="car"/>'
    source = write_cvat(
        tmp_path / "cvat", {"a.jpg": box.format(""), "b.jpg": box.format('rotation="90" '), "c.jpg": others}
    )
    report, masks, _ = imported(source, val=0, boxes="fill", empty="background")
    assert masks["train/a"][3:7, 2:9].sum() == masks["train/a"].sum() == 28
    found = np.argwhere(masks["train/b"])
    assert np.ptp(found, axis=0).tolist() == [6, 3]
    assert masks["train/c"].max() == 0
    assert len(report.unused.reasons) == 2


def test_subsets(tmp_path):
    """Images of one name in two subsets, as exports of projects have them."""
    source = write_cvat(tmp_path / "cvat", {"a.jpg": polygon("car", SMALL)}, folder="images/Train")
    write_photo(source / "images" / "Validation" / "a.jpg")
    path = source / "annotations.xml"
    image = path.read_text().partition("<image ")[2].partition("</image>")[0]
    both = "".join(f'<image subset="{subset}" {image}</image>' for subset in ("Train", "Validation"))
    path.write_text(path.read_text().replace(f"<image {image}</image>", both))
    assert set(imported(source)[1]) == {"train/a", "val/a"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            polygon("car", [[0, 0], [float("nan"), 1], [2, 2]]),
            "image a.jpg, polygon 1: a coordinate is",
        ),
        (polygon("car", [[0, 0], [1e12, 1], [2, 2]]), "annotations.xml: image a.jpg: label 1, 'car': the coordinate"),
        ('<polygon label="car" points="1;2;3" z_order="0"/>', "corners must be pairs"),
        (
            '<polygon points="1,1;2,2;3,3" z_order="0"/>',
            "annotations.xml does not hold CVAT's labels: 'label' is missing",
        ),
        ('<mask label="car" rle="1,2" left="0" top="0" width="5000000000" height="9" z_order="0"/>', "does not fit"),
        ('<mask label="car" rle="4" left="30" top="0" width="2" height="2" z_order="0"/>', None),
        (
            '<mask label="car" rle="8" left="30" top="0" width="4" height="2" z_order="0"/>',
            "does not fit",
        ),
        ('<mask label="car" rle="9e99" left="0" top="0" width="2" height="2" z_order="0"/>', "a run length must be"),
        ("<polygon", "annotations.xml is damaged"),
    ],
)
def test_hostile_labels(tmp_path, labels, message):
    source = write_cvat(tmp_path / "cvat", {"a.jpg": labels})
    if message is None:
        with pytest.raises(ValueError, match="no label covers a pixel of its image"):
            imported(source)
        return
    with pytest.raises(ValueError, match=message):
        imported(source)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>', "declares a document type or entities"),
        ("<annotations><track/></annotations><!--", "is damaged"),
    ],
)
def test_hostile_files(tmp_path, head, message):
    source = write_cvat(tmp_path / "cvat", {"a.jpg": ""}, head=head)
    with pytest.raises(ValueError, match=f"annotations.xml {message}"):
        imported(source)


def test_names_that_lead_outside(tmp_path):
    source = write_cvat(tmp_path / "cvat", {"a.jpg": polygon("car", SMALL)})
    path = source / "annotations.xml"
    path.write_text(path.read_text().replace('name="a.jpg"', 'name="../../a.jpg"'))
    with pytest.raises(ValueError, match=r"names the image '../../a.jpg', which lies outside"):
        imported(source)


def test_frames_of_a_video(tmp_path):
    """CVAT leaves out the suffix of their names, and writes the files in capitals."""
    source = write_cvat(tmp_path / "cvat", {"x/frame_0.PNG": polygon("car", SMALL), "y/frame_0.PNG": ""})
    text = (source / "annotations.xml").read_text()
    (source / "annotations.xml").write_text(text.replace(".PNG", ""))
    _, masks, _ = imported(source, val=0, empty="background")
    assert {name: bool(mask.any()) for name, mask in masks.items()} == {
        "train/x_frame_0": True,
        "train/y_frame_0": False,
    }


def test_names_with_blanks_at_the_end(tmp_path):
    """They are those of the list of labels, and have its color."""
    source = write_cvat(tmp_path / "cvat", {"a.jpg": polygon("car ", SMALL)})
    assert imported(source, val=0)[2] == ["background", "car"]
    assert "- [0, 0, 142]" in (tmp_path / "imported" / "dataset.yaml").read_text()
