"""Masks whose values are not what programs show, and headers that are not what they seem."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from miniatures import write_image, write_values
from rmiseg.data import check_dataset
from rmiseg.data.checking.inspection import inspect
from rmiseg.data.classes import class_ids
from rmiseg.data.image_files.deep import read_tiff
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.reading import deep_values
from rmiseg.data.images import Sample
from rmiseg.data.training import open_training_data

DEFECT = np.zeros((16, 24), np.uint8)
DEFECT[4:8, 4:8] = 1


def data_set(root: Path, classes: str, write, suffix: str = ".png") -> Path:
    for split in ("train", "val"):
        write_image(root / "images" / split / f"{split}.png")
        (root / "masks" / split).mkdir(parents=True)
        write(root / "masks" / split / f"{split}{suffix}")
    (root / "dataset.yaml").write_text(f"classes: {classes}\n")
    return root


def reversed_palette(path: Path) -> None:
    """As of a picture of black and white that a program gave a palette, the light color first."""
    image = Image.fromarray(1 - DEFECT)
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(path)


def test_black_that_is_not_the_first_class_is_told(tmp_path):
    root = data_set(tmp_path, "[background, defect]", reversed_palette)
    report = check_dataset("folder", root, workers=0)
    (warning,) = report.warnings
    assert "value 0, background, has the color [255, 255, 255]" in warning
    assert "`classes: {background: [0, 0, 0], defect: [255, 255, 255]}`" in warning
    (root / "dataset.yaml").write_text("classes: {background: [0, 0, 0], defect: [255, 255, 255]}")
    report = check_dataset("folder", root, workers=0)
    assert not report.warnings
    assert report.splits[0].class_pixels.tolist() == [DEFECT.size - 16, 16]


def test_black_that_is_ignored_is_not(tmp_path):
    root = data_set(tmp_path, "{white: 0, else: 2}\nignore: 1", reversed_palette)
    assert not any("black" in warning for warning in check_dataset("folder", root, workers=0).warnings)


def test_numbers_of_a_palette_are_not_taken_for_its_levels(tmp_path):
    root = data_set(tmp_path, "{background: 0, defect: 255}", reversed_palette)
    with pytest.raises(ValueError, match=r"classes: \{background: \[0, 0, 0\], defect: \[255, 255, 255\]\}"):
        open_training_data("folder", str(root), ("train", "val"))


def test_stored_values_that_are_mostly_not_zero_where_zero_is_white(tmp_path):
    def fax(path: Path) -> None:  # as ImageMagick and scanners write what shows a white defect on black
        tifffile.imwrite(path, DEFECT == 0, photometric="miniswhite")

    report = check_dataset("folder", data_set(tmp_path / "a", "[background, defect]", fax, ".tif"), workers=0)
    assert ["MinIsWhite" in warning for warning in report.warnings] == [True, True]
    bits = lambda path: tifffile.imwrite(path, DEFECT.astype(bool))  # noqa: E731
    report = check_dataset("folder", data_set(tmp_path / "b", "[background, defect]", bits, ".tif"), workers=0)
    assert not report.warnings


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_band_for_each_class_is_no_mask(tmp_path, dtype):
    """Of bands that are no alpha, Pillow reads the first alone, which is the background."""
    path = tmp_path / "a.tif"
    bands = np.stack([DEFECT == 0, DEFECT], axis=-1).astype(dtype)
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ValueError, match="2 bands that differ"):
        read_raw_mask(path, rgb=False)
    tifffile.imwrite(path, bands[..., [1, 1]], photometric="minisblack", planarconfig="contig")
    assert (read_raw_mask(path, rgb=False).values == DEFECT).all()


def test_halves_are_whole_numbers(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DEFECT.astype(np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (read_raw_mask(path, rgb=False).values == DEFECT).all()


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_what_opencv_writes_needs_no_other_package(tmp_path, shape):
    """16 bits with LZW, which tifffile alone does not unpack."""
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)
    root = data_set(tmp_path, "[background, defect]", lambda path: write_values(path, DEFECT))
    for split in ("train", "val"):
        (root / "images" / split / f"{split}.png").unlink()
        cv2.imwrite(str(root / "images" / split / f"{split}.tif"), values)
    train, _ = open_training_data("folder", str(root), ("train", "val"))
    assert train.bands.ranges is not None
    assert (deep_values(train.samples[0].image) == values[..., :: -1 if len(shape) == 3 else 1]).all()


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[274] = 0
    image, mask = tmp_path / "a.png", write_values(tmp_path / "m.png", DEFECT)
    Image.new("RGB", (24, 16)).save(image, exif=exif)
    assert inspect(Sample("a", image, mask), class_ids(["a", "b"])).orientations is None
    tifffile.imwrite(tmp_path / "a.tif", DEFECT, extratags=[(274, 3, 1, 0, True)])
    assert (read_tiff(tmp_path / "a.tif") == DEFECT).all()


def test_training_on_many_images_warns_too(tmp_path, monkeypatch):
    monkeypatch.setattr("rmiseg.data.training.SAMPLE", 0)
    root = data_set(tmp_path, "[background, defect, other]", reversed_palette)
    (root / "images" / "notes.docx").write_text("")
    stream = io.StringIO()
    monkeypatch.setattr("rmiseg.data.training.spread", lambda size, most: range(size))
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=200))
    assert "is black" in stream.getvalue()
    assert "does not occur" not in stream.getvalue()  # which some masks do not tell


def test_red_and_blue_exchanged(tmp_path):
    """As where OpenCV writes colors that are given as red, green and blue."""

    def blue(path: Path) -> None:
        Image.fromarray(np.where(DEFECT[..., None], [0, 0, 255], 0).astype(np.uint8)).save(path)

    root = data_set(tmp_path, "{background: [0, 0, 0], defect: [255, 0, 0]}", blue)
    with pytest.raises(ValueError, match=r"exchanged.*classes: \{background: \[0, 0, 0\], defect: \[0, 0, 255\]\}"):
        open_training_data("folder", str(root), ("train", "val"))


def test_no_number_is_no_class(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.where(DEFECT, 1, np.nan).astype(np.float32))
    with pytest.raises(ValueError, match="NaN is none, so save a number such as 255"):
        read_raw_mask(tmp_path / "a.tif", rgb=False)
