"""Masks in formats beside PNG: those that keep values, and those that do not, whatever they are called."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniatures import every
from rmiseg.data import read_image, read_mask
from rmiseg.data.bands import Bands
from rmiseg.data.classes import ClassTable
from rmiseg.data.reading import deep_values, read_raw_mask

tifffile = pytest.importorskip("tifffile")
IDS = np.resize(np.array([0, 1, 2, 2, 1], np.uint8), (16, 24))
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
CLOSE = ClassTable(("a", "b", "c"), (0, 1, 2), (), ((0, 0, 0),) * 3, nearest=True)
APART = ClassTable(("a", "b"), (0, 255), (), ((0, 0, 0),) * 2, nearest=True)


@pytest.mark.parametrize(("suffix", "options"), [(".gif", {}), (".webp", {"lossless": True}), (".bmp", {})])
def test_gray_and_colors_in_formats_that_keep_them(suffix, options, tmp_path):
    path = tmp_path / f"m{suffix}"
    gray = np.array([0, 127, 255], np.uint8)[IDS]
    image = Image.fromarray(gray)
    (image.convert("RGB") if suffix == ".webp" else image).save(path, **options)
    np.testing.assert_array_equal(read_raw_mask(path, rgb=False).values, gray)
    Image.fromarray(COLORS[IDS]).save(path, **options)
    np.testing.assert_array_equal(read_raw_mask(path, rgb=True).values, COLORS[IDS])


def test_animations_are_no_masks(tmp_path):
    frames = [Image.fromarray(IDS * 100), Image.fromarray(IDS * 80)]
    for suffix in (".gif", ".webp"):
        frames[0].convert("RGB").save(tmp_path / f"m{suffix}", save_all=True, append_images=[frames[1].convert("RGB")])
        with pytest.raises(ValueError, match="2 frames"):
            read_raw_mask(tmp_path / f"m{suffix}", rgb=True)


def jpeg(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path, "JPEG", quality=90)


def webp(path: Path, values: np.ndarray) -> None:
    Image.fromarray(np.repeat(values[..., None], 3, axis=2)).save(path, "WEBP", quality=90, exif=b"Exif\0\0")


def jpeg_in_tiff(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path, "TIFF", compression="jpeg", quality=90)


@pytest.mark.parametrize("write", [jpeg, webp, jpeg_in_tiff])
def test_files_that_keep_values_nearly(write, tmp_path):
    path = tmp_path / "m.png"  # as people rename them
    write(path, IDS)
    for classes in (CLOSE, ClassTable(("a", "b", "c"), (0, 1, 2), (), ((0, 0, 0),) * 3)):
        with pytest.raises(ValueError, match="does not keep mask values exactly: save masks as PNG"):
            read_mask(path, classes)
    ids = np.zeros((16, 24), np.uint8)
    ids[4:12, 8:16] = 1
    write(path, 255 * ids)
    np.testing.assert_array_equal(read_mask(path, APART), ids)


def test_unsigned_values_of_32_bits(tmp_path):
    values = np.resize(np.array([0, 3_000_000_000, 4_294_967_295], np.uint32), (8, 9))
    tifffile.imwrite(tmp_path / "i.tif", values)
    found = deep_values(tmp_path / "i.tif")
    assert found is not None
    np.testing.assert_array_equal(found, values)
    pixels = read_image(tmp_path / "i.tif", bands=Bands(3, (0.0, 4294967295.0)))
    assert pixels[0, :3, 0].tolist() == [0, 178, 255]
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "i.tif", rgb=False).values, values)


def test_no_word_of_the_library_on_more_bands_than_it_reads(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", np.resize(every(1, 2), (8, 9, 8)), photometric="minisblack", planarconfig=1)
    assert read_image(tmp_path / "i.tif", bands=Bands(8)).shape == (8, 9, 8)
    assert not logging.getLogger("PIL.TiffImagePlugin").isEnabledFor(logging.ERROR)
