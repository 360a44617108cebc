"""Files that were damaged on their way, and files that are no images whatever they are called."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from miniatures import every, write_image, write_values
from rmiseg.data import check_dataset, read_image
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.opening import FORMATS, image_header, open_image
from rmiseg.data.sets.pairing import IMAGE_SUFFIXES


def flipped(path: Path, name: bytes) -> None:
    """Flip a bit in the middle of a part of a PNG file."""
    data = bytearray(path.read_bytes())
    begin = data.index(name)
    data[begin + 4 + int.from_bytes(data[begin - 4 : begin], "big") // 2] ^= 1
    path.write_bytes(data)


def test_flipped_bits_in_the_pixels_of_a_png(tmp_path):
    image, mask = write_image(tmp_path / "i.png"), write_values(tmp_path / "m.png", every(0, 1))
    for path in (image, mask):
        flipped(path, b"IDAT")
    assert image_header(image).size == (16, 24)
    for read in (lambda: read_image(image), lambda: read_raw_mask(mask, rgb=False)):
        with pytest.raises(ValueError, match=r"it is damaged \(the checksum of its pixels is wrong\).*Copy it again"):
            read()


def test_half_of_a_file_is_zeros(tmp_path):
    """As of copies that were cut off, where the disk had given the room already."""
    path = write_image(tmp_path / "i.png", size=(64, 48))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(ValueError, match="checksum"):
        read_image(path)


def test_many_and_large_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("rmiseg.data.image_files.damage.BLOCK", 7)
    path = tmp_path / "i.png"
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)  # more than Pillow puts into one part
    Image.fromarray(pixels).save(path)
    assert path.read_bytes().count(b"IDAT") > 1
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("content", [b"II*\0\x08\0\0\0", b"MM\0*", b"P5\n10 10\n255\n", b"II*\0" + bytes(40)])
def test_what_decoders_say_of_files_that_break_off(tmp_path, content):
    (tmp_path / "i.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(ValueError, match=r"cannot read image .*i\.png: it is (damaged \(.+\): was|of no kind)"):
            read_image(tmp_path / "i.png")


def test_formats_that_start_programs_are_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png", "EPS")  # for which Pillow would start Ghostscript
    for read in (read_image, image_header):
        with pytest.raises(ValueError, match="of no kind of image that is known"):
            read(tmp_path / "i.png")


@pytest.mark.parametrize("suffix", [each for each in IMAGE_SUFFIXES if each not in (".dcm", ".nii", ".nii.gz")])
def test_all_that_is_called_an_image_is_of_a_format_that_is_read(suffix):
    assert Image.registered_extensions().get(suffix) in FORMATS


def test_a_file_without_permission(tmp_path, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "i.png"))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"i\.png: no permission for .*i\.png"):
        read_image(write_image(tmp_path / "i.png"))


def test_a_damaged_file_is_a_problem_of_the_data_set(tmp_path):
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / f"{split}.png")
        write_values(tmp_path / "masks" / split / f"{split}.png", every(0, 1))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    flipped(tmp_path / "masks" / "val" / "val.png", b"IDAT")
    report = check_dataset("folder", tmp_path, workers=0)
    assert [len(split.unreadable) for split in report.splits] == [0, 1]


def test_pages_that_are_bands_are_not_for_pillow(tmp_path):
    pages = [Image.new("L", (8, 6), value) for value in (1, 2, 3)]
    pages[0].save(tmp_path / "i.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "i.tif", bands=3)
