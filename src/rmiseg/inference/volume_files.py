"""Predictions of volumes as NIfTI files that lie where their volumes lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rmiseg.data.image_files.volumes import is_slice, slices_of, write_volume
from rmiseg.inference.labels import PARTS
from rmiseg.inference.sources import Source
from rmiseg.runtime.files import replacing

NIFTI = "nifti"


class VolumeFiles:
    """Class ids of volumes, of whose slices each has a file of its own first, so that a prediction can go on.

    Args:
        sources: All slices, also those that have results already.

    Raises:
        ValueError: A source is no slice of a volume.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if others := [source.file for source in sources if not is_slice(source.file)]:
            raise ValueError(f"--write {NIFTI} is for volumes in NIfTI files, and {others[0]} is none")
        self.volumes: dict[Path, dict[Path, Path]] = {}
        for source in sources:
            self.volumes.setdefault(source.file.parent, {})[source.file] = source.name

    def path(self, name: Path) -> Path:
        """Return where the class ids of a slice are in the folder of the results."""
        return Path(NIFTI, PARTS, f"{name}.png")

    def write(self, folder: Path, name: Path, ids: np.ndarray) -> None:
        """Write the class ids of a slice.

        Args:
            folder: Folder of the results.
            name: Name of the slice.
            ids: Class ids (H, W) uint8.
        """
        path = folder / self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(ids).save(temporary, "PNG")

    def together(self, folder: Path) -> list[Path]:
        """Return the files of all images that `finish` may write: none of them is known before."""
        return []

    def finish(self, folder: Path) -> list[Path]:
        """Write the volumes of which all slices have results; returns their files."""
        written = []
        for volume, names in self.volumes.items():
            slices = slices_of(volume)
            parts = [folder / self.path(names[each]) for each in slices if each in names]
            if len(parts) == len(slices) and all(part.is_file() for part in parts):
                name = next(iter(names.values())).parent
                path = folder / NIFTI / f"{name}.nii.gz"
                write_volume(path, volume, _read(parts))
                written.append(path)
        return written


def _read(parts: Iterable[Path]) -> Iterable[np.ndarray]:
    for part in parts:
        with Image.open(part) as image:
            yield np.array(image)
