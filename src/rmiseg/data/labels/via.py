"""VGG Image Annotator's JSON and CSV, of versions 1 and 2: a project, or annotations alone. Later regions lie in front.

The class of a region is the text of one of its attributes: such as class or label, or else of the one that most have.
VIA has no library; polygons are drawn by pycocotools, as those of its own export to COCO are.
"""

from __future__ import annotations

import csv
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.recipes import read_text
from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import (
    Annotations,
    LabeledImage,
    LabelFormat,
    Region,
    Tally,
    add_region,
    naming,
    polygon,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import ellipse, points, rectangle
from rmiseg.runtime.files import parse_json

PROJECT = "_via_img_metadata"
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
"""Columns of a CSV file that are read."""
USUAL = ("class", "label", "name", "type", "category", "object")
"""Names that the attribute of the class usually has: taken if half as many regions have it as have another."""


@register("labels", "via")
class VIA(LabelFormat):
    """VGG Image Annotator's JSON."""

    TITLE = "VGG Image Annotator (VIA)"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        tables = documents.files(".csv")[:5]
        return any(_entries(content) is not None for content in documents.peek()) or any(map(_is_table, tables))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = Annotations()
        for path in documents.files(".json", ".csv"):
            if path.suffix.lower() == ".csv":
                entries = _table(path) if _is_table(path) else None
            else:
                entries = _entries(documents.json(path))
            if entries is None:
                found.unused.add("JSON and CSV files are not of VIA", str(path))
                continue
            with naming(path, "VIA's labels"):
                attribute = _attribute(entries)
                if attribute:
                    found.notes.append(f"{path}: the class of a region is its attribute {attribute!r}")
                for entry in entries:
                    image = _image(path, entry, attribute, found.unused)
                    image.split = documents.split_of(path)
                    found.images.append(image)
        return found


def _entries(content: Any) -> list[dict[str, Any]] | None:
    """The images of a file; None if it is none of VIA."""
    if isinstance(content, dict) and isinstance(content.get(PROJECT), dict):
        content = content[PROJECT]
    if not isinstance(content, dict) or not content:
        return None
    entries = [each for each in content.values() if isinstance(each, dict)]
    known = len(entries) == len(content) and all({"filename", "regions"} <= each.keys() for each in entries)
    return entries if known else None


def _is_table(path: Path) -> bool:
    with open(path, "rb") as file:
        return set(COLUMNS) <= set(file.readline(1000).decode("utf-8", "replace").strip("\ufeff#\r\n").split(","))


def _table(path: Path) -> list[dict[str, Any]]:
    """The images of a CSV file, which has a row for each region, or one of an image without any."""
    rows = csv.DictReader(read_text(path).lstrip("#").splitlines(), strict=True)
    entries: dict[str, dict[str, Any]] = {}
    try:
        for row in rows:
            cells = [row.get(column) for column in COLUMNS]
            if None in cells or None in row:
                raise ValueError(f"line {rows.line_num} has another number of cells than the first line")
            name, shape, attributes = (str(cell) for cell in cells)
            entry = entries.setdefault(name, {"filename": name, "regions": []})
            if shape.strip() not in ("", "{}"):
                parts = zip(("shape_attributes", "region_attributes"), map(parse_json, (shape, attributes or "{}")))
                entry["regions"].append(dict(parts))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from error
    return list(entries.values())


def _regions_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    regions = entry["regions"]  # a list; in version 1 a mapping from numbers
    return list(regions.values() if isinstance(regions, dict) else regions)


def _attribute(entries: list[dict[str, Any]]) -> str:
    """The attribute that says the class; "" if there is none."""
    counts = Counter(
        name
        for entry in entries
        for region in _regions_of(entry)
        for name, value in (region.get("region_attributes") or {}).items()
        if _text(value)
    )

    def rank(name: str) -> tuple[bool, int, int]:
        usual = USUAL.index(name.lower()) if name.lower() in USUAL else len(USUAL)
        return usual == len(USUAL) or 2 * counts[name] < max(counts.values()), -counts[name], usual

    return min(counts, key=rank) if counts else ""


def _text(value: Any) -> str:
    """The text of an attribute: that of a field, or of the one box that is ticked; "" if it is none."""
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on is True]
        return ticked[0] if len(ticked) == 1 else ""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _image(path: Path, entry: dict[str, Any], attribute: str, unused: Tally) -> LabeledImage:
    image = LabeledImage(str(entry["filename"]), path)
    for number, region in enumerate(_regions_of(entry), start=1):
        where = f"region {number} of {image.reference}"
        label = _text((region.get("region_attributes") or {}).get(attribute))
        if not label:
            unused.add("labels have no class", where)
            continue
        shape = region["shape_attributes"]
        title, example = f"{where}, {label!r}", f"{label} in {image.reference}"
        add_region(image, shape.get("name"), partial(_region, label, shape), title, example, unused)
    return image


def _region(label: str, shape: dict[str, Any]) -> Region | None:
    kind = shape["name"]
    if kind in ("polygon", "polyline"):
        if len(shape["all_points_x"]) != len(shape["all_points_y"]):
            raise ValueError("a polygon has not as many x as y")
        pairs = points([x for pair in zip(shape["all_points_x"], shape["all_points_y"]) for x in pair])
        return polygon(label, pairs) if kind == "polygon" else None
    if kind == "rect":
        left, top, width, height = points([shape[key] for key in ("x", "y", "width", "height")]).ravel().tolist()
        return polygon(label, rectangle(left, top, width, height), box=True)
    if kind in ("circle", "ellipse"):
        radii = [shape["r"], shape["r"]] if kind == "circle" else [shape["rx"], shape["ry"]]
        turn = float(points([shape.get("theta") or 0, 0])[0, 0])
        return polygon(label, ellipse([shape["cx"], shape["cy"]], radii, turn))
    return None
