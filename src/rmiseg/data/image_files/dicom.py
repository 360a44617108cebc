"""Slices in DICOM files, as scanners write them, read through pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rmiseg.data.bands import in_16_bits
from rmiseg.data.image_files.tiff import Header, several
from rmiseg.runtime.extras import import_extra


def is_dicom(path: Path) -> bool:
    """Return whether a file is a DICOM file, by the mark behind its preamble."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> NDArray[Any]:
    """Read the slice in a DICOM file.

    Values are those that the file says its numbers mean (rescale slope and intercept: Hounsfield units of computed
    tomography), so that slices of scanners that store them in other ways are alike. Black is the smaller value, also
    where the file says that it is shown as white (MONOCHROME1). Windows for display are not applied.

    Returns:
        (H, W), or (H, W, 3) of colors.

    Raises:
        ValueError: it holds several frames.
        ModuleNotFoundError: pydicom is not installed, or what decodes the file.
    """
    dataset = _opened(path)
    pixels = import_extra("pydicom.pixels", "medical", f"reading {path}")
    _check_frames(dataset)
    values: NDArray[Any] = pixels.apply_modality_lut(dataset.pixel_array, dataset)
    return in_16_bits(values)


def dicom_header(path: Path) -> Header:
    """Return what a DICOM file holds, by its header.

    Raises:
        ValueError, ModuleNotFoundError: as `read_dicom`.
    """
    dataset = _opened(path, stop_before_pixels=True)
    _check_frames(dataset)
    return Header((int(dataset.Rows), int(dataset.Columns)), int(dataset.get("SamplesPerPixel", 1)), False)


def _opened(path: Path, **options: Any) -> Any:
    return import_extra("pydicom", "medical", f"reading {path}").dcmread(path, **options)


def _check_frames(dataset: Any) -> None:
    if (frames := int(dataset.get("NumberOfFrames", 1) or 1)) > 1:
        raise ValueError(several(frames, "frames"))
