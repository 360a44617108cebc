"""labelme's JSON, one file an image: polygons, rectangles, circles, masks. Later shapes lie in front.

Exact by labelme.utils.shape. Predictions are polygons through the centers of the outermost pixels: labelme draws the
line itself too. A file labels.txt, as labelme's --labels takes it, gives the order of the classes.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import Annotations, JSONFormat, LabeledImage, PreLabels, Region, Tally, add_region
from rmiseg.data.labels.documents import Documents, read_lines
from rmiseg.data.labels.shapes import bitmap, outlined_circle, outlined_polygon, outlined_rectangle, points
from rmiseg.data.labels.values import class_name, size_of

LABELS_FILE = "labels.txt"
OTHER_KINDS = {"rotation": "oriented_rectangle", "quadrilateral": "polygon"}
"""Kinds of shapes as X-AnyLabeling calls them, and labelme."""


@register("labels", "labelme")
class Labelme(JSONFormat):
    """labelme's JSON."""

    TITLE = "labelme JSON"
    WRITES = True
    TOGETHER = False
    OWNER, HOLDS = "labelme", "labelme's labels"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = super().read(documents)
        for path in documents.files(LABELS_FILE):
            for line in read_lines(path):
                found.add_class(line)
        if documents.source.is_dir():
            named = {image.path for image in found.images}
            found.unlabeled = [path for path in documents.image_files() if path not in named]
        return found

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        image = _image(path, content, found.unused)
        image.split = documents.split_of_folder(path)
        try:
            image.path = documents.find_image(image.reference, path)
        except ValueError:
            if not image.embedded:
                raise
            image.reference = PurePosixPath(image.reference.replace("\\", "/")).name or path.stem
        found.images.append(image)

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`."""
        shapes = [
            {
                "label": name,
                "points": corners.tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for _, name, corners in labels.polygons(through_centers=True)
        ]
        try:
            path = os.path.relpath(labels.image.resolve(), file.parent.resolve())
        except ValueError:  # on another drive
            path = str(labels.image.resolve())
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": path,
            "imageData": None,
            "imageHeight": labels.ids.shape[0],
            "imageWidth": labels.ids.shape[1],
        }
        return json.dumps(content, ensure_ascii=False, indent=2)


def _image(path: Path, content: dict[str, Any], unused: Tally) -> LabeledImage:
    size = size_of(content, "imageHeight", "imageWidth") if content.get("imageHeight") else None
    embedded = content.get("imageData")
    if isinstance(embedded, str) and embedded.startswith("data:"):
        embedded = embedded.partition(",")[2]
    reference = content["imagePath"] or (path.stem if embedded else "")  # which some programs leave out
    image = LabeledImage(str(reference), path, size=size, embedded=embedded)
    for number, shape in enumerate(content["shapes"], start=1):
        label = class_name(shape["label"])
        title, example = f"shape {number}, {label!r}", f"{label} in {path.name}"
        add_region(image, _kind(shape), partial(_region, label, shape), title, example, unused)
    return image


def _kind(shape: dict[str, Any]) -> str:
    kind = str(shape.get("shape_type") or "polygon")
    return OTHER_KINDS.get(kind, kind)


def _region(label: str, shape: dict[str, Any]) -> Region | None:
    kind = _kind(shape)
    corners = points(shape["points"])
    if kind == "rectangle" and len(corners) == 4:  # as some programs write them
        low, high = corners.min(axis=0), corners.max(axis=0)
        if ((corners == low) | (corners == high)).all():
            return Region(label, partial(outlined_rectangle, points([*low, *high])), box=True)
    if kind == "polygon" and len(corners) < 3:
        return None
    if kind == "polygon":
        return Region(label, partial(outlined_polygon, corners))
    if kind == "oriented_rectangle" and len(corners) == 4:
        return Region(label, partial(outlined_polygon, corners), box=True)
    if kind == "rectangle" and len(corners) == 2:
        return Region(label, partial(outlined_rectangle, corners), box=True)
    if kind == "circle" and len(corners) == 2:
        return Region(label, partial(outlined_circle, corners))
    if kind == "mask" and len(corners) == 2:
        left, top = (int(x) for x in corners[0].tolist())
        return Region(label, partial(bitmap, shape["mask"], left, top))
    if kind in ("oriented_rectangle", "rectangle", "circle", "mask"):
        raise ValueError(f"a {kind} has {len(corners)} points")
    return None
