"""Polygons of street scenes, a JSON file an image: those of Cityscapes and data sets like it, and of Mapillary Vistas.

    gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json    of aachen_000000_000019_leftImg8bit.png
    training/v2.0/polygons/NAME.json                                 of NAME.jpg

Later objects lie in front, as Cityscapes' scripts draw them, with Pillow. All names become classes: for the 19 that
Cityscapes scores, use the data set `cityscapes`.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import (
    IGNORED_NAMES,
    Annotations,
    JSONFormat,
    LabeledImage,
    Region,
    Tally,
    add_region,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import outlined_polygon, points
from rmiseg.data.labels.values import class_name, size_of

ENDING = re.compile(r"_gt[A-Za-z]+_polygons$")
SUFFIXES = (".png", ".jpg", ".jpeg")
VOID = ("unlabeled", "ego vehicle", "rectification border", "out of roi", "void--unlabeled")
"""Names of what is no part of the scene."""
GROUPS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "caravan", "trailer", "animal")
"""Names of classes of which several together are labeled as cargroup, for instance."""


@register("labels", "street-polygons")
class StreetPolygons(JSONFormat):
    """Polygons of Cityscapes and Mapillary Vistas."""

    TITLE = "polygons of Cityscapes or Mapillary Vistas"
    OWNER, HOLDS = "Cityscapes or Mapillary", "polygons"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return _keys(content) is not None

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        image = _image(path, content, found.unused)
        image.split = documents.split_of_folder(path)
        for suffix in SUFFIXES:
            if found_image := documents.find_image(image.reference + suffix, path):
                image.path = found_image
        image.reference += SUFFIXES[0]
        found.images.append(image)


def _keys(content: Any) -> tuple[str, str] | None:
    """The names of height and width in a file; None if it is of neither data set."""
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        return None
    for keys in (("imgHeight", "imgWidth"), ("height", "width")):
        known = set(keys) <= content.keys()
        if known and all(isinstance(each, dict) and {"label", "polygon"} <= each.keys() for each in content["objects"]):
            return keys
    return None


def _image(path: Path, content: dict[str, Any], unused: Tally) -> LabeledImage:
    keys = _keys(content)
    assert keys is not None
    image = LabeledImage(ENDING.sub("_leftImg8bit", path.stem), path, size=size_of(content, *keys))
    for number, each in enumerate(content["objects"], start=1):
        label = class_name(each["label"])
        label = label.removesuffix("group") if label.removesuffix("group") in GROUPS else label
        if not each.get("deleted"):
            label = IGNORED_NAMES[0] if label in VOID else label
            title, example = f"object {number}, {label!r}", f"{label} in {path.name}"
            add_region(image, "polygon", partial(_region, label, each), title, example, unused)
    return image


def _region(label: str, content: dict[str, Any]) -> Region | None:
    corners = points(content["polygon"])
    return Region(label, partial(outlined_polygon, corners, outline=None)) if len(corners) > 2 else None
