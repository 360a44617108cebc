"""Volumes in NIfTI files, read slice by slice through nibabel.

A slice is called by a path below its file, as if that were a folder: scan.nii.gz/0042. Whatever the order of the axes
in a file is, slices are axial, numbered from the feet up, and shown as radiologists see them: the front of the patient
above, the right on the left. The first three axes are space; a fourth is bands.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.bands import in_16_bits
from rmiseg.data.drawn_masks import cache_folder
from rmiseg.data.image_files.tiff import Header
from rmiseg.runtime.extras import import_extra
from rmiseg.runtime.files import replacing

SUFFIXES = (".nii", ".nii.gz")
MOST_BYTES = 1 << 34
"""Bytes of an unpacked file."""


def is_volume(path: Path) -> bool:
    """Return whether a file is called as volumes are."""
    return path.name.lower().endswith(SUFFIXES)


def is_slice(path: Path) -> bool:
    """Return whether a path is that of a slice of a volume."""
    return is_volume(path.parent)


def slices_of(path: Path) -> list[Path]:
    """Return the paths of all slices of a volume.

    Raises:
        ValueError: it is damaged, or no volume of three axes or four.
        ModuleNotFoundError: nibabel is not installed.
    """
    shape, order = _shape(path), _axes(path)
    count = shape[order[2][0]]
    return [path / f"{number:0{max(4, len(str(count - 1)))}d}" for number in range(count)]


def misplaced(image: Path, mask: Path) -> str:
    """Say where a volume and its mask are not of the same place; "" if they are.

    Raises:
        ValueError, ModuleNotFoundError: as `slices_of`.
    """
    shapes = _shape(image)[:3], _shape(mask)[:3]
    if shapes[0] != shapes[1]:
        sizes = [" x ".join(map(str, shape)) for shape in shapes]
        return f"volume {image} has {sizes[0]} voxels, but its mask {mask} has {sizes[1]}"
    places = _opened(image).affine, _opened(mask).affine
    if not np.allclose(*places, rtol=1e-3, atol=1e-2):
        return f"volume {image} and its mask {mask} lie in other places, or are turned otherwise, by their affines"
    return ""


def slice_header(path: Path) -> Header:
    """Return what a slice holds, by the header of its file.

    Raises:
        ValueError, ModuleNotFoundError: as `slices_of`.
    """
    shape, order = _shape(path.parent), _axes(path.parent)
    return Header((shape[order[1][0]], shape[order[0][0]]), shape[3] if len(shape) == 4 else 1, False)


def read_slice(path: Path) -> NDArray[Any]:
    """Read a slice: the values that the file says its numbers mean (slope and intercept).

    Returns:
        (H, W), or (H, W, bands).

    Raises:
        ValueError: there is no such slice, or as `slices_of`.
        ModuleNotFoundError: nibabel is not installed.
    """
    file = path.parent
    shape, order = _shape(file), _axes(file)
    (x, x_flipped), (y, y_flipped), (z, z_flipped) = order
    if not path.name.isdecimal() or int(path.name) >= shape[z]:
        raise ValueError(f"it has {shape[z]} slices, and none of the number {path.name}")
    number = shape[z] - 1 - int(path.name) if z_flipped else int(path.name)
    values = np.asarray(_opened(file).dataobj[(slice(None),) * z + (number,)])
    values = values if x > y else np.swapaxes(values, 0, 1)
    # Numbers grow to the right, to the front and up; shown are right on the left, and front above.
    values = values[:: 1 if y_flipped else -1, :: 1 if x_flipped else -1]
    return np.ascontiguousarray(in_16_bits(values))


def write_volume(path: Path, volume: Path, slices: Iterable[NDArray[np.uint8]]) -> None:
    """Write slices as a packed NIfTI file that lies where another volume lies, its axes in the same order.

    Args:
        path: The file, whose name ends in .nii.gz.
        volume: The other volume.
        slices: Its slices (H, W), as many and of the sizes that `read_slice` reads of it.

    Raises:
        ValueError, ModuleNotFoundError: as `slices_of`.
    """
    shape, other = _shape(volume)[:3], _opened(volume)
    (x, x_flipped), (y, y_flipped), (z, z_flipped) = _axes(volume)
    values = np.zeros(shape, np.uint8)
    for number, each in enumerate(slices):
        turned = each[:: 1 if y_flipped else -1, :: 1 if x_flipped else -1]
        at = shape[z] - 1 - number if z_flipped else number
        values[(slice(None),) * z + (at,)] = turned if x > y else turned.T
    header = other.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # of what the values are no more
    image = type(other)(values, other.affine, header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))


def _shape(path: Path) -> tuple[int, ...]:
    shape = tuple(int(size) for size in _opened(path).shape)
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(f"it has the shape {shape}: a volume has three axes, and a fourth of bands")
    if _opened(path).get_data_dtype().fields:
        raise ValueError("it holds colors; save each band as a volume of numbers")
    return shape


def _axes(path: Path) -> list[tuple[int, bool]]:
    """Axes of the file that go right, to the front and up, and whether each goes the other way."""
    nibabel = import_extra("nibabel", "medical", f"reading {path}")
    found = nibabel.io_orientation(_opened(path).affine)[:3]
    if np.isnan(found).any():
        raise ValueError("its affine does not say how its axes lie")
    places = {int(axis): (number, bool(sign < 0)) for number, (axis, sign) in enumerate(found)}
    return [places[axis] for axis in range(3)]


def _opened(path: Path) -> Any:
    stat = path.stat()
    try:
        return _loaded(path, stat.st_size, stat.st_mtime_ns)
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:  # nibabel's own, EOFError, zlib's, ...
        raise ValueError(f"cannot read volume {path}: {error}") from error


@functools.lru_cache(maxsize=64)
def _loaded(path: Path, size: int, time: int) -> Any:
    """A volume of which nothing but the header is read; what is packed is unpacked once."""
    nibabel = import_extra("nibabel", "medical", f"reading {path}")
    file = _unpacked(path, size, time) if path.suffix.lower() == ".gz" else path
    return nibabel.load(file, mmap=False)


def _unpacked(path: Path, size: int, time: int) -> Path:
    """A copy in the cache, from which slices are read without what lies before them."""
    key = hashlib.blake2b(os.fsencode(path.resolve()) + f"/{size} {time}".encode(), digest_size=16).hexdigest()
    copy = cache_folder() / "volumes" / f"{key}.nii"
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path) as packed, replacing(copy) as temporary, open(temporary, "wb") as file:
            shutil.copyfileobj(_Limited(packed), file, 1 << 20)
    return copy


class _Limited:
    """A stream that ends in an error where it is larger than `MOST_BYTES`."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.left = stream, MOST_BYTES

    def read(self, count: int = -1, /) -> bytes:
        data: bytes = self.stream.read(count)
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"it unpacks to more than {MOST_BYTES >> 30} GiB")
        return data
