"""Images of more than 8 bits: read as they are, and scaled by one range everywhere."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from miniatures import every, write_image, write_png, write_values
from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data import ClassTable, check_dataset, class_ids, load_split, open_training_data, read_image, read_mask
from rmiseg.data.band_choice import choose_bands
from rmiseg.data.bands import Bands, checked_range
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.opening import has_deep_values
from rmiseg.data.image_files.reading import deep_values

CASES = Path(__file__).parents[1] / "cases"
RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(255 * np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)).astype(np.uint8)


def test_12_bits_take_their_range_from_the_training_images():
    split = load_split("folder", CASES / "bit12", "train")
    bands, (note,) = choose_bands(split)
    assert "images of uint16: the values 995 to 2086" in note
    assert len(np.unique(split.read_image(0))) == 6
    pixels = split.with_bands(bands).read_image(0)
    assert len(np.unique(pixels)) > 200
    values = np.asarray(Image.open(split.samples[0].image))
    np.testing.assert_allclose(pixels[..., 0], scaled(values, *bands.ranges), atol=1)


def test_dataset_yaml_gives_the_range(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        values = np.linspace(0, 4095, 24 * 16).reshape(16, 24).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "images" / split / "a.tif")
        write_values(tmp_path / "masks" / split / "a.png", values > 2000)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nrange: [0, 4095]")
    train, val = open_training_data("folder", str(tmp_path), ("train", "val"))
    np.testing.assert_array_equal(val.read_image(0)[..., 0], scaled(values, 0, 4095))
    train, val = open_training_data("folder", str(tmp_path), ("train", "val"), value_range=(0, 8190))
    assert train.bands.ranges == val.bands.ranges == (0, 8190)
    assert train.read_image(0).max() == 128
    assert check_dataset("folder", tmp_path, workers=0).problem_count == 0


def test_8_bits_have_no_range(split_root):
    train, _ = open_training_data("folder", str(split_root), ("train", "val"))
    assert train.bands.ranges is None
    path = train.samples[0].image
    np.testing.assert_array_equal(read_image(path, bands=Bands(ranges=(0, 4095))), read_image(path))


@pytest.mark.parametrize("reduction", [1, 2])
def test_floats(tmp_path, reduction):
    values = np.linspace(-0.1, 0.6, 48, dtype=np.float32).reshape(6, 8)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "i.tif")
    pixels = read_image(tmp_path / "i.tif", reduction, Bands(ranges=(0.0, 0.5)))
    assert pixels.shape == (6 // reduction, 8 // reduction, 3)
    if reduction == 1:
        np.testing.assert_allclose(pixels[1:, :, 0], scaled(values[1:], 0, 0.5), atol=1)
        assert pixels[0, 0, 0] == 0


def test_colors_of_16_bits_have_all_their_bits(tmp_path):
    write_png(tmp_path / "i.png", COLORS, 16, color_type=2)
    np.testing.assert_array_equal(deep_values(tmp_path / "i.png"), COLORS)
    np.testing.assert_allclose(
        read_image(tmp_path / "i.png", bands=Bands(ranges=(1000, 3000))), scaled(COLORS, 1000, 3000), atol=1
    )


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_16_bit_colors(tmp_path, layout, order, compression):
    tifffile = pytest.importorskip("tifffile")
    stored = COLORS if layout == "contig" else np.moveaxis(COLORS, -1, 0)
    options = {"photometric": "rgb", "planarconfig": layout, "byteorder": order, "compression": compression}
    tifffile.imwrite(tmp_path / "i.tif", stored, **options)
    np.testing.assert_array_equal(deep_values(tmp_path / "i.tif"), COLORS)
    np.testing.assert_array_equal(read_image(tmp_path / "i.tif"), COLORS >> 8)


def test_tiff_of_float_colors(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = RNG.random((5, 7, 3), dtype=np.float32)
    tifffile.imwrite(tmp_path / "i.tif", values, photometric="rgb")
    np.testing.assert_allclose(read_image(tmp_path / "i.tif", bands=Bands(ranges=(0, 1))), scaled(values, 0, 1), atol=1)
    with pytest.raises(ValueError, match=r"i\.tif.*no defined range.*range: \["):
        read_image(tmp_path / "i.tif")
    tifffile.imwrite(tmp_path / "five.tif", RNG.random((5, 7, 5), dtype=np.float32), planarconfig="contig")
    with pytest.raises(ValueError, match="5 bands"):
        read_image(tmp_path / "five.tif", bands=Bands(ranges=(0, 1)))


def test_what_a_range_may_be():
    assert checked_range([0, 4095]) == (0.0, 4095.0)
    for wrong in ([1], [2, 1], [0, "x"], [0, float("inf")], [0, 1, 2]):
        with pytest.raises(ValueError, match="two numbers"):
            checked_range(wrong)


def test_range_is_stored_with_the_model(tmp_path):
    """In the checkpoint, and so in what predicts, evaluates and is exported."""
    import torch

    from rmiseg.inference.checkpoint import load_checkpoint
    from rmiseg.inference.predictor import Predictor
    from rmiseg.inference.segmenter import Segmenter
    from support.checkpoints import save_untrained

    config = ModelConfig(name="deeplabv3", backbone="resnet18", weights="none", output_stride=32)
    data = DataConfig(root=str(CASES / "bit12"), val_split="train", value_range=(0.0, 4095.0))
    classes = load_split("folder", CASES / "bit12", "train").classes
    checkpoint = load_checkpoint(save_untrained(tmp_path / "c.pt", classes, config, data))
    split = checkpoint.load_split()
    assert split.bands.ranges == (0.0, 4095.0)
    predictor = Predictor(checkpoint, "cpu")
    from_file, from_values = predictor(split.samples[0].image), predictor(deep_values(split.samples[0].image))
    np.testing.assert_array_equal(from_file, predictor(split.read_image(0)))
    np.testing.assert_array_equal(from_file, from_values)
    segmenter = Segmenter.from_checkpoint(checkpoint)
    assert segmenter.to_checkpoint().data.value_range == (0.0, 4095.0)
    from rmiseg.exports.common import metadata

    assert metadata(segmenter)["value_range"] == "[0.0, 4095.0]"
    assert torch.is_tensor(segmenter.center)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ranges", [None, "full"])
def test_images_whose_zero_is_white_are_read_as_they_look(tmp_path, dtype, ranges):
    tifffile = pytest.importorskip("tifffile")
    most = np.iinfo(dtype).max
    values = RNG.integers(0, most, (5, 9), endpoint=True).astype(dtype)
    tifffile.imwrite(tmp_path / "i.tif", most - values, photometric="miniswhite")
    pixels = read_image(tmp_path / "i.tif", bands=Bands(ranges=(0, int(most)) if ranges else None))
    np.testing.assert_allclose(pixels[..., 1], values / most * 255, atol=1)


# Masks


def test_stored_bit_of_a_1_bit_mask_counts(tmp_path):
    split = load_split("folder", CASES / "miniswhite1", "train")
    assert (split.read_mask(0) == 1).mean() == pytest.approx(0.0574, abs=1e-3)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_min_is_white(tmp_path, dtype, compression):
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 2, (5, 9)).astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", values, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "m.tif", rgb=False).values, values)


@pytest.mark.parametrize("suffix", [".tif", ".gif"])
def test_several_images_in_a_file_are_refused_with_their_number(tmp_path, suffix):
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 90, 200)]
    pages[0].save(tmp_path / f"i{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=rf"i\{suffix}: it holds 3 (pages|frames)"):
        read_image(tmp_path / f"i{suffix}")
    with pytest.raises(ValueError, match=rf"i\{suffix}: it holds 3 (pages|frames)"):
        read_raw_mask(tmp_path / f"i{suffix}", rgb=False)


def test_a_few_deep_images_among_many_are_told(tmp_path, monkeypatch):
    """Where those that are looked at to find the range have 8 bits."""
    monkeypatch.setattr("rmiseg.data.band_choice.SAMPLE", 2)
    for number in range(5):
        write_image(tmp_path / "images" / "train" / f"{number}.png")
        write_values(tmp_path / "masks" / "train" / f"{number}.png", np.roll(every(0, 1), number))
    write_image(tmp_path / "images" / "val" / "v.png")
    write_values(tmp_path / "masks" / "val" / "v.png", every(0, 1))
    Image.fromarray(np.full((16, 24), 4000, np.uint16)).save(tmp_path / "images" / "train" / "2.png")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    stream = io.StringIO()
    open_training_data("folder", str(tmp_path), ("train", "val"), console=Console(file=stream, width=2000))
    for text in (stream.getvalue(), check_dataset("folder", tmp_path, workers=0).warnings[0]):
        assert "train: 1 image of more than 8 bits among others of 8" in text
        assert "`range: [0, 4095]`" in text
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nrange: [0, 4095]")
    assert check_dataset("folder", tmp_path, workers=0).warnings == []
    assert load_split("folder", tmp_path, "train").read_image(2).min() > 240


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "i.tif") as file:
        file.write(np.full((8, 8), 7, np.uint8))
        file.write(np.full((4, 4), 7, np.uint8), subfiletype=1)
    assert read_image(tmp_path / "i.tif").shape == (8, 8, 3)
    assert read_raw_mask(tmp_path / "i.tif", rgb=False).values.shape == (8, 8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_gray_that_was_saved_as_colors(tmp_path, mode):
    values = RNG.integers(0, 3, (5, 7), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "m.png", rgb=False).values, values)
    write_png(tmp_path / "deep.png", np.repeat(values[..., None].astype(np.uint16), 3, -1), 16, color_type=2)
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "deep.png", rgb=False).values, values)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint32", "int16", "int8"])
def test_whole_numbers_of_any_type_are_masks(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    values = np.array([[0, 1, 2], [2, 1, 0]])
    tifffile.imwrite(tmp_path / "m.tif", values.astype(dtype))
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "m.tif", rgb=False).values, values)
    if dtype.startswith("float"):
        tifffile.imwrite(tmp_path / "m.tif", (values + 0.5).astype(dtype))
        with pytest.raises(ValueError, match="not whole numbers"):
            read_raw_mask(tmp_path / "m.tif", rgb=False)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_values_below_0_may_be_ignored(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "m.tif", np.array([[0, 1, -1]], dtype))
    classes = ClassTable(("a", "b"), (0, 1), (-1,), ((0, 0, 0), (1, 1, 1)))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif", classes), [[0, 1, 255]])
    with pytest.raises(ValueError, match=r"neither a class nor ignored: -1 \(1 pixels\)"):
        read_mask(tmp_path / "m.tif", class_ids(["a", "b"]))


def test_images_of_more_bits_than_those_of_the_training_are_told(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "16.png")
    assert has_deep_values(tmp_path / "16.png")
    assert not has_deep_values(tmp_path / "8.png")
    assert not has_deep_values(tmp_path / "none.png")


def test_bits_of_bands_that_pillow_does_not_read(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for kind in (np.uint8, np.uint16, np.float32):
        path = tmp_path / "bands.tif"
        tifffile.imwrite(path, np.ones((5, 8, 6), kind), photometric="minisblack", planarconfig="separate")
        assert has_deep_values(path) == (kind != np.uint8)
