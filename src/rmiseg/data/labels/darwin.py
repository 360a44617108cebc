"""V7's Darwin JSON, versions 1 and 2: one file an image, with polygons, masks and boxes. Later labels lie in front.

Rings of a polygon are its outlines and holes in turn (even-odd). Masks are one layer of numbers for all of an image.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.recipes import shortened
from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import (
    Annotations,
    JSONFormat,
    LabeledImage,
    Region,
    Tally,
    add_region,
    naming,
    polygon,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import ellipse, even_odd, points, rectangle
from rmiseg.data.labels.values import Size, class_name, size_of, whole

KINDS = ("polygon", "complex_polygon", "ellipse", "mask", "raster_layer", "bounding_box")
"""Kinds of labels that have an area; a polygon and an ellipse have a bounding box beside them."""
OTHER_KINDS = ("tag", "line", "keypoint", "skeleton", "cuboid", "link", "string", "graph", "table", "eye")
"""Kinds of labels that have none."""


@register("labels", "darwin")
class Darwin(JSONFormat):
    """V7's Darwin JSON."""

    TITLE = "V7 Darwin JSON"
    OWNER, HOLDS = "Darwin", "Darwin's labels"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            return False
        item, image = content.get("item"), content.get("image")
        second = isinstance(item, dict) and isinstance(item.get("slots"), list)
        return second or (isinstance(image, dict) and "dataset" in content and "filename" in image)

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        image = _image(path, content, found.unused)
        image.split = documents.split_of_folder(path)
        found.images.append(image)


def _image(path: Path, content: dict[str, Any], unused: Tally) -> LabeledImage:
    if "item" in content:
        item = content["item"]
        if len(item["slots"]) != 1:
            raise ValueError(f"it has {len(item['slots'])} images in slots: one can be read")
        place = item["slots"][0]
        reference = f"{str(item.get('path') or '/').strip('/')}/{item['name']}".lstrip("/")
        video = place.get("type") in ("video", "dicom") and place.get("frame_count", 1) != 1
    else:
        place = content["image"]
        reference, video = str(place["filename"]), "frame_count" in place
    labels = content["annotations"]
    if video or any("frames" in each for each in labels):
        raise ValueError("it is of a video or of slices: export its frames as images")
    image = LabeledImage(reference, path, size=size_of(place) if place.get("height") else None)
    masks = {each["id"]: class_name(each["name"]) for each in labels if "mask" in each and "id" in each}
    for number, each in enumerate(labels, start=1):
        kind = next((kind for kind in KINDS if kind in each), "")
        title = f"annotation {number}, {shortened(repr(each.get('name')), 60)}"
        if kind == "raster_layer":
            with naming(title, "a layer of masks"):
                image.regions += _layer(each["raster_layer"], masks)
        elif kind != "mask":  # whose pixels are in the layer
            name = class_name(each["name"])
            other = next((key for key in OTHER_KINDS if key in each), "unknown")
            read = partial(_region, kind, name, each)
            add_region(image, kind or other, read, title, f"{name} in {path.name}", unused)
    return image


def _region(kind: str, name: str, label: dict[str, Any]) -> Region | None:
    if kind == "bounding_box":
        box = label["bounding_box"]
        corners = rectangle(*points([box[key] for key in ("x", "y", "w", "h")]).ravel().tolist())
        return polygon(name, corners, box=True)
    if not kind:
        return None
    shape = label[kind]
    if kind == "ellipse":
        center, radii = ([shape[key]["x"], shape[key]["y"]] for key in ("center", "radius"))
        turn = float(points([shape.get("angle") or 0, 0])[0, 0])
        return polygon(name, ellipse(center, radii, turn))
    paths = shape.get("paths") or shape.get("path") or []
    if paths and isinstance(paths[0], dict):
        paths = [paths, *(shape.get("additional_paths") or [])]
    rings = [points([[corner["x"], corner["y"]] for corner in path] or np.zeros((0, 2))) for path in paths]
    rings = [ring for ring in rings if len(ring) > 2]
    return Region(name, partial(even_odd, rings)) if rings else None


def _layer(layer: dict[str, Any], masks: dict[str, str]) -> list[Region]:
    regions = []
    for key, value in layer["mask_annotation_ids_mapping"].items():
        if key not in masks:
            raise ValueError(f"no annotation has the id {shortened(repr(key), 60)} of a mask")
        regions.append(Region(masks[key], partial(_layer_pixels, layer["dense_rle"], whole(value, "a mask's number"))))
    return regions


def _layer_pixels(pairs: Any, value: int, size: Size) -> NDArray[np.bool_]:
    """The pixels with a value, of pairs of a value and how many pixels in a row have it."""
    try:
        numbers = np.asarray(pairs, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a layer must be whole numbers, not {shortened(repr(pairs), 100)}") from error
    total = size[0] * size[1]
    if numbers.ndim != 1 or numbers.size % 2 or (numbers < 0).any() or (numbers[1::2] > total).any():
        raise ValueError("a layer must be pairs of a value and a number of pixels")
    if int(numbers[1::2].sum()) != total:
        raise ValueError(f"the pixels of a layer must add up to the {total} of its image")
    return np.asarray(np.repeat(numbers[::2] == value, numbers[1::2]).reshape(size))
