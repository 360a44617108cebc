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
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.reading import band_values, deep_values

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


@pytest.mark.parametrize("compression", [262, 34661, 4711])  # Kodak's, JBIG, none that there is
def test_compressions_that_no_package_reads_ask_for_none(compression, tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", IDS, photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "m.tif", mode="r+") as file:
        file.pages[0].tags[259].overwrite(compression)
    with pytest.raises(ValueError, match=r"its compression, .*, is none that is read"):
        read_raw_mask(tmp_path / "m.tif", rgb=False)


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


def test_gray_whose_zero_is_white(tmp_path):
    """Images look as they do elsewhere, whatever their bits; of masks the stored numbers count."""
    dark = np.resize(every(1, 2), (8, 9)).astype(np.uint16)
    for bits, kind in ((8, np.uint8), (16, np.uint16), (32, np.uint32)):
        path, most = tmp_path / f"{bits}.tif", (1 << bits) - 1
        tifffile.imwrite(path, (most - dark.astype(np.int64)).astype(kind), photometric="miniswhite")
        found = read_image(path)[..., 0] if bits == 8 else deep_values(path)
        np.testing.assert_array_equal(found, dark)
        np.testing.assert_array_equal(band_values(path, 1)[..., 0], dark)
        np.testing.assert_array_equal(read_raw_mask(path, rgb=False).values, most - dark.astype(np.int64))


def test_netpbm_as_it_is_in_the_file(tmp_path):
    """Pillow stretches the values of PGM files to 255 or 65535."""
    for most in (2, 200, 255, 4095, 65535):
        data = IDS.astype(">u2").tobytes() if most > 255 else IDS.tobytes()
        (tmp_path / "m.pgm").write_bytes(b"P5\n24 16\n%d\n" % most + data)
        np.testing.assert_array_equal(read_raw_mask(tmp_path / "m.pgm", rgb=False).values, IDS)
        (tmp_path / "m.pgm").write_text(f"P2\n24 16\n{most}\n" + " ".join(map(str, IDS.ravel().tolist())))
        np.testing.assert_array_equal(read_raw_mask(tmp_path / "m.pgm", rgb=False).values, IDS)
    values = IDS.astype(np.uint16) * 2000
    (tmp_path / "i.pgm").write_bytes(b"P5\n24 16\n4095\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(deep_values(tmp_path / "i.pgm"), values)
    for most in (65535, 4095):
        colors = np.repeat(values[..., None], 3, axis=2).astype(">u2")
        (tmp_path / "i.ppm").write_bytes(b"P6\n24 16\n%d\n" % most + colors.tobytes())
        with pytest.raises(ValueError, match=r"colors of PPM .* are not read with all their bits; save them as PNG or"):
            read_image(tmp_path / "i.ppm")
    (tmp_path / "m.ppm").write_bytes(b"P6\n24 16\n2\n" + np.repeat(IDS[..., None], 3, axis=2).tobytes())
    with pytest.raises(ValueError, match="its colors go up to 2 and not to 255: save it as PNG"):
        read_raw_mask(tmp_path / "m.ppm", rgb=True)


def test_arrays_of_numpy(tmp_path):
    path = tmp_path / "m.npy"
    for values in (IDS, IDS[..., None], IDS.astype(np.int64), IDS.astype(np.float32)):
        np.save(path, values)
        np.testing.assert_array_equal(read_raw_mask(path, rgb=False).values, IDS)
    np.save(path, IDS > 0)
    np.testing.assert_array_equal(read_raw_mask(path, rgb=False).values, IDS > 0)
    np.save(path, COLORS[IDS])
    np.testing.assert_array_equal(read_raw_mask(path, rgb=True).values, COLORS[IDS])
    for array, rgb, message in (
        (np.eye(3)[IDS], False, r"an array \(16, 24, 3\) of float64; a mask is \(H, W\) of numbers"),
        (IDS, True, "the classes are given as colors"),
        (IDS + 0.5, False, "floats, and not whole numbers"),
        (np.array([{}]), False, "it holds Python objects, which are not read"),
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            read_raw_mask(path, rgb=rgb)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="cannot read mask"):
        read_raw_mask(path, rgb=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty: was it copied to the end"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "`git lfs pull` fetches those"),
        (b"\n<!DOCTYPE html><title>404", "it is a web page"),
        (b"\0\0\0\x18ftypheic", "HEIC image, which is not read: save it as PNG or JPEG"),
        (b"\x93NUMPY\x01\0", "it is an array, and no image: save it as PNG or TIFF"),
        (b"what is this", "of no kind of image that is known, or damaged: open and save it as PNG or TIFF"),
    ],
)
def test_what_is_no_image(content, message, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read image .*a.jpg: .*{message}"):
        read_image(tmp_path / "a.jpg")


def test_complex_numbers_are_no_image(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", np.ones((8, 9), np.complex64))
    with pytest.raises(ValueError, match="complex numbers; save their parts, or their amounts, as bands"):
        read_image(tmp_path / "i.tif", bands=Bands(3, (0.0, 1.0)))
