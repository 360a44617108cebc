"""Regions of ImageJ and Fiji, alone and in archives."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rmiseg.data.labels.shapes import ellipse, exact_polygons
from rmiseg.data.sets.finding import scan_splits
from support.labels import SIZE, imported, write_photo

roifile = pytest.importorskip("roifile")
pytest.importorskip("pycocotools")
TRIANGLE = [[2, 3], [20, 4], [18, 19]]
SMALL = [[22, 5], [27, 5], [27, 10], [22, 10]]
KINDS = {"polygon": 0, "rect": 1, "oval": 2, "line": 3, "polyline": 5, "freehand": 7, "traced": 8, "point": 10}


def encoded(kind, corners=(), box=None, name="", *, position=0, group=0, shape=(), subtype=0) -> bytes:
    """A region as ImageJ's RoiEncoder lays it out: a header, coordinates less those of the box, a second header."""
    corners = np.array(corners, int).reshape(-1, 2)
    left, top, right, bottom = box or (*corners.min(axis=0), *corners.max(axis=0))
    header = bytearray(64)
    struct.pack_into(">4shBxhhhhH", header, 0, b"Iout", 228, KINDS[kind], top, left, bottom, right, len(corners))
    struct.pack_into(">i", header, 36, len(shape))
    struct.pack_into(">h", header, 48, subtype)
    coordinates = (corners - [left, top]).T.astype(">i2").tobytes() + np.array(shape, ">f4").tobytes()
    second, text = bytearray(64), name.encode("utf-16-be")
    start = 64 + len(coordinates)
    struct.pack_into(">ii", header, 56, position, start)
    struct.pack_into(">ii", second, 16, start + 64, len(name))
    struct.pack_into(">B", second, 30, group)
    return bytes(header) + coordinates + bytes(second) + text


def write_set(path: Path, *regions: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, content in enumerate(regions):
            archive.writestr(f"{number:04}-0010-0020.roi", content)
    return path


def pixels(*rings):
    drawn = np.zeros(SIZE, bool)
    for ring in rings:
        drawn ^= exact_polygons([np.array(ring, float)], SIZE)
    return drawn


def test_classes_are_names_or_groups(tmp_path):
    """Names that ImageJ made are none; the number that it adds to one which is there goes, and no other."""
    root = tmp_path / "x"
    write_photo(root / "a.tif")
    strip = [[[left, 21], [left + 2, 21], [left + 2, 23], [left, 23]] for left in range(0, 30, 3)]
    names = ["nucleus", "nucleus-1", "nucleus-1-1", "Layer-1", "Layer-2", "0012-0034", "0012-0034-1", ""]
    regions = [encoded("traced", corners, name=name) for corners, name in zip(strip, names)]
    regions += [encoded("polygon", strip[8], group=3), encoded("polygon", strip[9], name="0007", group=4)]
    write_set(root / "a_RoiSet.zip", *regions)
    report, masks, classes = imported(root, val=0)
    assert report.format == "imagej"
    assert classes == ["background", "Layer-1", "Layer-2", "group 3", "group 4", "nucleus", "object"]
    ids = [int(masks["train/a"][22, 1 + 3 * number]) for number in range(10)]
    assert [classes[each] for each in ids] == [
        *["nucleus"] * 3,
        "Layer-1",
        "Layer-2",
        *["object"] * 3,
        "group 3",
        "group 4",
    ]
    assert any("3 regions without name or group" in note for note in report.notes)


def test_every_kind_with_an_area(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "a.png")
    hole = [[6, 6], [10, 6], [10, 10], [6, 10]]
    path = [part for ring in ([[1, 1], [15, 1], [15, 14], [1, 14]], hole) for part in as_path(ring)]
    regions = [
        encoded("rect", box=(1, 1, 15, 14), shape=path, name="ring"),
        encoded("freehand", TRIANGLE, name="free"),
        encoded("oval", box=(20, 10, 30, 22), name="oval"),
        encoded("rect", box=(22, 2, 28, 6), name="box"),
        encoded("line", box=(1, 1, 5, 5), name="line"),
        encoded("point", [[3, 3]], name="point"),
        encoded("rect", box=(0, 0, 9, 9), subtype=1, name="text"),
        encoded("polygon", SMALL, name="later", position=2),
    ]
    write_set(root / "a.zip", *regions)
    report, masks, classes = imported(root, val=0)
    assert classes == ["background", "free", "oval", "ring"]
    oval = exact_polygons([ellipse([25, 16], [5, 6])], SIZE)
    expected = np.where(oval, 2, np.where(pixels(TRIANGLE), 1, 3 * pixels([[1, 1], [15, 1], [15, 14], [1, 14]], hole)))
    np.testing.assert_array_equal(masks["train/a"], expected)
    unused = "\n".join(report.unused.lines())
    assert "1 labels are boxes, no outlines (--boxes fill takes all of a box): box in a" in unused
    for kind in ("line", "point", "text"):
        assert f"1 labels are of the kind {kind}, whose area is not read" in unused
    assert "1 labels are not on the first plane of their image: 0007-0010-0020 in a.zip" in unused
    assert "box" in imported(root, val=0, boxes="fill")[2]


def as_path(ring):
    steps = [step for x, y in ring[1:] for step in (1, x, y)]
    return [0, *ring[0], *steps, 4]


def test_what_roifile_writes(tmp_path):
    """Coordinates between pixels, too."""
    root, corners = tmp_path / "x", np.array([[2.25, 3.5], [20.5, 4.0], [18.0, 19.75]], np.float32)
    write_photo(root / "cells" / "a.png")
    (root / "cells" / "a.roi").write_bytes(roifile.ImagejRoi.frompoints(corners, name="cell").tobytes())
    _, masks, classes = imported(root, val=0)
    assert classes == ["background", "cell"]
    np.testing.assert_array_equal(masks["train/a"], pixels(corners))


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["a.zip", "b.zip"], {"train/a", "train/b"}),
        (["RoiSet_a.zip", "b.tif-rois.zip"], {"train/a", "train/b"}),
        (["train/a/RoiSet.zip", "train/b/RoiSet.zip"], {"train/a", "train/b"}),
        (["a/0001.roi", "a/0002.roi", "b rois/cell.roi"], {"train/a", "train/b"}),
        (["a.roi", "b.roi"], {"train/a", "train/b"}),
        (["a.zip", "c.zip"], {"train/a"}),
    ],
)
def test_whose_regions_they_are(tmp_path, sets, expected):
    root = tmp_path / "x"
    write_photo(root / "images" / "a.png")
    write_photo(root / "images" / "b.tif")
    for name in sets:
        content = encoded("polygon", TRIANGLE, name="cell")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zip"):
            write_set(root / name, content)
        else:
            (root / name).write_bytes(content)
    report, masks, _ = imported(root, val=0)
    assert masks.keys() == expected
    for mask in masks.values():
        np.testing.assert_array_equal(mask, pixels(TRIANGLE))
    assert ("images are not found" in "".join(report.unused.lines())) == ("c.zip" in sets)


