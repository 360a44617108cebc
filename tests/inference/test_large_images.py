"""Large images, read area by area; and TIFF files of results that have the coordinates of their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmiseg.data import read_image
from rmiseg.data.bands import Bands
from rmiseg.data.classes import class_ids, id_colors
from rmiseg.data.image_files import tiff
from rmiseg.data.image_files.reading import band_values
from rmiseg.data.image_files.tiff import GEO_TAGS, TiffImage
from rmiseg.inference import large
from rmiseg.inference.geotiff import geography_of, tiff_writer
from rmiseg.inference.large import open_large
from rmiseg.inference.tiles import Area

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)
GEOGRAPHY = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
]
AREAS = [Area(0, 0, 70, 90), Area(13, 31, 20, 40), Area(60, 80, 10, 10), Area(0, 17, 1, 1)]


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("options", [
    {"tile": (16, 32), "compression": "zlib", "predictor": 2},
    {"tile": (16, 16), "compression": "zlib", "planarconfig": "separate"},
    {"rowsperstrip": 7, "compression": "zlib"},
    {"rowsperstrip": 9, "planarconfig": "separate"},
    {},
    {"byteorder": ">"},
    {"bigtiff": True, "tile": (32, 32)},
])  # fmt: skip
def test_areas_of_tiff_files(tmp_path, bands, options):
    values = RNG.integers(0, 4096, (70, 90, bands)).astype(np.uint16)
    stored = np.moveaxis(values, -1, 0) if "planarconfig" in options else values
    options = {"planarconfig": "contig", **options}
    if bands == 1:
        stored, options["planarconfig"] = values[..., 0], None
    photometric = "rgb" if bands == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "i.tif", stored, photometric=photometric, **options)
    with TiffImage(tmp_path / "i.tif") as image:
        for area in AREAS:
            part = image.read(area.top, area.left, area.height, area.width)
            np.testing.assert_array_equal(part, values[area.rows, area.columns])
    kind = Bands(3 if bands == 1 else bands, (0.0, 4095.0))
    size, read = open_large(tmp_path / "i.tif", kind)
    assert size == (70, 90)
    whole = read_image(tmp_path / "i.tif", bands=kind)
    for area in AREAS:
        np.testing.assert_array_equal(read(area), whole[area.rows, area.columns])


def test_tiles_are_not_decoded_again_and_again(tmp_path, monkeypatch):
    values = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", values, tile=(16, 16), compression="zlib")
    with TiffImage(tmp_path / "i.tif") as image:
        image.read(0, 0, 16, 16)
        assert image._bytes == 256
        image.read(0, 0, 32, 32)
        assert image._bytes == 1024
        monkeypatch.setattr(tiff, "CACHE", 512)
        image.read()
        assert image._bytes <= 512


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("turn", [1, 6])
def test_whole_files_give_the_same_areas(tmp_path, suffix, turn, monkeypatch):
    monkeypatch.setattr(large, "_through_pyvips", lambda path, bands: None)
    image = Image.fromarray(RNG.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = turn
    image.save(tmp_path / f"i{suffix}", exif=exif)
    size, read = open_large(tmp_path / f"i{suffix}", Bands())
    whole = read_image(tmp_path / f"i{suffix}")
    assert size == whole.shape[:2]
    np.testing.assert_array_equal(read(Area(3, 5, 40, 50)), whole[3:43, 5:55])


@pytest.mark.parametrize(
    ("suffix", "dtype", "bands"), [(".png", np.uint8, 3), (".png", np.uint16, 1), (".jpg", np.uint8, 3)]
)
def test_pyvips_gives_the_same_areas(tmp_path, suffix, dtype, bands):
    pytest.importorskip("pyvips")
    values = RNG.integers(0, np.iinfo(dtype).max, (70, 90, bands)).astype(dtype)
    Image.fromarray(values[..., 0] if bands == 1 else values).save(tmp_path / f"i{suffix}")
    kind = Bands(ranges=(0, 65535) if dtype == np.uint16 else None)
    _, read = large._through_pyvips(tmp_path / f"i{suffix}", kind)
    whole = read_image(tmp_path / f"i{suffix}", bands=kind)
    np.testing.assert_allclose(read(Area(3, 5, 40, 50)).astype(int), whole[3:43, 5:55], atol=1)


@pytest.mark.parametrize("content", ["<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "GIF"])
def test_pyvips_opens_what_is_an_image(tmp_path, content):
    """Not all that it knows, for which it calls other libraries; nor the first of several frames."""
    pytest.importorskip("pyvips")
    frames = [Image.new("L", (9, 9), value) for value in (1, 2)]
    path = tmp_path / "i.png"
    if content == "GIF":
        frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])
    else:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"cannot read image .*i\.png"):
        open_large(path, Bands())


def test_one_large_strip_is_read_as_other_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "_through_pyvips", lambda path, bands: None)
    monkeypatch.setattr(large, "CACHE", 1000)
    values = RNG.integers(0, 256, (70, 90), dtype=np.uint8)
    for name, options in (
        ("one", {"compression": "zlib", "rowsperstrip": 70}),
        ("plain", {}),
        ("small", {"tile": (16, 16)}),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, **options)
        assert (large._in_areas(tmp_path / f"{name}.tif", Bands()) is None) == (name == "one")
        _, read = open_large(tmp_path / f"{name}.tif", Bands())
        np.testing.assert_array_equal(read(AREAS[1])[..., 1], values[AREAS[1].rows, AREAS[1].columns])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_zero_that_is_white(tmp_path, dtype, monkeypatch):
    values = RNG.integers(0, np.iinfo(dtype).max, (70, 90)).astype(dtype)
    tifffile.imwrite(tmp_path / "i.tif", np.iinfo(dtype).max - values, photometric="miniswhite")
    expected = read_image(tmp_path / "i.tif")
    assert abs(int(expected[0, 0, 0]) - values[0, 0] / np.iinfo(dtype).max * 255) < 1
    monkeypatch.setattr(large, "_through_pyvips", lambda path, bands: None)
    if dtype == np.uint16:
        with pytest.raises(ValueError, match="is read through pyvips"):
            open_large(tmp_path / "i.tif", Bands())
    else:
        np.testing.assert_array_equal(open_large(tmp_path / "i.tif", Bands())[1](AREAS[1]), expected[13:33, 31:71])


def test_limits_of_what_is_decoded_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "_through_pyvips", lambda path, bands: None)
    Image.new("RGB", (90, 70)).save(tmp_path / "i.png")
    monkeypatch.setattr(large, "MOST_WHOLE", 6000)
    with pytest.raises(ValueError, match=r"i\.png: it has 90 x 70 pixels, and 6,000 .* at most; a tiled TIFF file"):
        open_large(tmp_path / "i.png", Bands())
    monkeypatch.setattr(large, "MOST_PIXELS", 6000)
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((70, 90), np.uint8))
    with pytest.raises(ValueError, match="90 x 70 pixels"):
        open_large(tmp_path / "i.tif", Bands())
    monkeypatch.setattr(tiff, "MOST_BYTES", 1000)
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((70, 90), np.uint8), compression="zlib", rowsperstrip=70)
    with pytest.raises(ValueError, match="would have to be held at once"):
        band_values(tmp_path / "s.tif", 1)


def test_other_decoders_are_named(tmp_path, monkeypatch):
    """What tifffile cannot decode is left to rasterio, and it is said which extra has it."""
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((70, 90), np.uint8))
    monkeypatch.setattr(tiff, "_is_decoded", lambda tifffile, page: False)
    try:
        import rasterio  # noqa: F401
    except ImportError:
        with pytest.raises(ModuleNotFoundError, match=r"\.\[geo\]"):
            band_values(tmp_path / "i.tif", 1)
    else:
        assert band_values(tmp_path / "i.tif", 1).shape == (70, 90, 1)


def write_ids(path: Path, ids: np.ndarray, geography: list) -> None:
    with tiff_writer(path, ids.shape, id_colors(class_ids(["a", "b"])).tobytes(), geography) as write:
        for top in range(0, len(ids), 50):
            write(ids[top : top + 50])


def test_results_lie_where_their_image_does(tmp_path):
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((70, 90), np.uint16), extratags=GEOGRAPHY)
    ids = RNG.integers(0, 2, (170, 90)).astype(np.uint8)
    write_ids(tmp_path / "o.tif", ids, geography_of(tmp_path / "i.tif"))
    with tifffile.TiffFile(tmp_path / "o.tif") as file:
        page = file.pages[0]
        np.testing.assert_array_equal(page.asarray(), ids)
        assert {code: page.tags[code].value for code in GEO_TAGS if code in page.tags} == {
            code: value for code, _, _, value, _ in GEOGRAPHY
        }
        assert page.colormap[:, 1].tolist() == [128 * 257, 0, 0]
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "o.tif")), ids)


def test_results_of_other_images_have_no_place(tmp_path):
    Image.new("RGB", (90, 70)).save(tmp_path / "i.png")
    assert geography_of(tmp_path / "i.png") == geography_of(None) == []
    writer = tiff_writer(tmp_path / "o.tif", (170, 90), bytes(768), [])
    with pytest.raises(ValueError, match="100 of 170 rows"), writer as write:
        write(np.zeros((100, 90), np.uint8))
    assert list(tmp_path.glob("o*")) == []


def test_rasterio_reads_the_place(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((70, 90), np.uint16), extratags=GEOGRAPHY)
    write_ids(tmp_path / "o.tif", np.zeros((70, 90), np.uint8), geography_of(tmp_path / "i.tif"))
    with rasterio.open(tmp_path / "i.tif") as image, rasterio.open(tmp_path / "o.tif") as result:
        assert result.crs == image.crs
        assert result.crs.to_epsg() == 32633
        assert result.transform == image.transform
        assert result.nodata == 255
