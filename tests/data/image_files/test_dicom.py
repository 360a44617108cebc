"""Slices in DICOM files."""

from __future__ import annotations

import numpy as np
import pytest

from miniatures import every, write_values
from rmiseg.data import check_dataset, open_training_data, read_image
from rmiseg.data.bands import Bands
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.data.image_files.opening import image_header
from rmiseg.data.image_files.reading import band_values, deep_values

pydicom = pytest.importorskip("pydicom")


def write_dicom(path, values: np.ndarray, intercept: int = -1024, frames: int = 1, **elements) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = values.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    else:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, intercept
    if frames > 1:
        dataset.NumberOfFrames = frames
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = np.concatenate([values] * frames).tobytes()
    dataset.save_as(path, enforce_file_format=True)


def test_values_are_what_the_file_says_they_mean(tmp_path):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 40
    write_dicom(tmp_path / "i.dcm", values)
    found = deep_values(tmp_path / "i.dcm")
    np.testing.assert_array_equal(found, values.astype(int) - 1024)
    assert found.dtype == np.int16
    assert image_header(tmp_path / "i.dcm") == ((6, 8), 1, False)
    pixels = read_image(tmp_path / "i.dcm", bands=Bands(ranges=(-1024, 856)))
    np.testing.assert_allclose(pixels[..., 2], values / 1880 * 255, atol=1)
    assert band_values(tmp_path / "i.dcm", 1).shape == (6, 8, 1)
    with pytest.raises(ValueError, match="no defined range"):
        read_image(tmp_path / "i.dcm")


def test_colors_of_8_bits(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    write_dicom(tmp_path / "i.dcm", values)
    np.testing.assert_array_equal(read_image(tmp_path / "i.dcm"), values)
    assert deep_values(tmp_path / "i.dcm") is None


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_radiographs_look_alike_whichever_end_is_white(tmp_path, kind):
    bits = 8 if kind == np.uint8 else 12
    seen = np.random.default_rng(0).integers(0, 1 << bits, (6, 8)).astype(kind)
    common = {"intercept": 0, "Modality": "DX", "BitsStored": bits, "HighBit": bits - 1}
    write_dicom(tmp_path / "2.dcm", seen, **common)
    write_dicom(tmp_path / "1.dcm", (1 << bits) - 1 - seen, PhotometricInterpretation="MONOCHROME1", **common)
    ranges = None if kind == np.uint8 else (0, 4095)
    first, second = (read_image(tmp_path / name, bands=Bands(ranges=ranges)) for name in ("1.dcm", "2.dcm"))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(band_values(tmp_path / "1.dcm", 1)[..., 0], seen)
    assert band_values(tmp_path / "1.dcm", 1).dtype == band_values(tmp_path / "2.dcm", 1).dtype


def test_signed_gray_whose_zero_is_white_has_no_unit_either(tmp_path):
    values = np.array([[-2048, 0, 2047]], np.int16)
    stored = {"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    write_dicom(tmp_path / "i.dcm", values, intercept=0, **stored)
    np.testing.assert_array_equal(band_values(tmp_path / "i.dcm", 1)[..., 0], [[2047, -1, -2048]])


@pytest.mark.parametrize("unit", [{"Modality": "CT"}, {"RescaleType": "HU"}])
def test_values_with_a_unit_are_kept_whichever_end_is_white(tmp_path, unit):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 40
    write_dicom(tmp_path / "i.dcm", values, PhotometricInterpretation="MONOCHROME1", **unit)
    np.testing.assert_array_equal(deep_values(tmp_path / "i.dcm"), values.astype(int) - 1024)


@pytest.mark.parametrize("scale", [1, 256, 257])  # of entries: 8 bits though 16 are said, and 16 bits
def test_numbers_of_a_palette_become_its_colors(tmp_path, scale):
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint16)
    ids = np.random.default_rng(1).integers(0, 256, (6, 8), dtype=np.uint8)
    colors: dict = {"PhotometricInterpretation": "PALETTE COLOR"}
    for band, name in enumerate(("Red", "Green", "Blue")):
        colors[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        colors[f"{name}PaletteColorLookupTableData"] = (palette[:, band] * scale).astype("<u2").tobytes()
    write_dicom(tmp_path / "i.dcm", ids, intercept=0, **colors)
    assert image_header(tmp_path / "i.dcm") == ((6, 8), 3, False)
    np.testing.assert_array_equal(read_image(tmp_path / "i.dcm"), palette[ids])
    assert deep_values(tmp_path / "i.dcm") is None


def test_masks_are_refused(tmp_path):
    write_dicom(tmp_path / "m.dcm", np.zeros((6, 8), np.uint8), intercept=0)
    with pytest.raises(
        ValueError, match=r"cannot read mask .*m\.dcm: masks in DICOM files are not read: save it as PNG"
    ):
        read_raw_mask(tmp_path / "m.dcm", rgb=False)


def test_several_frames_are_refused(tmp_path):
    write_dicom(tmp_path / "i.dcm", np.zeros((6, 8), np.uint16), frames=3)
    with pytest.raises(ValueError, match=r"i\.dcm: it holds 3 frames"):
        read_image(tmp_path / "i.dcm")
    with pytest.raises(ValueError, match="3 frames"):
        image_header(tmp_path / "i.dcm")


def test_a_data_set_of_slices(tmp_path):
    for split in ("train", "val"):
        write_dicom(tmp_path / "images" / split / "a.dcm", np.arange(48, dtype=np.uint16).reshape(6, 8) * 20)
        write_values(tmp_path / "masks" / split / "a.png", np.resize(every(0, 1), (6, 8)))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    assert check_dataset("folder", tmp_path, workers=0).problem_count == 0
    train, _ = open_training_data("folder", str(tmp_path), ("train", "val"))
    assert train.bands.ranges == pytest.approx((-1024, -84), abs=5)
    assert train.read_image(0).max() == 255
