"""Masks in colors, in the folders of PASCAL VOC: CVAT's export "Segmentation mask", and those of many other programs.

    SegmentationClass/  a.png ...      or SegmentationClassPNG/
    JPEGImages/         a.jpg ...      or images anywhere else
    labelmap.txt        lines such as car:128,0,0::   or class_names.txt, in the order of VOC's colors
    ImageSets/Segmentation/  train.txt  val.txt ...   optional

Without a list of names the classes are those of VOC. Colors are read as they are; one that no name has is an error.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.recipes import read_text
from rmiseg.config.registry import register
from rmiseg.data.classes import Color, voc_palette
from rmiseg.data.labels.annotations import Annotations, LabeledImage, LabelFormat, Region
from rmiseg.data.labels.documents import SPLITS, Documents, most_alike, read_lines
from rmiseg.data.labels.shapes import mask_numbers, pixels_of_value
from rmiseg.data.labels.values import packed_color
from rmiseg.data.sets import voc
from rmiseg.data.sets.pairing import MASK_SUFFIXES

MASK_FOLDERS = ("SegmentationClassPNG", "SegmentationClass")
"""Folders of masks; the first of them that is there is read."""
VOID: Color = (224, 224, 192)
"""VOC's color of what is ignored."""
IGNORED = "__ignore__"
MOST_COLORS = 256


@register("labels", "voc-masks")
class VOCMasks(LabelFormat):
    """Masks in colors, in the folders of VOC."""

    TITLE = "masks in colors (Pascal VOC, CVAT Segmentation mask)"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return bool(_masks(documents))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        mask_numbers.cache_clear()  # files may have changed
        names, origin = _names(documents)
        masks = _masks(documents)
        if not masks:
            raise ValueError(f"{documents.source} has no masks in a folder {' or '.join(MASK_FOLDERS)}")
        found = Annotations(classes=list(dict.fromkeys(names.values())))
        found.colors = {name: color for color, name in names.items()}
        names = {VOID: IGNORED, **names}
        images: dict[str, list[Path]] = {}
        for path in documents.image_files():
            if not any(part.startswith("Segmentation") for part in path.parts):
                images.setdefault(path.stem, []).append(path)
        splits = _splits(documents)
        for mask in masks:
            pixels = mask_numbers(mask, True)
            label = LabeledImage(mask.stem, mask, size=(pixels.shape[0], pixels.shape[1]))
            parts = mask.relative_to(documents.root).with_suffix("").parts
            inner = parts[next(i for i, part in enumerate(parts, start=1) if part in MASK_FOLDERS) :]
            label.split = splits.get("/".join(inner)) or splits.get(mask.stem, "")
            candidates = most_alike(inner, images.get(mask.stem, []))
            if len(candidates) > 1:
                raise ValueError(f"the mask {mask} may be of {candidates[0]} or {candidates[1]}: leave one")
            label.path = candidates[0] if candidates else None
            label.regions = _regions(mask, pixels, names, origin)
            found.images.append(label)
        return found


def _masks(documents: Documents) -> list[Path]:
    for folder in MASK_FOLDERS:
        paths = [
            path for path in documents.files(*MASK_SUFFIXES) if folder in path.relative_to(documents.root).parts[:-1]
        ]
        if paths:
            return paths
    return []


def _names(documents: Documents) -> tuple[dict[Color, str], str]:
    """The name of every color, and what says so."""
    if maps := documents.files("labelmap.txt"):
        return _labelmap(maps[0]), str(maps[0])
    if listed := documents.files("class_names.txt"):
        lines = read_lines(listed[0])
        return dict(zip(voc_palette(len(lines)), lines)), str(listed[0])
    return dict(zip(voc.CLASSES.palette, voc.CLASSES.names)), "the classes of PASCAL VOC, without a labelmap.txt"


def _labelmap(path: Path) -> dict[Color, str]:
    names: dict[Color, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        channels = rest.partition(":")[0].split(",")
        if len(channels) != 3 or not all(each.strip().isdecimal() and int(each) < 256 for each in channels):
            raise ValueError(f"{path}, line {number}: {line[:100]!r} is not like car:128,0,0::")
        color = (int(channels[0]), int(channels[1]), int(channels[2]))
        if color in names:
            raise ValueError(f"{path}, line {number}: {names[color]} and {name.strip()} have the same color {color}")
        names[color] = name.strip()
    return names


def _splits(documents: Documents) -> dict[str, str]:
    splits: dict[str, str] = {}
    for path in documents.files(".txt"):
        if path.parent.name == "Segmentation" and (split := SPLITS.get(path.stem.lower())):
            splits |= {line.strip(' "\t'): split for line in read_text(path).splitlines() if line.strip()}
    return splits


def _regions(path: Path, pixels: NDArray[np.int32], names: dict[Color, str], origin: str) -> list[Region]:
    codes, counts = np.unique(pixels, return_counts=True)
    if len(codes) > MOST_COLORS:
        raise ValueError(f"{path} has {len(codes)} colors: it is no mask, or its edges were smoothed")
    regions = []
    for code, count in zip(codes.tolist(), counts.tolist()):
        color = packed_color(code)[::-1]  # of a mask, red is the last byte
        if color not in names:
            numbers = (
                ". Are its values numbers of classes? Then name them in dataset.yaml, as a data set `folder`"
                if len({*color}) == 1
                else ""
            )
            raise ValueError(f"{path} has {count} pixels of the color {color}, which has no name in {origin}{numbers}")
        regions.append(Region(names[color], partial(pixels_of_value, path, True, code)))
    return regions
