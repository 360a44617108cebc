"""Slices in DICOM files."""

from __future__ import annotations

import numpy as np
import pytest

from miniatures import every, write_values
from rmiseg.data import check_dataset, open_training_data, read_image
from rmiseg.data.bands import Bands
from rmiseg.data.image_files.opening import image_header
from rmiseg.data.image_files.reading import band_values, deep_values

pydicom = pytest.importorskip("pydicom")


def write_dicom(path, values: np.ndarray, intercept: int = -1024, frames: int = 1) -> None:
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
