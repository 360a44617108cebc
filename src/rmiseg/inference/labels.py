"""Predictions as labels that labelling tools open, to be corrected there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rmiseg.config.registry import find, names
from rmiseg.data import ClassTable
from rmiseg.data.image_files.volumes import is_slice
from rmiseg.data.labels import LabelFormat, PreLabels
from rmiseg.inference.sources import Source
from rmiseg.runtime.files import write_text

PARTS = ".parts"
"""Folder of the labels of single images, of which a file of all is made."""


class ImageFiles(Protocol):
    """Files of which each image gets one, and all images together others in the end; see `LabelFiles`."""

    def path(self, name: Path) -> Path:
        """Return where the file of an image is in the folder of the results."""

    def write(self, folder: Path, name: Path, ids: np.ndarray) -> None:
        """Write the file of an image, of its class ids (H, W)."""

    def together(self, folder: Path) -> list[Path]:
        """Return the files of several images that `finish` writes, as far as they are known before."""

    def finish(self, folder: Path) -> list[Path]:
        """Write the files of several images; returns them."""


class LabelFiles:
    """Files of predictions in the format of a labelling tool.

    Every image has a file of its own, so that a prediction can go on where it was; where a tool takes one file of many
    images, that is made of them in the end.

    Args:
        name: Name of the format, and of the folder of the files in that of the results.
        sources: All images, also those that have results already.
        classes: The classes; what is background is not written.
        tolerance: Farthest that an outline may be from the edge of its region, in pixels.

    Raises:
        ValueError: There is no such format, it cannot be written, or a source is a video.
    """

    def __init__(self, name: str, sources: Sequence[Source], classes: ClassTable, tolerance: float) -> None:
        made = find("labels", name).make()
        assert isinstance(made, LabelFormat)
        if not made.WRITES:
            raise ValueError(f"--write {name}: labels of {made.TITLE} are read, but not written")
        if videos := [source.file for source in sources if source.is_video]:
            raise ValueError(f"--write {name} is for images, and {videos[0]} is a video")
        if slices := [source.file for source in sources if is_slice(source.file)]:
            raise ValueError(f"--write {name} is for images, and {slices[0]} is a slice of a volume")
        if tolerance < 0:
            raise ValueError(f"tolerance must be 0 or more, not {tolerance}")
        self.name = name
        self.format = made
        self.classes = classes
        self.tolerance = tolerance
        self.images = {source.name: source.file for source in sources}

    def path(self, name: Path) -> Path:
        """Return where the labels of an image are in the folder of the results."""
        folder = Path(self.name, PARTS) if self.format.TOGETHER else Path(self.name)
        return folder / f"{name}{self.format.PART_SUFFIX}"

    def write(self, folder: Path, name: Path, ids: np.ndarray) -> None:
        """Write the labels of an image.

        Args:
            folder: Folder of the results.
            name: Name of the image.
            ids: Class ids (H, W) uint8.
        """
        image = self.images[name]
        path = folder / self.path(name)
        title = f"{name.as_posix()}{image.suffix}"
        text = self.format.part(PreLabels(image, title, ids, self.classes, self.tolerance), path)
        _write_text(path, text)

    def together(self, folder: Path) -> list[Path]:
        """Return the files of all images that `finish` writes."""
        names = self.format.compose([], self.classes) if self.format.TOGETHER else ()
        return [folder / self.name / name for name in names]

    def finish(self, folder: Path) -> list[Path]:
        """Write the files of all images that have labels here, of earlier predictions too, if the tool takes such.

        Returns:
            The files.
        """
        if not self.format.TOGETHER:
            return []
        there = sorted((folder / self.name / PARTS).rglob(f"*{self.format.PART_SUFFIX}"))
        order = {folder / self.path(name): number for number, name in enumerate(self.images)}
        parts = sorted(there, key=lambda path: order.get(path, len(order)))
        texts = self.format.compose([path.read_text(encoding="utf-8") for path in parts], self.classes)
        for name, text in texts.items():
            _write_text(folder / self.name / name, text)
        return [folder / self.name / name for name in texts]


def writable_labels() -> list[str]:
    """Return the names of the formats that predictions can be written in."""
    return [name for name in names("labels") if find("labels", name).make().WRITES]


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
