"""Slices in DICOM files, as scanners write them, read through pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.bands import in_16_bits
from rmiseg.data.image_files.tiff import Header, several
from rmiseg.runtime.extras import import_extra

PALETTE = "PALETTE COLOR"


def is_dicom(path: Path) -> bool:
    """Return whether a file is a DICOM file, by the mark behind its preamble."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> NDArray[Any]:
    """Read the slice in a DICOM file.

    Values are those that the file says its numbers mean (rescale slope and intercept: Hounsfield units of computed
    tomography), so that slices of scanners that store them in other ways are alike. Gray whose zero is white
    (MONOCHROME1, of many X-ray detectors) is turned into how it looks, unless it has a unit: so all radiographs of
    a data set have bright bones. Numbers of a palette become its colors. Windows for display are not applied.

    Returns:
        (H, W), or (H, W, 3) of colors.

    Raises:
        ValueError: it holds several frames.
        ModuleNotFoundError: pydicom is not installed, or what decodes the file.
    """
    dataset = _opened(path)
    pixels = import_extra("pydicom.pixels", "medical", f"reading {path}")
    _check_frames(dataset)
    values: NDArray[Any] = dataset.pixel_array
    if dataset.PhotometricInterpretation == PALETTE:
        return _in_8_bits(pixels.apply_color_lut(values, dataset)[..., :3])
    meant: NDArray[Any] = pixels.apply_modality_lut(values, dataset)
    meant = values if np.array_equal(meant, values) else meant  # of 8 bits, if that is how they are stored
    if dataset.PhotometricInterpretation == "MONOCHROME1" and not _has_unit(dataset):
        meant = (pixels.apply_modality_lut(_ends(dataset), dataset).sum() - meant).astype(meant.dtype)
    return in_16_bits(meant)


def dicom_header(path: Path) -> Header:
    """Return what a DICOM file holds, by its header.

    Raises:
        ValueError, ModuleNotFoundError: as `read_dicom`.
    """
    dataset = _opened(path, stop_before_pixels=True)
    _check_frames(dataset)
    bands = 3 if dataset.PhotometricInterpretation == PALETTE else int(dataset.get("SamplesPerPixel", 1))
    return Header((int(dataset.Rows), int(dataset.Columns)), bands, False)


def _opened(path: Path, **options: Any) -> Any:
    return import_extra("pydicom", "medical", f"reading {path}").dcmread(path, **options)


def _has_unit(dataset: Any) -> bool:
    """Return whether values are measured in a unit, such as Hounsfield's, which holds whatever they look like."""
    return dataset.get("Modality") in ("CT", "PT") or dataset.get("RescaleType", "US") != "US"


def _ends(dataset: Any) -> NDArray[Any]:
    """Return the smallest and the largest number that a pixel can store, (2,) int32."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    lowest = -(1 << bits - 1) if signed else 0
    return np.array([lowest, lowest + (1 << bits) - 1], np.int32)


def _in_8_bits(colors: NDArray[Any]) -> NDArray[np.uint8]:
    # Entries of 16 bits have the color in the high byte; some programs say 16 and write 8.
    return (colors >> 8 if colors.max(initial=0) > 255 else colors).astype(np.uint8)


def _check_frames(dataset: Any) -> None:
    if (frames := int(dataset.get("NumberOfFrames", 1) or 1)) > 1:
        raise ValueError(several(frames, "frames"))
