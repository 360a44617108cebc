"""Reading images and masks: every usual file format, exactly, and clear errors for the rest."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from miniatures import HEIGHT, WIDTH, write_image, write_mask, write_png
from rmiseg.data import IGNORE_INDEX, ClassTable, Sample, SegmentationDataset, Split, read_image, read_mask
from rmiseg.data.classes import voc_palette


def table(values=(0, 1, 2), ignore=(255,)) -> ClassTable:
    names = tuple(f"c{i}" for i in range(len(values)))
    return ClassTable(names, tuple(values), tuple(ignore), voc_palette(len(values)))


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (5, 7), dtype=np.uint8)


# Masks


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_gray_mask_is_exact(tmp_path, values, suffix):
    values[0, 0] = 255
    path = tmp_path / f"m{suffix}"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_mask(path, table()), values)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palette_mask_gives_indices_not_colors(tmp_path, values, bits):
    image = Image.fromarray(values).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "m.png", bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", table()), values)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_gray_mask_of_few_bits_is_not_stretched(tmp_path, values, bits):
    write_png(tmp_path / "m.png", values, bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", table()), values)


def test_mask_of_one_bit(tmp_path, values):
    Image.fromarray(values > 0).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", table()), values > 0)


def test_values_beyond_a_byte(tmp_path):
    write_png(tmp_path / "m.png", np.array([[1000, 65535, 7]]), 16)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", table((7, 1000), (65535,))), [[1, IGNORE_INDEX, 0]])


def test_values_map_to_ids_in_order():
    ids, unknown = table((0, 255), ()).encode(np.array([[0, 255]], np.uint8))
    assert ids.tolist() == [[0, 1]]
    assert ids.dtype == np.uint8
    assert unknown == {}


def test_negative_and_huge_values_are_unknown():
    ids, unknown = table().encode(np.array([[-1, 0, 70000, 65536]], np.int32))
    assert ids.tolist() == [[255, 0, 255, 255]]
    assert unknown == {-1: 1, 70000: 1, 65536: 1}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_map_to_ids(tmp_path, values, mode):
    colors = np.array([(0, 0, 0), (0, 0, 1), (255, 255, 255)], np.uint8)
    if mode == "P":
        image = Image.fromarray(values).convert("P")
        image.putpalette(colors.ravel().tolist())
    else:
        image = Image.fromarray(colors[values]).convert(mode)
    image.save(tmp_path / "m.png")
    classes = table([tuple(color) for color in colors.tolist()[:2]], [(255, 255, 255)])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", classes), np.where(values == 2, 255, values))


def test_unknown_color_is_named(tmp_path):
    # All classes are small numbers when packed: the table must still take any color.
    Image.fromarray(np.full((2, 3, 3), 250, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"\(250, 250, 250\) \(6 pixels\)"):
        read_mask(tmp_path / "m.png", table([(0, 0, 0), (0, 0, 1)], []))


def test_unknown_value_is_named_with_file_count_and_remedy(tmp_path, values):
    values[1, :3] = 37
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"37 \(3 pixels\)") as error:
        read_mask(tmp_path / "m.png", table())
    for part in ("m.png", "rmiseg data check", "`ignore`", "dataset.yaml"):
        assert part in str(error.value)


def test_color_mask_where_values_are_expected(tmp_path):
    write_image(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png.*mode RGB.*name: \[red, green, blue\]"):
        read_mask(tmp_path / "m.png", table())


# Images


def test_rgb_png_is_exact(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    np.testing.assert_array_equal(read_image(tmp_path / "i.png"), pixels)


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("L", ".png", (100, 100, 100)),
        ("LA", ".png", (100, 100, 100)),
        ("RGBA", ".png", (100, 150, 200)),
        ("P", ".png", (100, 150, 200)),
        ("CMYK", ".jpg", (100, 150, 200)),
        ("CMYK", ".tif", (100, 150, 200)),
        ("L", ".jpg", (100, 100, 100)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix, expected):
    color = {
        "L": 100,
        "LA": (100, 7),
        "RGBA": (100, 150, 200, 7),
        "P": 1,
        "CMYK": (155, 105, 55, 0),
    }[mode]
    image = Image.new(mode, (8, 6), color)
    if mode == "P":
        image.putpalette([0, 0, 0, 100, 150, 200])
    path = tmp_path / f"i{suffix}"
    image.save(path)
    pixels = read_image(path)
    assert pixels.shape == (6, 8, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.reshape(-1, 3).mean(0), expected, atol=2)


def test_16_bits_keep_their_high_byte(tmp_path):
    gray = np.array([[0, 255, 256, 32768, 65535]])
    write_png(tmp_path / "gray.png", gray, 16)
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png")[..., 0], gray >> 8)
    color = np.stack([gray, gray[:, ::-1], gray], axis=-1)
    write_png(tmp_path / "color.png", color, 16, color_type=2)
    np.testing.assert_array_equal(read_image(tmp_path / "color.png"), color >> 8)
    Image.fromarray(gray.astype(np.uint16)).save(tmp_path / "gray.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.tif")[..., 2], gray >> 8)


def test_float_image_is_refused(tmp_path):
    Image.new("F", (3, 3), 0.5).save(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=r"i\.tif.*mode F"):
        read_image(tmp_path / "i.tif")


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = 255  # right half white
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise: right becomes bottom
    image.save(tmp_path / "i.jpg", exif=exif)
    turned = read_image(tmp_path / "i.jpg")
    assert turned.shape == (32, 16, 3)
    assert turned[:14].max() < 30
    assert turned[18:].min() > 225


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("name", ["i.jpg", "turned.jpg", "i.png", "gray16.png"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (43, 75), (1, 9), (7, 3)])
def test_reduced_image_is_the_average_of_squares(tmp_path, name, height, width, reduction):
    y, x = np.mgrid[:height, :width]
    gray = (128 + 80 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    if name == "gray16.png":
        write_png(tmp_path / name, gray.astype(np.uint16) * 257, 16)
    else:
        image = Image.fromarray(np.stack([gray, 255 - gray, gray // 2], axis=-1))
        exif = image.getexif()
        exif[0x0112] = 6 if name == "turned.jpg" else 1
        image.save(tmp_path / name, exif=exif, quality=95, subsampling=0)
    whole, reduced = read_image(tmp_path / name).astype(float), read_image(tmp_path / name, reduction)
    height, width = whole.shape[:2]
    assert reduced.shape == (-(-height // reduction), -(-width // reduction), 3)
    if name != "turned.jpg" or height % 8 == width % 8 == 0:  # else the squares start at the other side
        height, width = height // reduction, width // reduction
        squares = whole[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, 3)
        assert np.abs(reduced[:height, :width] - squares.mean((1, 3))).max(initial=0) <= 4


# Damaged files


@pytest.mark.parametrize("read", [read_image, lambda path: read_mask(path, table())], ids=["image", "mask"])
@pytest.mark.parametrize("content", ["empty", "text", "truncated"])
def test_damaged_file_is_named(tmp_path, read, content):
    path = write_mask(tmp_path / "bad.png", size=(200, 200))
    noise = np.random.default_rng(0).integers(0, 3, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = {"empty": b"", "text": b"not found", "truncated": path.read_bytes()[:2000]}[content]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.png"):
        read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


# ClassTable


@pytest.mark.parametrize(
    ("values", "ignore", "message"),
    [
        ((), (), "0 classes"),
        (range(256), (), "256 classes"),
        ((0, 0), (), "0 is given twice"),
        ((0, 1), (1,), "1 is given twice"),
        ((0, (1, 2, 3)), (), "cannot be mixed"),
        ((0, 1), ((1, 2, 3),), "cannot be mixed"),
        (((0, 0, 256),), (), "three numbers"),
        ((0, 70000), (), "outside -32768 .. 65535"),
        ((0, -32769), (), "outside -32768 .. 65535"),
    ],
)
def test_impossible_classes(values, ignore, message):
    with pytest.raises(ValueError, match=message):
        table(tuple(values), ignore)


def test_255_classes_work():
    classes = table(range(255))
    raw = np.arange(256, dtype=np.uint8)[None]
    ids, unknown = classes.encode(raw)
    np.testing.assert_array_equal(ids, raw)
    assert not unknown


def test_voc_palette():
    palette = voc_palette(255)
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[20] == (0, 64, 128)
    assert len(set(palette)) == 255


# SegmentationDataset


def one_pair(tmp_path, image_size=(WIDTH, HEIGHT), mask_size=(WIDTH, HEIGHT)) -> Split:
    image = write_image(tmp_path / "i.png", size=image_size)
    mask = write_mask(tmp_path / "m.png", size=mask_size)
    return Split("train", (Sample("i", image, mask),), table())


def test_item(tmp_path):
    item = SegmentationDataset(one_pair(tmp_path))[0]
    assert isinstance(item["image"], tv_tensors.Image)
    assert isinstance(item["mask"], tv_tensors.Mask)
    assert item["image"].shape == (3, HEIGHT, WIDTH)
    assert item["mask"].shape == (HEIGHT, WIDTH)
    assert item["image"].dtype == item["mask"].dtype == torch.uint8
    assert item["name"] == "i"
    np.testing.assert_array_equal(item["image"].permute(1, 2, 0), np.asarray(Image.open(tmp_path / "i.png")))


@pytest.mark.parametrize(("mask_size", "hint"), [((10, 9), False), ((HEIGHT, WIDTH), True)])
def test_sizes_that_differ(tmp_path, mask_size, hint):
    with pytest.raises(ValueError, match="24 x 16") as error:
        SegmentationDataset(one_pair(tmp_path, mask_size=mask_size))[0]
    assert f"{mask_size[0]} x {mask_size[1]}" in str(error.value)
    assert "i.png" in str(error.value)
    assert "m.png" in str(error.value)
    assert ("EXIF" in str(error.value)) == hint


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_item_keeps_image_and_mask_together(tmp_path, suffix, reduction):
    ids = np.random.default_rng(0).integers(0, 2, (3, 5), dtype=np.uint8).repeat(16, 0).repeat(16, 1)[:43, :75]
    Image.fromarray(ids).save(tmp_path / "m.png")
    Image.fromarray(255 * ids).convert("RGB").save(tmp_path / f"i{suffix}", quality=95)
    split = Split("train", (Sample("i", tmp_path / f"i{suffix}", tmp_path / "m.png"),), table())
    item = SegmentationDataset(split, reduction=reduction)[0]
    assert item["mask"].shape == item["image"].shape[1:] == (-(-43 // reduction), -(-75 // reduction))
    assert torch.equal(item["image"][1] > 127, item["mask"] > 0)


def test_reduction_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="1, 2, 4 or 8, not 3"):
        SegmentationDataset(one_pair(tmp_path), reduction=3)


def test_seeded_item_leaves_the_global_generator_alone(tmp_path):
    def noise(image, mask):
        return image + torch.randint(0, 9, ()).to(torch.uint8), mask

    dataset = SegmentationDataset(one_pair(tmp_path), noise)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = dataset[(0, 5)]["image"]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, dataset[(0, 5)]["image"])
    assert any(not torch.equal(first, dataset[(0, seed)]["image"]) for seed in range(6, 12))


def test_dataset_travels_to_spawned_workers(tmp_path):
    dataset = SegmentationDataset(one_pair(tmp_path))
    dataset[0]
    data = pickle.dumps(dataset)
    assert len(data) < 10_000
    assert torch.equal(pickle.loads(data)[0]["mask"], dataset[0]["mask"])
