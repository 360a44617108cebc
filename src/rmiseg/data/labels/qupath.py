"""QuPath's objects as GeoJSON, a file an image: a.geojson is of a.png. Smaller objects lie in front.

Coordinates are pixels of the image at its full resolution. GeoJSON of maps, whose coordinates are places on Earth, is
not read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.classes import Color
from rmiseg.data.labels.annotations import IGNORED_NAMES, Annotations, JSONFormat, LabeledImage, Region, add_region
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import points, with_holes
from rmiseg.data.labels.values import class_name, packed_color, whole

OWN_PROPERTIES = ("objectType", "classification", "isLocked")
"""Properties of an object, of which QuPath writes at least one."""


@register("labels", "qupath")
class QuPath(JSONFormat):
    """QuPath's objects."""

    TITLE = "QuPath GeoJSON"
    OWNER, HOLDS = "QuPath", "QuPath's objects"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        features = _features(content)
        return features is not None and all(
            isinstance(each.get("properties"), dict) and any(key in each["properties"] for key in OWN_PROPERTIES)
            for each in features
        )

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        found.smaller_in_front = True
        image = LabeledImage(path.stem, path, split=documents.split_of_folder(path))
        for number, each in enumerate(_features(content) or [], start=1):
            kind, example = each["geometry"]["type"], f"object {number} in {path.name}"
            name = _name(each["properties"].get("classification") or {})
            plane = each["geometry"].get("plane") or {}
            if not name:
                found.unused.add("labels have no class", example)
            elif plane.get("z") or plane.get("t"):
                found.unused.add("labels are not on the first plane of their image", example)
            else:
                if color := _color(each["properties"]["classification"]):
                    found.colors[name] = color
                add_region(image, kind, partial(_region, name, each["geometry"]), example, example, found.unused)
        found.images.append(image)


def _features(content: Any) -> list[dict[str, Any]] | None:
    """The objects of a file, which may be a list of them, a collection, or one alone; None if it is no GeoJSON."""
    if isinstance(content, dict) and content.get("type") == "FeatureCollection" and "crs" not in content:
        content = content.get("features")
        return content if isinstance(content, list) and all(map(_is_feature, content)) else None
    features = content if isinstance(content, list) else [content]
    return features if features and all(map(_is_feature, features)) else None


def _is_feature(content: Any) -> bool:
    return isinstance(content, dict) and content.get("type") == "Feature"


def _name(classification: dict[str, Any]) -> str:
    """The class of an object; "" if it has none. That of several parts is written as QuPath shows it."""
    names = classification.get("names") or [classification.get("name") or ""]
    name = ": ".join(map(class_name, names))
    return IGNORED_NAMES[0] if name == "Ignore*" else name


def _color(classification: dict[str, Any]) -> Color | None:
    color = classification.get("color")
    if color is None and "colorRGB" in classification:  # of older versions
        return packed_color(whole(classification["colorRGB"], "colorRGB"))
    if not isinstance(color, list) or len(color) != 3:
        return None
    red, green, blue = (whole(each, "a color") & 255 for each in color)
    return (red, green, blue)


def _region(name: str, geometry: dict[str, Any]) -> Region | None:
    if geometry["type"] not in ("Polygon", "MultiPolygon"):
        return None
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    polygons = [[points(ring) for ring in rings] for rings in parts]
    polygons = [rings for rings in polygons if rings and len(rings[0]) > 2]
    return Region(name, partial(with_holes, polygons)) if polygons else None
