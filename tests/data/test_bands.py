"""Images of 1 to 16 bands, of 8 and 16 bits and floats: reading them, and what is decided on them before a training."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torchvision import tv_tensors

from miniatures import every, write_png, write_values
from rmiseg.config import DataConfig
from rmiseg.data import OwnImages, check_dataset, load_split, normalize, open_training_data, read_image
from rmiseg.data.band_choice import choose_bands
from rmiseg.data.bands import Bands, checked_bands, checked_ranges, scaled_values
from rmiseg.data.image_files.deep import RangeFinder, turned
from rmiseg.data.image_files.reading import band_values
from rmiseg.data.transforms.pipeline import ColorJitter, train_transform

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)


def values_of(bands: int, dtype: str, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    if dtype == "float32":
        return RNG.random((*size, bands), dtype=np.float32)
    return RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (*size, bands)).astype(dtype)


def write_tiff(path: Path, values: np.ndarray, layout: str = "contig", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = values if layout == "contig" else np.moveaxis(values, -1, 0)
    options = {"photometric": "minisblack", "planarconfig": layout, **options}
    if values.shape[-1] == 1:
        stored, options["planarconfig"] = values[..., 0], None
    tifffile.imwrite(path, stored, **options)


def data_set(root: Path, *images: np.ndarray, yaml: str = "", suffix: str = ".tif", **options: object) -> Path:
    """A data set of TIFF files, the last of which is in val, too."""
    for index, values in enumerate([*images, images[-1]]):
        split = "val" if index == len(images) else "train"
        write_tiff(root / "images" / split / f"{index}{suffix}", values, **options)
        write_values(root / "masks" / split / f"{index}.png", np.resize(every(0, 1), values.shape[:2]))
    (root / "dataset.yaml").write_text(f"classes: [a, b]\n{yaml}")
    return root


def said(root: Path) -> str:
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=400))
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 4, 5, 13, 16])
@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_values_of_tiff_files(tmp_path, bands, dtype, layout):
    values = values_of(bands, dtype)
    write_tiff(tmp_path / "i.tif", values, layout, compression="zlib")
    np.testing.assert_array_equal(band_values(tmp_path / "i.tif", bands), values)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation(tmp_path, orientation):
    values = values_of(5, "uint16")
    write_tiff(tmp_path / "i.tif", values, extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(band_values(tmp_path / "i.tif", 5), turned(values, orientation))


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
@pytest.mark.parametrize(("bands", "color_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_values_of_png_files(tmp_path, bands, color_type, bits, dtype):
    values = values_of(bands, np.dtype(dtype).name)
    write_png(tmp_path / "i.png", values[..., 0] if bands == 1 else values, bits, color_type=color_type)
    found = band_values(tmp_path / "i.png", bands)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == dtype
    if bands in (2, 4):  # alpha is left out where it is not asked for
        np.testing.assert_array_equal(band_values(tmp_path / "i.png", bands - 1), values[..., :-1])


def test_gray_with_alpha_of_16_bits_keeps_its_bits(tmp_path):
    values = RNG.integers(0, 4096, (6, 8, 2)).astype(np.uint16)
    write_png(tmp_path / "i.png", values, 16, color_type=4)
    pixels = read_image(tmp_path / "i.png", bands=Bands(ranges=(0, 4095)))
    np.testing.assert_allclose(pixels[..., 1], 255 * values[..., 0].astype(float) / 4095, atol=1)


def test_signed_bytes_do_not_wrap(tmp_path):
    values = np.arange(-24, 24, dtype=np.int8).reshape(6, 8)
    tifffile.imwrite(tmp_path / "i.tif", values)
    pixels = read_image(tmp_path / "i.tif", bands=Bands(ranges=(-24, 23)))
    assert (np.diff(pixels[..., 0].ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("found", [2, 4, 5])
def test_other_bands_than_expected_are_refused(tmp_path, found):
    write_tiff(tmp_path / "i.tif", values_of(found, "uint8"))
    with pytest.raises(ValueError, match=rf"i\.tif: it has {found} bands, and gray or RGB is expected"):
        read_image(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=rf"it has {found} bands, and 6 are expected"):
        read_image(tmp_path / "i.tif", bands=Bands(6))


def test_each_band_gets_its_own_range(tmp_path):
    images = [values_of(5, "uint16", (32, 32)) // np.array([1, 2, 4, 8, 100]) + 7 for _ in range(3)]
    root = data_set(tmp_path, *(each.astype(np.uint16) for each in images))
    text = said(root)
    assert "images of 5 bands, of which 1, 2, 3 are red, green and blue in pictures" in text
    assert "of each band the percentiles 0.1 and 99.9 of 3 training images become 0 and 255 (1: " in text
    train, val = open_training_data("folder", str(root), ("train", "val"))
    assert train.bands == val.bands
    assert train.bands.count == len(train.bands.ranges) == 5
    pixels = train.read_image(0)
    assert pixels.shape == (32, 32, 5)
    assert (pixels.reshape(-1, 5).min(axis=0) < 4).all()
    assert (pixels.reshape(-1, 5).max(axis=0) > 251).all()
    report = check_dataset("folder", root, workers=0)
    assert report.problem_count == 0
    assert "images of 5 bands" in report.splits[0].notes[0]
    halves = train.read_image(0, 2)
    np.testing.assert_allclose(halves, pixels.reshape(16, 2, 16, 2, 5).mean(axis=(1, 3)), atol=1)


def test_8_bits_are_read_as_they_are(tmp_path):
    values = values_of(4, "uint8")
    train, _ = open_training_data("folder", str(data_set(tmp_path, values)), ("train", "val"))
    assert train.bands == Bands(4)
    np.testing.assert_array_equal(train.read_image(0), values)


@pytest.mark.parametrize(
    ("yaml", "bands"),
    [
        ("bands: {red: 3, green: 2, blue: 1}", Bands(5, picture=(2, 1, 0))),
        ("bands: {red: 4, green: 2, blue: 1}", Bands(5, picture=(3, 1, 0))),
        ("bands: {red: 4, green: 2, blue: 1, count: 5}", Bands(5, picture=(3, 1, 0))),
        ("bands: 5", Bands(5)),
        ("bands: {red: 3, green: 2, blue: 1, nir: 5}\nrange: [0, 9]", Bands(5, (0, 9), (2, 1, 0))),
        ("range: [[0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]", Bands(5, tuple((0, high) for high in range(1, 6)))),
    ],
)
def test_dataset_yaml_says_what_bands_there_are(tmp_path, yaml, bands):
    train, _ = open_training_data("folder", str(data_set(tmp_path, values_of(5, "uint8"), yaml=yaml)), ("train", "val"))
    assert train.bands == bands


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (0, "1 to 16"),
        ({"red": 1, "green": 2}, "names no blue"),
        ({"red": 0, "green": 1, "blue": 2}, "counted from 1"),
        ({"red": 3, "green": 2, "blue": 1, "count": 2}, "the band 3 of 2"),
        ("RGB", "must be the number"),
    ],
)
def test_what_bands_may_be(entry, message):
    with pytest.raises(ValueError, match=message):
        checked_bands(entry)
    with pytest.raises(ValueError, match="2 ranges of values for 3 bands"):
        checked_ranges([[0, 1], [0, 1]], 3)


def test_images_of_different_bands_are_refused(tmp_path):
    root = data_set(tmp_path, values_of(4, "uint8"), values_of(5, "uint8"))
    with pytest.raises(ValueError, match=r"0\.tif has 4 bands, and .*1\.tif has 5"):
        said(root)


def test_other_bands_in_the_split_to_score_on_are_told_before_training(tmp_path):
    root = data_set(tmp_path, values_of(4, "uint8"))
    write_tiff(root / "images" / "val" / "1.tif", values_of(5, "uint8"))
    with pytest.raises(ValueError, match=r"1\.tif of val: it has 5 bands, and 4 are expected"):
        said(root)


def test_gray_and_colors_stay_three_bands(tmp_path):
    root = data_set(tmp_path, values_of(1, "uint8"), values_of(3, "uint8"), photometric=None)
    train, _ = open_training_data("folder", str(root), ("train", "val"))
    assert train.bands == Bands()
    assert train.read_image(0).shape[-1] == 3


def test_a_band_that_is_called_alpha_is_named(tmp_path):
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    root = data_set(tmp_path / "a", values_of(4, "uint8"), **options)
    assert "has a band that it calls alpha, which is left out" in said(root)
    assert load_split("folder", root, "train").read_image(0).shape[-1] == 3
    opaque = values_of(4, "uint8")
    opaque[..., 3] = 255
    assert "alpha" not in said(data_set(tmp_path / "b", opaque, **options))
    root = data_set(tmp_path / "c", values_of(4, "uint8"), yaml="bands: 4", **options)
    assert "alpha" not in said(root)
    assert load_split("folder", root, "train").read_image(0).shape[-1] == 4


def test_bands_that_are_named_are_there(tmp_path):
    """A mapping says which bands there are at least: alpha is one of them where it takes that, but never two."""
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    yaml = "bands: {red: 1, green: 2, blue: 3, nir: 4}"
    root = data_set(tmp_path / "a", values_of(4, "uint8", (32, 32)), yaml=yaml, **options)
    assert "images of 4 bands, of which 1, 2, 3 are" in (text := said(root))
    assert "alpha" not in text
    (root / "dataset.yaml").write_text("classes: [a, b]\nbands: {red: 5, green: 2, blue: 3}\n")
    with pytest.raises(ValueError, match=r"0\.tif has 4 bands, but dataset\.yaml names the band 5"):
        said(root)


def test_pages_are_bands_where_that_is_said(tmp_path):
    values = values_of(5, "uint16")
    (tmp_path / "images" / "train").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "i.tif", np.moveaxis(values, -1, 0), photometric="minisblack")
    np.testing.assert_array_equal(band_values(tmp_path / "i.tif", 5), values)
    with pytest.raises(ValueError, match=r"holds 5 pages.*`bands: 5`"):
        read_image(tmp_path / "i.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", ["3", "{red: 3, green: 2, blue: 1}", "5"])
def test_pages_from_check_to_training(tmp_path, bands, dtype):
    count = 5 if bands == "5" else 3
    values = values_of(count, dtype)
    root = data_set(tmp_path, values, yaml=f"bands: {bands}")
    for path in root.glob("images/*/*.tif"):
        tifffile.imwrite(path, np.moveaxis(values, -1, 0), photometric="minisblack")
    assert check_dataset("folder", root, workers=0).problem_count == 0
    for split in open_training_data("folder", str(root), ("train", "val")):
        assert split.bands.count == count
        pixels = split.read_image(0)
        if dtype == "uint8":
            np.testing.assert_array_equal(pixels, values)
        else:
            assert split.bands.ranges is not None
            assert (pixels == 255).any()
    (root / "dataset.yaml").write_text("classes: [a, b]")
    with pytest.raises(ValueError, match=rf"holds {count} pages.*write `bands: {count}` into dataset.yaml"):
        open_training_data("folder", str(root), ("train", "val"))


def test_numbers_far_away_do_not_overflow():
    values = np.array([[-3.4e38, 0, 0.5, 1, np.nan, np.inf]], np.float32)
    with np.errstate(all="raise"):
        assert scaled_values(values, (0.0, 1.0)).tolist() == [[0, 0, 128, 255, 0, 255]]


def test_a_value_for_no_data_does_not_set_the_range(tmp_path):
    values = RNG.random((40, 40, 1), dtype=np.float32)
    values[:4] = -9999
    text = said(data_set(tmp_path / "far", values))
    assert "-9999 is left out" in text
    train, _ = open_training_data("folder", str(tmp_path / "far"), ("train", "val"))
    low, high = train.bands.ranges
    assert 0 <= low < 0.1
    assert 0.9 < high <= 1
    near = RNG.integers(1, 200, (40, 40, 1)).astype(np.uint16)
    near[:4] = 0
    text = said(data_set(tmp_path / "tag", near, extratags=[(42113, "s", 0, "0", True)]))
    assert "0 is left out" in text
    two = RangeFinder(apart=False)
    two.add(np.array([0, 1000], np.uint16))  # nothing to leave out of two values
    assert two.ranges()[0] < 10
    assert two.ranges()[1] > 990


def test_jitter_of_bands():
    image = tv_tensors.Image(torch.full((5, 8, 8), 100, dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.zeros(8, 8, dtype=torch.uint8))
    changed, same = ColorJitter(0.5)(image, mask)
    assert len({int(band[0, 0]) for band in changed}) > 1
    assert changed.min() >= 49
    assert changed.max() <= 151
    assert torch.equal(same, mask)
    crop, _ = train_transform((6, 6), color_jitter=0.2, fill=[1, 2, 3, 4, 5])(image, mask)
    assert crop.shape == (5, 6, 6)
    assert normalize(changed, [0.5] * 5, [0.2] * 5).shape == (5, 8, 8)
    with pytest.raises(ValueError, match="5 numbers each"):
        normalize(changed, [0.5] * 3, [0.2] * 3)


def test_own_images_of_several_bands():
    item = (np.zeros((4, 6, 7), np.uint8), np.zeros((4, 6), np.int64))
    images = OwnImages([item], ["a", "b"], bands=Bands(7))
    assert images.read(0)[0].shape == (4, 6, 7)
    with pytest.raises(ValueError, match=r"not \(H, W, 5\)"):
        OwnImages([item], ["a", "b"], bands=Bands(5)).read(0)


def test_pictures_of_bands():
    pixels = np.arange(5, dtype=np.uint8).reshape(1, 1, 5)
    assert Bands(5, picture=(4, 2, 0)).picture_of(pixels).tolist() == [[[4, 2, 0]]]
    assert Bands(5).picture_of(pixels).tolist() == [[[0, 1, 2]]]
    assert Bands(1).picture_of(pixels[..., :1]).tolist() == [[[0, 0, 0]]]
    options = DataConfig(bands=5, picture=(3, 2, 1), value_range=((0.0, 1.0),) * 5)
    assert Bands.of(options).options() == {"bands": 5, "picture": (3, 2, 1), "value_range": ((0.0, 1.0),) * 5}


def test_choice_of_a_recipe_comes_first(tmp_path):
    split = load_split("folder", data_set(tmp_path, values_of(4, "uint16"), yaml="bands: 4"), "train")
    bands, _ = choose_bands(split, ranges=(0, 100), picture=(3, 2, 1))
    assert bands == Bands(4, (0, 100), (3, 2, 1))
    with pytest.raises(ValueError, match="5, 2, 1, of 4"):
        choose_bands(split, picture=(4, 1, 0))


def test_image_of_palette_with_bands_of_one(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "i.png")
    assert read_image(tmp_path / "i.png", bands=Bands(1)).shape == (6, 8, 1)
