"""Supervisely's projects: meta.json, and in every data set ann/ with a JSON file an image, and img/ with the images.

Polygons and bitmaps are exact by the package supervisely; boxes count as boxes. Later objects lie in front.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import (
    Annotations,
    LabeledImage,
    LabelFormat,
    Region,
    Tally,
    add_region,
    naming,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import between, bitmap, filled_polygon, points
from rmiseg.data.labels.values import class_name, hex_color, size_of, whole

META = "meta.json"


@register("labels", "supervisely")
class Supervisely(LabelFormat):
    """Supervisely's projects."""

    TITLE = "Supervisely"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(map(_is_annotation, documents.peek()))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = Annotations()
        for path in documents.files(".json"):
            content = documents.json(path)
            with naming(path, "Supervisely's labels"):
                if path.name == META and isinstance(content, dict) and "classes" in content:
                    for each in content["classes"]:
                        found.add_class(each["title"], hex_color(each.get("color")))
                elif _is_annotation(content):
                    found.images.append(_image(path, content, documents, found.unused))
                else:
                    found.unused.add("JSON files are not of Supervisely", str(path))
        return found


def _is_annotation(content: Any) -> bool:
    return (
        isinstance(content, dict) and isinstance(content.get("size"), dict) and isinstance(content.get("objects"), list)
    )


def _image(path: Path, content: dict[str, Any], documents: Documents, unused: Tally) -> LabeledImage:
    image = LabeledImage(path.stem, path, size=size_of(content["size"]), split=documents.split_of_folder(path))
    beside = path.parent.with_name("img") / path.stem  # a.jpg.json is of a.jpg
    image.path = beside if path.parent.name == "ann" and beside.is_file() else None
    for number, each in enumerate(content["objects"], start=1):
        label = class_name(each["classTitle"])
        title, example = f"object {number}, {label!r}", f"{label} in {path.name}"
        add_region(image, each.get("geometryType"), partial(_region, label, each), title, example, unused)
    return image


def _region(label: str, content: dict[str, Any]) -> Region | None:
    kind = content["geometryType"]
    if kind == "bitmap":
        left, top = (whole(each, "the origin of a bitmap") for each in content["bitmap"]["origin"])
        return Region(label, partial(bitmap, content["bitmap"]["data"], left, top, alpha=True))
    if kind not in ("polygon", "rectangle"):
        return None
    outer = points(content["points"]["exterior"])
    holes = [points(each) for each in content["points"].get("interior") or []]
    if kind == "polygon" and len(outer) < 3:
        return None
    if kind == "polygon":
        return Region(label, partial(filled_polygon, outer, [hole for hole in holes if len(hole) > 2]))
    if kind == "rectangle" and len(outer) == 2:
        (left, top), (right, bottom) = outer.min(axis=0).tolist(), outer.max(axis=0).tolist()
        return Region(label, partial(filled_polygon, between(left, top, right, bottom), ()), box=True)
    raise ValueError(f"a {kind} has {len(outer)} points")
