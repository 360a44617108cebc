"""Masks in colors, as CVAT, labelme and VOC lay them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmiseg.data.classes import voc_palette
from support.labels import SIZE, imported, write_photo

LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
car:0,0,142::
road:128,64,128::
"""


def write_masks(root: Path, colors: dict[str, list[tuple[int, int, int]]], folder: str = "SegmentationClass") -> Path:
    """Masks of colors in stripes, and an image for each."""
    for name, stripes in colors.items():
        write_photo(root / "JPEGImages" / f"{name}.jpg")
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stripes_of(stripes).astype(np.uint8)).save(path)
    return root


def stripes_of(values: list) -> np.ndarray:
    return np.array(values)[np.arange(SIZE[0]) * len(values) // SIZE[0]].repeat(SIZE[1], axis=0).reshape(*SIZE, -1)


def test_segmentation_masks_of_cvat(tmp_path):
    source = write_masks(
        tmp_path / "cvat", {"a": [(0, 0, 0), (128, 64, 128), (0, 0, 142)], "b": [(0, 0, 142)], "c": [(0, 0, 0)]}
    )
    write_masks(source, {"a": [(1, 2, 3)]}, "SegmentationObject")
    (source / "labelmap.txt").write_text(LABELMAP)
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nc\n")
    (lists / "val.txt").write_text("b\n")
    _, masks, classes = imported(source)
    assert classes == ["background", "car", "road"]
    np.testing.assert_array_equal(masks["train/a"], stripes_of([0, 2, 1])[..., 0])
    assert set(masks) == {"train/a", "train/c", "val/b"}  # a mask of background alone is a mask
    assert "- [0, 0, 142]" in (tmp_path / "imported" / "dataset.yaml").read_text()


def test_palettes_and_names_of_labelme(tmp_path):
    """Palette PNGs in the colors of VOC, in the order of class_names.txt."""
    source = tmp_path / "labelme"
    write_photo(source / "JPEGImages" / "a.jpg")
    (source / "SegmentationClassPNG").mkdir()
    image = Image.fromarray(stripes_of([0, 1, 2])[..., 0].astype(np.uint8))
    image.putpalette([channel for color in voc_palette(256) for channel in color])
    image.save(source / "SegmentationClassPNG" / "a.png")
    (source / "class_names.txt").write_text("_background_\nzebra\nant\n")
    _, masks, classes = imported(source)
    assert classes == ["background", "zebra", "ant"]
    np.testing.assert_array_equal(masks["train/a"], stripes_of([0, 1, 2])[..., 0])


def test_classes_of_voc(tmp_path):
    source = write_masks(tmp_path / "voc", {"a": [(0, 0, 0), (128, 0, 0), (224, 224, 192), (0, 64, 128)]})
    _, masks, classes = imported(source)
    assert classes == ["background", "aeroplane", "tvmonitor"]
    np.testing.assert_array_equal(masks["train/a"], stripes_of([0, 1, 255, 2])[..., 0])


@pytest.mark.parametrize(
    ("labelmap", "message"),
    [
        ("background:0,0,0::\n", r"a.png has 384 pixels of the color \(9, 9, 9\), which has no name in .*labelmap.txt"),
        ("car:0,0::\n", "labelmap.txt, line 1: 'car:0,0::' is not like"),
        ("car:0,0,256::\n", "labelmap.txt, line 1"),
        ("car:0,0,1::\nroad:0,0,1::\n", "labelmap.txt, line 2: car and road have the same color"),
        (b"stra\xdfe:0,0,0::\n", "labelmap.txt: line 1 is not UTF-8"),
    ],
)
def test_hostile_names(tmp_path, labelmap, message):
    source = write_masks(tmp_path / "cvat", {"a": [(0, 0, 0), (9, 9, 9)]})
    (source / "labelmap.txt").write_bytes(labelmap if isinstance(labelmap, bytes) else labelmap.encode())
    with pytest.raises(ValueError, match=message):
        imported(source)


def test_masks_that_are_none(tmp_path):
    source = write_masks(tmp_path / "cvat", {"a": [(0, 0, 0)]})
    mask = source / "SegmentationClass" / "a.png"
    write_photo(mask)
    with pytest.raises(ValueError, match=r"a.png has \d+ colors: it is no mask"):
        imported(source)
    mask.write_bytes(mask.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot read mask .*a.png"):
        imported(source)
    write_photo(source / "other" / "a.jpg")
    write_masks(source, {"a": [(0, 0, 0)]})
    with pytest.raises(ValueError, match=r"a.png may be of .*a.jpg or .*a.jpg: leave one"):
        imported(source)


def test_masks_in_folders(tmp_path):
    """Those of one name are told by their folders, and so are the lines of lists."""
    names = {"x/a": "train", "y/a": "val", "x/b c": "val", "y/d": "train"}
    source = write_masks(tmp_path / "cvat", {name: [(0, 0, 142)] for name in names})
    (source / "labelmap.txt").write_text(LABELMAP)
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        lines = [f'"{name}"\n' if " " in name else f"{name}\n" for name, each in names.items() if each == split]
        (lists / f"{split}.txt").write_text("".join(lines))
    assert set(imported(source)[1]) == {"train/a", "val/a", "val/b c", "train/d"}
    assert (tmp_path / "imported/images/train/a.jpg").resolve() == source / "JPEGImages" / "x" / "a.jpg"
