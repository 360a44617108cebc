"""Hasty's JSON (version 1.1): one file of all images, with polygons and boxes. Those of larger z_index lie in front."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import (
    FEW_CORNERS,
    Annotations,
    JSONFormat,
    LabeledImage,
    Region,
    Tally,
    add_region,
)
from rmiseg.data.labels.coco import SPLITS, split_of
from rmiseg.data.labels.cvat import hex_color
from rmiseg.data.labels.documents import Documents, class_name, whole
from rmiseg.data.labels.shapes import between, exact_polygons, points


@register("labels", "hasty")
class Hasty(JSONFormat):
    """Hasty's JSON."""

    TITLE = "Hasty JSON"
    OWNER, HOLDS = "Hasty", "Hasty's labels"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return _is_hasty(content)

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        for each in content["label_classes"]:
            found.classes.append(class_name(each["class_name"]))
            if color := hex_color(str(each.get("color"))[:7]):
                found.colors[found.classes[-1]] = color
        found.images += [_image(each, path, documents, found.unused) for each in content["images"]]


def _is_hasty(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "label_classes"} <= content.keys()


def _image(entry: dict[str, Any], path: Path, documents: Documents, unused: Tally) -> LabeledImage:
    folder, name = str(entry.get("dataset_name") or ""), str(entry["image_name"])
    size = whole(entry["height"], "height"), whole(entry["width"], "width")
    split = SPLITS.get(folder.lower()) or split_of(path, documents.root)
    image = LabeledImage(f"{folder}/{name}".lstrip("/"), path, size=size, split=split)
    labels = list(entry["labels"])
    labels.sort(key=lambda label: whole(label.get("z_index") or 0, "z_index"))
    for number, label in enumerate(labels, start=1):
        label_name = class_name(label["class_name"])
        title, example = f"image {name}, label {number}, {label_name!r}", f"{label_name} in {name}"
        add_region(image, partial(_region, label_name, label), title, unused, FEW_CORNERS, example)
    return image


def _region(name: str, label: dict[str, Any]) -> Region | None:
    if label.get("mask"):
        raise ValueError("it is a mask of Hasty's own code: export PNG masks, or COCO, which are read")
    if label.get("polygon"):
        corners = points(label["polygon"])
        return Region(name, partial(exact_polygons, [corners])) if len(corners) > 2 else None
    (left, top), (right, bottom) = points(label["bbox"]).tolist()
    return Region(name, partial(exact_polygons, [between(left, top, right, bottom)]), box=True)
