"""Hasty's JSON (version 1.1): one file of all images, with polygons and boxes. Those of larger z_index lie in front."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import Annotations, JSONFormat, LabeledImage, Region, Tally, add_region, polygon
from rmiseg.data.labels.documents import SPLITS, Documents
from rmiseg.data.labels.shapes import between, points
from rmiseg.data.labels.values import class_name, hex_color, size_of, whole


@register("labels", "hasty")
class Hasty(JSONFormat):
    """Hasty's JSON."""

    TITLE = "Hasty JSON"
    OWNER, HOLDS = "Hasty", "Hasty's labels"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return isinstance(content, dict) and {"images", "label_classes"} <= content.keys()

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        for each in content["label_classes"]:
            found.add_class(each["class_name"], hex_color(str(each.get("color"))[:7]))
        found.images += [_image(each, path, documents, found.unused) for each in content["images"]]


def _image(entry: dict[str, Any], path: Path, documents: Documents, unused: Tally) -> LabeledImage:
    folder, name = str(entry.get("dataset_name") or ""), str(entry["image_name"])
    split = SPLITS.get(folder.lower()) or documents.split_of(path)
    image = LabeledImage(f"{folder}/{name}".lstrip("/"), path, size=size_of(entry), split=split)
    labels = list(entry["labels"])
    labels.sort(key=lambda label: whole(label.get("z_index") or 0, "z_index"))
    for number, label in enumerate(labels, start=1):
        label_name = class_name(label["class_name"])
        title, example = f"image {name}, label {number}, {label_name!r}", f"{label_name} in {name}"
        add_region(image, "polygon", partial(_region, label_name, label), title, example, unused)
    return image


def _region(name: str, label: dict[str, Any]) -> Region | None:
    if label.get("mask"):
        raise ValueError("it is a mask of Hasty's own code: export PNG masks, or COCO, which are read")
    if label.get("polygon"):
        return polygon(name, points(label["polygon"]))
    (left, top), (right, bottom) = points(label["bbox"]).tolist()
    return polygon(name, between(left, top, right, bottom), box=True)
