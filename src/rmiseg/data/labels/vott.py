"""VoTT's JSON: an export of a project, or its files NAME-asset.json. Polygons and boxes; later ones lie in front.

VoTT exports no masks; polygons are drawn by pycocotools.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import Annotations, JSONFormat, LabeledImage, Region, Tally, add_region, polygon
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import points
from rmiseg.data.labels.values import class_name, hex_color, size_of

BOXES = ("RECTANGLE", "SQUARE")


@register("labels", "vott")
class VoTT(JSONFormat):
    """VoTT's JSON."""

    TITLE = "VoTT JSON"
    OWNER, HOLDS = "VoTT", "VoTT's labels"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return _assets(content) is not None

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        for each in content.get("tags") or []:
            found.add_class(each["name"], hex_color(each.get("color")))
        for each in _assets(content) or []:
            image = _image(path, each, found.unused)
            image.split = documents.split_of(path)
            found.images.append(image)


def _assets(content: Any) -> list[dict[str, Any]] | None:
    """The images of a file; None if it is none of VoTT."""
    if not isinstance(content, dict):
        return None
    assets = content.get("assets", {"": content})
    found = list(assets.values()) if isinstance(assets, dict) else []
    known = found and all(isinstance(each, dict) and {"asset", "regions"} <= each.keys() for each in found)
    return found if known else None


def _image(path: Path, entry: dict[str, Any], unused: Tally) -> LabeledImage:
    name, size = str(entry["asset"]["name"]), entry["asset"].get("size")
    image = LabeledImage(name, path, size=size_of(size) if size else None)
    for number, each in enumerate(entry["regions"], start=1):
        kind, title = str(each["type"]), f"region {number} of {name}"
        if not each["tags"]:
            unused.add("labels have no class", title)
            continue
        label = class_name(each["tags"][0])
        if each["tags"][1:]:
            unused.add("labels have several classes, of which the first is taken", f"{label} in {name}")
        add_region(image, kind, partial(_region, kind, label, each), title, f"{label} in {name}", unused)
    return image


def _region(kind: str, label: str, content: dict[str, Any]) -> Region | None:
    corners = points([x for corner in content["points"] for x in (corner["x"], corner["y"])])
    return polygon(label, corners, box=kind in BOXES) if kind in ("POLYGON", *BOXES) else None