def test_the_only_image_of_a_folder(tmp_path):
    """Of a set whose name says nothing; one whose name is of another image is not that of the one that is there."""
    root = tmp_path / "x"
    write_photo(root / "experiment 7" / "cells.png")
    write_set(root / "experiment 7" / "RoiSet.zip", encoded("polygon", TRIANGLE, name="cell"))
    assert imported(root, val=0)[1].keys() == {"train/cells"}
    (root / "experiment 7" / "RoiSet.zip").rename(root / "experiment 7" / "other.zip")
    with pytest.raises(ValueError, match="no image can be used"):
        imported(root, val=0)


def test_damaged_files(tmp_path):
    root = tmp_path / "x"
    write_photo(root / "a.png")
    whole = encoded("polygon", TRIANGLE, name="cell")
    write_set(root / "a.zip", whole, whole[:70])
    with pytest.raises(ValueError, match=r"a\.zip, 0001-0010-0020: it is damaged, or of a newer ImageJ"):
        imported(root)
    write_set(root / "a.zip", encoded("rect", box=(1, 1, 9, 9), shape=[0, 1, 1, 9, 2], name="ring"))
    with pytest.raises(ValueError, match=r"0000-0010-0020 in a\.zip: its path is damaged"):
        imported(root)
    content = write_set(root / "a.zip", whole).read_bytes()
    (root / "a.zip").write_bytes(content.replace(b"Iout", b"Iowa"))
    with pytest.raises(ValueError, match="damaged archive"):
        imported(root)


def test_whoever_trains_on_it_is_told(tmp_path):
    write_photo(tmp_path / "x" / "a.png")
    write_set(tmp_path / "x" / "a.zip", encoded("polygon", TRIANGLE))
    with pytest.raises(FileNotFoundError, match=r"is read by `rmiseg data import .* --out NEW`") as caught:
        scan_splits("folder", tmp_path / "x")
    assert "unpack" not in str(caught.value)


def test_an_archive_is_named_by_its_folder(tmp_path):
    path = write_set(tmp_path / "RoiSet.zip", encoded("polygon", TRIANGLE))
    with pytest.raises(ValueError, match=r"is an archive.*regions of ImageJ \(RoiSet.zip\) name that which it lies in"):
        imported(path)
