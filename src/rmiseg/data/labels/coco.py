"""COCO's JSON with categories of its own: polygons, run lengths, crowds. Roboflow, CVAT and Label Studio export it.

Of objects that overlap the smaller one lies in front, and crowds behind all. Exact by pycocotools. Datumaro and CVAT
call every mask a crowd, which then means nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rmiseg.config.recipes import shortened
from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable
from rmiseg.data.labels.annotations import (
    FEW_CORNERS,
    Annotations,
    JSONFormat,
    LabeledImage,
    PreLabels,
    Region,
    Tally,
    polygon,
    written_classes,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.numbered_masks import is_panoptic
from rmiseg.data.labels.outlines import doubled_area
from rmiseg.data.labels.shapes import exact_polygons, points, rectangle, run_lengths
from rmiseg.data.labels.values import size_of, whole

BY_DATUMARO = [{"name": "", "id": 0, "url": ""}]
"""Licenses of a file that Datumaro wrote."""


@register("labels", "coco")
class COCOFile(JSONFormat):
    """COCO's JSON."""

    TITLE = "COCO JSON"
    WRITES = True
    OWNER, HOLDS = "COCO", "COCO's annotations"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        known = isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()
        return known and not is_panoptic(content)

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        found.smaller_in_front = True
        _read_file(path, content, documents.split_of(path), found)

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`."""
        height, width = labels.ids.shape
        annotations: list[dict[str, Any]] = []
        for class_id, _, corners in labels.polygons():
            (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            annotations.append(
                {
                    "category_id": class_id + 1,
                    "segmentation": [corners.ravel().tolist()],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": abs(doubled_area(corners)) / 2,
                    "iscrowd": 0,
                }
            )
        image = {"file_name": labels.name, "width": width, "height": height}
        return json.dumps({"image": image, "annotations": annotations}, ensure_ascii=False)

    def compose(self, parts: Sequence[str], classes: ClassTable) -> Mapping[str, str]:
        """See `LabelFormat.compose`."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, part in enumerate(map(json.loads, parts), start=1):
            images.append({"id": number, **part["image"]})
            for each in part["annotations"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **each})
        categories = [{"id": i + 1, "name": name, "supercategory": ""} for i, name in written_classes(classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        return {"annotations.json": json.dumps(content, ensure_ascii=False)}


def _read_file(path: Path, content: dict[str, Any], split: str, found: Annotations) -> None:
    names: dict[int | str, str] = {}
    listed = [(_key(each["id"], "the id of a category"), each) for each in content["categories"]]
    for key, category in sorted(listed, key=lambda pair: (isinstance(pair[0], str), pair[0])):
        name = found.add_class(category["name"])
        if names.setdefault(key, name) != name:
            raise ValueError(f"the category id {key} is that of {names[key]} and of {name}")
    images: dict[int | str, LabeledImage] = {}
    for image in content["images"]:
        key = _key(image["id"], "the id of an image")
        if key in images:
            raise ValueError(f"the image id {key} is given twice")
        size = size_of(image) if image.get("height") else None
        reference = image.get("file_name") or PurePosixPath(str(image["coco_url"])).name  # LVIS has addresses alone
        images[key] = LabeledImage(str(reference), path, size=size, split=split)
    crowds = content.get("licenses") != BY_DATUMARO
    for annotation in content["annotations"]:
        image_id = _key(annotation["image_id"], "image_id", images)
        category_id = _key(annotation["category_id"], "category_id", names)
        title = f"annotation {annotation.get('id')}"
        if image_id not in images:
            found.unused.add("annotations of images that are not listed", f"{path.name}: {title}")
        elif category_id not in names:
            raise ValueError(
                f"{title} has the category {category_id}, which is none of {shortened(str(list(names)), 200)}"
            )
        elif region := _region(annotation, names[category_id], title, images[image_id], found.unused):
            images[image_id].regions.append(region if crowds else replace(region, crowd=False))
    found.images += images.values()


def _key(value: Any, title: str, known: Collection[int | str] | None = None) -> int | str:
    """A number; or a text that is none, as some programs make ids, if any that is known is one."""
    is_text = isinstance(value, str) and value and not value.strip().isdecimal()
    return value if is_text and (known is None or any(isinstance(each, str) for each in known)) else whole(value, title)


def _region(annotation: dict[str, Any], label: str, title: str, image: LabeledImage, unused: Tally) -> Region | None:
    outline, crowd = annotation.get("segmentation"), bool(annotation.get("iscrowd", 0))
    try:
        if isinstance(outline, dict):
            counts, size = outline["counts"], list(outline["size"])
            return Region(label, partial(run_lengths, counts, size), crowd=crowd)
        if isinstance(outline, list) and outline and isinstance(outline[0], int | float):
            outline = [outline]  # one polygon, without the list of polygons around it
        polygons = [corners for corners in map(points, outline or []) if len(corners) > 2]
        if polygons:
            return Region(label, partial(exact_polygons, polygons), crowd=crowd)
        if outline:
            unused.add(FEW_CORNERS, f"{image.reference}: {label}")
            return None
        if box := annotation.get("bbox"):
            left, top, width, height = points(box).ravel().tolist()
            return polygon(label, rectangle(left, top, width, height), box=True)
    except ValueError as error:
        raise ValueError(f"{title} of image {image.reference}: {error}") from error
    unused.add("labels without an outline", f"{image.reference}: {label}")
    return None
