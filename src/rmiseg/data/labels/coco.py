"""COCO's JSON with categories of its own: polygons, run lengths, crowds. Roboflow, CVAT and Label Studio export it.

Of objects that overlap the smaller one lies in front, and crowds behind all. Exact by pycocotools. Datumaro and CVAT
call every mask a crowd, which then means nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

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
    written_classes,
)
from rmiseg.data.labels.documents import Documents, class_name, whole
from rmiseg.data.labels.outlines import outlines
from rmiseg.data.labels.shapes import exact_polygons, points, rectangle, run_lengths

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Words in the names of files and folders that say of which split they are."""
BY_DATUMARO = [{"name": "", "id": 0, "url": ""}]
"""Licenses of a file that Datumaro wrote."""


def split_of(path: Path, root: Path) -> str:
    """Return the split that the name of a file, or else of a folder of it below the root, says; "" if none does."""
    for part in reversed(path.relative_to(root).with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return ""


def split_of_folder(path: Path, root: Path) -> str:
    """Return the split that a folder of a file says, whose own name is that of an image; "" if none does."""
    return split_of(path.parent / "_", root)


@register("labels", "coco")
class COCOFile(JSONFormat):
    """COCO's JSON."""

    TITLE = "COCO JSON"
    WRITES = True
    OWNER, HOLDS = "COCO", "COCO's annotations"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return _is_coco(content)

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        found.smaller_in_front = True
        _read_file(path, content, split_of(path, documents.root), found)

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`."""
        height, width = labels.ids.shape
        annotations: list[dict[str, Any]] = []
        for class_id, _ in written_classes(labels.classes):
            for corners in outlines(labels.ids == class_id, labels.tolerance):
                (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
                x, y = corners.T
                area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
                annotations.append(
                    {
                        "category_id": class_id + 1,
                        "segmentation": [corners.ravel().tolist()],
                        "bbox": [left, top, right - left, bottom - top],
                        "area": area,
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


def _is_coco(content: Any) -> bool:
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        return False
    labels = content["annotations"]
    panoptic = isinstance(labels, list) and labels and isinstance(labels[0], dict) and "segments_info" in labels[0]
    return not panoptic  # which is another format


def _read_file(path: Path, content: dict[str, Any], split: str, found: Annotations) -> None:
    names: dict[int | str, str] = {}
    listed = [(_key(each["id"], "the id of a category"), each) for each in content["categories"]]
    for key, category in sorted(listed, key=lambda pair: (isinstance(pair[0], str), pair[0])):
        name = class_name(category["name"])
        if names.setdefault(key, name) != name:
            raise ValueError(f"the category id {key} is that of {names[key]} and of {name}")
    found.classes += [name for name in dict.fromkeys(names.values()) if name not in found.classes]
    images: dict[int | str, LabeledImage] = {}
    for image in content["images"]:
        key = _key(image["id"], "the id of an image")
        if key in images:
            raise ValueError(f"the image id {key} is given twice")
        size = (whole(image["height"], "height"), whole(image["width"], "width")) if image.get("height") else None
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
            return Region(label, partial(exact_polygons, [rectangle(left, top, width, height)]), box=True)
    except ValueError as error:
        raise ValueError(f"{title} of image {image.reference}: {error}") from error
    unused.add("labels without an outline", f"{image.reference}: {label}")
    return None
