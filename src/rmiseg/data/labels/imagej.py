"""Regions of ImageJ and Fiji (ROI), in `.roi` files and in the archives of the ROI Manager, RoiSet.zip.

They do not say which image they are of: it is that of the file's name, or of its folder's, with or without a word such
as RoiSet, or the only image of its folder. A region's class is its name, if that is more than the numbers that ImageJ
gives it, or else its group. Later ones lie in front.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import Annotations, LabeledImage, LabelFormat, Region, add_region, naming, polygon
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import between, ellipse, even_odd, points
from rmiseg.data.labels.values import class_name
from rmiseg.data.sets.pairing import IMAGE_SUFFIXES, holds_regions
from rmiseg.runtime.extras import import_extra
from rmiseg.runtime.words import counted

SUFFIXES = (".roi", ".zip")
LARGEST = 1 << 28
"""Bytes of all regions of an archive, unpacked, above which it is refused."""
SET = re.compile(r"[\s_.-]*roi[\s_-]*sets?[\s_.-]*|(^|[\s_.-]+)rois?([\s_.-]+|$)", re.IGNORECASE)
"""Words that the name of a set may have beside that of its image."""
AGAIN = re.compile(r"-\d+$")
"""End that ImageJ gives a name which another region of the image has."""
ONLY_CLASS = "object"
"""Class of regions without name and group."""
OUTLINED = ("polygon", "freehand", "traced")
DAMAGED = (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError, struct.error)
"""Errors of roifile for regions that are damaged, or of a kind that it does not know."""


@register("labels", "imagej")
class ImageJ(LabelFormat):
    """Regions of ImageJ."""

    TITLE = "ImageJ or Fiji (ROI)"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(map(holds_regions, documents.files(*SUFFIXES)))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        roifile = import_extra("roifile", "labels", "reading regions of ImageJ")
        found = Annotations()
        for paths, image_path in _sets(documents):
            regions: list[tuple[str, Any]] = []
            for path in paths:
                for title, content in _contents(path):
                    with naming(f"{path}, {title}", "a region of ImageJ"):
                        region = _decoded(roifile.ImagejRoi, content, title)
                    regions.append((f"{title} in {path.name}", region))
            split = documents.split_of_folder(paths[0])
            image = LabeledImage(paths[0].stem, paths[0], split=split, path=image_path)
            _add_regions(image, regions, found)
            found.images.append(image)
        return found


def _decoded(kind: Any, content: bytes, title: str) -> Any:
    """A region of the class of roifile, which has a name."""
    try:
        region = kind.frombytes(content)
    except DAMAGED as error:
        raise ValueError(f"it is damaged, or of a newer ImageJ: {error}") from error
    region.name = region.name or title
    return region


def _add_regions(image: LabeledImage, regions: Sequence[tuple[str, Any]], found: Annotations) -> None:
    names = {region.name for _, region in regions}
    unnamed = 0
    for title, region in regions:
        if max(region.position, region.z_position, region.t_position) > 1:
            found.unused.add("labels are not on the first plane of their image", title)
            continue
        label = _label(region.name, names, region.group)
        unnamed += label == ONLY_CLASS
        add_region(image, _kind(region), partial(_region, label, region), title, title, found.unused)
    if unnamed:
        found.notes.append(
            f"{image.document}: {counted(unnamed, 'region')} without name or group: the class is {ONLY_CLASS!r}"
        )


def _sets(documents: Documents) -> list[tuple[list[Path], Path | None]]:
    """The files with regions, those of an image together, and the image; None where nobody knows which."""
    files = filter(holds_regions, documents.files(*SUFFIXES))
    named = {path: _named(path.stem, path, documents) for path in files}
    singles = {path.parent for path, image in named.items() if image and path.suffix.lower() == ".roi"}
    of_folders: dict[Path, Path | None] = {}
    sets: dict[Path, list[Path]] = {}
    without: list[tuple[list[Path], Path | None]] = []
    for path, image in named.items():
        # The name of a .roi file may be that of the region, unless those beside it are names of images.
        says = path.parent in singles if path.suffix.lower() == ".roi" else SET.sub("", path.stem) != ""
        if image is None and not says:
            if path.parent not in of_folders:
                of_folders[path.parent] = _image_of_folder(path, documents)
            image = of_folders[path.parent]
        if image is not None:
            sets.setdefault(image, []).append(path)
        else:
            without.append(([path], None))
    return [*((paths, image) for image, paths in sets.items()), *without]


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each region of a file.

    Raises:
        ValueError: It is damaged or too large.
    """
    if path.suffix.lower() == ".roi":
        yield path.stem, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if each.filename.lower().endswith(".roi")]
            if sum(each.file_size for each in members) > LARGEST:
                raise ValueError(f"{path} holds regions of more than {LARGEST >> 20} MB")
            for each in members:
                yield Path(each.filename).stem, archive.read(each)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is a damaged archive, or one with a password: {error}") from error


def _image_of_folder(path: Path, documents: Documents) -> Path | None:
    if path.parent != documents.root and (found := _named(path.parent.name, path, documents)):
        return found
    beside = [each for each in path.parent.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES]
    return beside[0] if len(beside) == 1 else None


def _named(name: str, path: Path, documents: Documents) -> Path | None:
    references = filter(None, dict.fromkeys((name, SET.sub("", name))))
    return next(filter(None, (documents.find_image(each, path) for each in references)), None)


def _label(name: str, names: Set[str], group: int) -> str:
    """The class of a region, by its name among those of its image, or its group."""
    while (first := AGAIN.sub("", name)) != name and first in names:
        name = first
    if re.search(r"[^\W\d_]", name):  # a letter
        return class_name(name.strip())
    return f"group {group}" if group > 0 else ONLY_CLASS


def _kind(region: Any) -> str:
    kind = region.subtype if region.subtype.name in ("TEXT", "IMAGE", "ARROW") else region.roitype
    return str(kind.name).lower()


def _region(label: str, region: Any) -> Region | None:
    kind = _kind(region)
    if region.composite and kind == "rect":
        try:
            rings = [points(ring) for ring in region.path2coords(region.multi_coordinates)]
        except DAMAGED as error:
            raise ValueError(f"its path is damaged: {error}") from error
        return Region(label, partial(even_odd, rings))
    if kind in OUTLINED:
        return polygon(label, points(region.coordinates()))
    if kind not in ("rect", "oval"):
        return None
    left, top, right, bottom = (float(each) for each in (region.left, region.top, region.right, region.bottom))
    if region.subpixelrect:
        left, top = float(region.xd), float(region.yd)
        right, bottom = left + float(region.widthd), top + float(region.heightd)
    corners = between(left, top, right, bottom)
    if kind == "rect":
        return polygon(label, corners, box=True)
    return polygon(label, ellipse(corners.mean(axis=0), np.ptp(corners, axis=0) / 2))
