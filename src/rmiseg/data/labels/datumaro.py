"""Datumaro's JSON, of CVAT and others: annotations/SPLIT.json, with polygons, masks and boxes.

Later labels of the same or a larger z_order lie in front. Polygons are drawn by pycocotools, as Datumaro does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import Annotations, JSONFormat, LabeledImage, Region, Tally, add_region, polygon
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import ellipse, points, rectangle, run_lengths
from rmiseg.data.labels.values import whole

NO_PLACE = ("label", "caption", "tabular", "feature_vector")
"""Kinds of annotations that are of no place in the image."""

OTHER_MEDIA = ("video", "video_frame", "point_cloud", "multiframe")
"""Keys of an item that is no image. One without any has the name of its image as its id."""


@register("labels", "datumaro")
class Datumaro(JSONFormat):
    """Datumaro's JSON."""

    TITLE = "Datumaro JSON"
    OWNER, HOLDS = "Datumaro", "Datumaro's labels"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        categories = content.get("categories") if isinstance(content, dict) else None
        return isinstance(categories, dict) and "label" in categories and isinstance(content.get("items"), list)

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        names = [found.add_class(each["name"]) for each in content["categories"]["label"]["labels"]]
        for each in content["categories"].get("mask", {}).get("colormap", []):
            color = tuple(whole(each[channel], "a color") for channel in "rgb")
            index = whole(each["label_id"], "label_id")
            if index in range(len(names)) and all(0 <= value < 256 for value in color):
                found.colors[names[index]] = (color[0], color[1], color[2])
        split = documents.split_of(path)
        found.images += [_image(item, names, path, split, found.unused) for item in content["items"]]


def _image(item: dict[str, Any], names: list[str], path: Path, split: str, unused: Tally) -> LabeledImage:
    media = item.get("image") or {}
    if other := [key for key in OTHER_MEDIA if key in item]:
        raise ValueError(f"the item {item['id']} is no image, but {other[0]}")
    size = media.get("size")
    image = LabeledImage(str(media.get("path") or item["id"]), path, split=split)
    if size:
        image.size = whole(size[0], "height"), whole(size[1], "width")
    labels = [each for each in item["annotations"] if each["type"] not in NO_PLACE]
    labels.sort(key=lambda each: whole(each.get("z_order") or 0, "z_order"))
    for number, each in enumerate(labels, start=1):
        if each.get("label_id") is None:
            unused.add("labels have no class", f"item {item['id']}, annotation {number}")
            continue
        index = whole(each["label_id"], "label_id")
        if index not in range(len(names)):
            raise ValueError(f"annotation {number} of item {item['id']} has the label {index}, of {len(names)}")
        title, example = f"item {item['id']}, annotation {number}", f"{names[index]} in {item['id']}"
        read = partial(_region, each["type"], names[index], each)
        add_region(image, each["type"], read, title, example, unused)
    return image


def _region(kind: Any, name: str, label: dict[str, Any]) -> Region | None:
    if kind == "polygon":
        return polygon(name, points(label["points"]))
    if kind == "mask":
        return Region(name, partial(run_lengths, label["rle"]["counts"], list(label["rle"]["size"])))
    if kind == "bbox":
        return polygon(name, rectangle(*points(label["bbox"]).ravel().tolist()), box=True)
    if kind == "ellipse":
        low, high = points(label["points"])
        return polygon(name, ellipse((low + high) / 2, (high - low) / 2))
    return None
