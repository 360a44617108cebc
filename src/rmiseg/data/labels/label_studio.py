"""Label Studio's JSON: tasks with polygons and brush strokes. Later labels lie in front.

Polygons are drawn by pycocotools, from the corners that label-studio-sdk exports to COCO; strokes are exact by its own
decoder. Of several annotations of an image the latest is taken, or that called ground truth; predictions are read only
once somebody submitted them.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable, hex_of
from rmiseg.data.labels.annotations import (
    Annotations,
    LabeledImage,
    LabelFormat,
    PreLabels,
    Region,
    Tally,
    add_region,
    naming,
    polygon,
    without_area,
    written_classes,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import ellipse, points, rectangle, rotated
from rmiseg.data.labels.values import Size, class_name, size_of
from rmiseg.data.sets.pairing import IMAGE_SUFFIXES

LABEL_KEYS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels", "labels")
AREA_KEYS = {"points", "rle", "x"}
"""Keys of a value that has a place in the image."""
OTHER_KEYS = {"vertices", "imageDataURL", "sequence", "keypointlabels", "vectorlabels", "bitmasklabels"}
"""Keys of a value that has one, too, and is not read."""


@register("labels", "label-studio")
class LabelStudio(LabelFormat):
    """Label Studio's JSON."""

    TITLE = "Label Studio JSON"
    WRITES = True

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(_tasks(content) is not None for content in documents.peek())

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = Annotations()
        several = 0
        for path in documents.files(".json"):
            tasks = _tasks(documents.json(path))
            if tasks is None:
                found.unused.add("JSON files are not of Label Studio, with its tasks", str(path))
                continue
            for number, task in enumerate(tasks, start=1):
                with naming(f"{path}, task {task.get('id', number)}", "Label Studio's labels"):
                    image, count = _image(task, path, found.unused)
                found.images.append(image)
                several += count > 1
        if several:
            found.notes.append(
                f"{several} images have several annotations, of which the latest is taken, or that called ground truth"
            )
        return found

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`."""
        height, width = labels.ids.shape
        result: list[dict[str, Any]] = []
        for _, name, corners in labels.polygons():
            value = {"points": (100 * corners / (width, height)).tolist(), "closed": True, "polygonlabels": [name]}
            place = {"original_width": width, "original_height": height, "image_rotation": 0}
            names = {"from_name": "label", "to_name": "image", "type": "polygonlabels"}
            result.append({"id": f"r{len(result)}", **names, **place, "value": value})
        prediction = {"model_version": "rmiseg", "result": result}
        task = {"data": {"image": f"/data/local-files/?d={quote(labels.name)}"}, "predictions": [prediction]}
        return json.dumps(task, ensure_ascii=False)

    def compose(self, parts: Sequence[str], classes: ClassTable) -> Mapping[str, str]:
        """See `LabelFormat.compose`."""
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
        labels = ElementTree.SubElement(view, "PolygonLabels", name="label", toName="image", strokeWidth="2")
        for class_id, name in written_classes(classes):
            color = hex_of(classes.palette[class_id])
            ElementTree.SubElement(labels, "Label", value=name, background=color)
        ElementTree.indent(view)
        config = ElementTree.tostring(view, encoding="unicode") + "\n"
        return {"tasks.json": f"[{', '.join(parts)}]\n", "config.xml": config}


def _tasks(content: Any) -> list[dict[str, Any]] | None:
    """The tasks of a file, which may hold one alone; None if it is none of Label Studio."""
    keys = {"annotations", "completions", "predictions"}
    tasks = [content] if isinstance(content, dict) else content
    known = isinstance(tasks, list) and all(
        isinstance(each, dict) and isinstance(each.get("data"), dict) for each in tasks
    )
    return tasks if known and any(keys & task.keys() for task in tasks) else None


def _image(task: dict[str, Any], path: Path, unused: Tally) -> tuple[LabeledImage, int]:
    """The image of a task, with its labels, and the number of its annotations."""
    texts = {key: value for key, value in task["data"].items() if isinstance(value, str)}
    pages = next((key for key, value in task["data"].items() if _is_pages(value)), "")
    if pages:
        raise ValueError(f"it has several images, {pages}: make a task of each")
    annotations = task.get("annotations", task.get("completions")) or []
    annotations = [each for each in annotations if not each.get("was_cancelled")]
    reference = _reference(texts, annotations)
    if not reference:
        video = " A video is to be exported as frames." if "video" in texts else ""
        raise ValueError(f"its data name no image: {', '.join(task['data'])}.{video}")
    image = LabeledImage(reference, path)
    if reference.startswith("data:"):
        image = LabeledImage(f"task{task.get('id', '')}", path, embedded=reference.partition(",")[2])
        reference = image.reference
    if not annotations:
        if task.get("predictions") or task.get("drafts"):
            unused.add(
                "images have predictions or drafts alone, which nobody has submitted", PurePosixPath(reference).name
            )
        return image, 0
    chosen = max(annotations, key=_worth)
    _add_results(image, chosen["result"], unused)
    return image, len(annotations)


def _add_results(image: LabeledImage, results: list[dict[str, Any]], unused: Tally) -> None:
    """Add the labels of an annotation. What somebody says of a label comes apart, with its outline once more."""
    names = {each["id"]: label for each in results if (label := _label(each)) and "id" in each}
    seen = set()
    for number, each in enumerate(results, start=1):
        value = each.get("value", {})
        if not isinstance(value, dict) or not (AREA_KEYS | OTHER_KEYS) & value.keys() or each.get("id") in seen:
            continue  # a choice, a text; or the class of a label that comes apart
        seen |= {each["id"]} if "id" in each else set()
        if each.get("item_index"):
            raise ValueError(f"label {number} is on another image of several (item_index): make a task of each")
        if OTHER_KEYS & value.keys():
            unused.add(without_area(each.get("type")), f"label {number} in {image.reference}")
            continue
        name = _label(each) or names.get(each.get("id"), "")
        if not name:
            unused.add("labels have no class", f"{image.reference}, label {number}")
            continue
        example = f"{name} in {image.reference}"
        if any(isinstance(value.get(key), list) and value[key][1:] for key in LABEL_KEYS):
            unused.add("labels have several classes, of which the first is taken", example)
        if each.get("image_rotation"):
            unused.add("labels are on images that were rotated in Label Studio", example)
            continue
        size = size_of(each, "original_height", "original_width")
        image.size = image.size or size
        if size != image.size:
            unused.add("labels are for another size than those before them", f"{example}: {size[1]} x {size[0]}")
            continue
        kind, read = "polygon" if "points" in value else each.get("type"), partial(_region, name, value, size)
        add_region(image, kind, read, f"label {number}, {name!r}", example, unused)


def _worth(annotation: dict[str, Any]) -> tuple[bool, str]:
    """Rank of an annotation: one called ground truth comes before others, and then the latest."""
    changed = annotation.get("updated_at") or annotation.get("created_at") or ""
    return annotation.get("ground_truth") is True, str(changed)


def _is_pages(value: Any) -> bool:
    return isinstance(value, list) and any(str(each).lower().endswith(IMAGE_SUFFIXES) for each in value)


def _reference(texts: dict[str, str], annotations: list[dict[str, Any]]) -> str:
    """The image of a task; "" if it names none.

    Raises:
        ValueError: It names several, and labels do not say of which they are.
    """
    pictures = {key: text for key, text in texts.items() if text.lower().endswith(IMAGE_SUFFIXES)}
    if "image" in texts:
        pictures.setdefault("image", texts["image"])
    places = {
        str(each.get("to_name"))
        for annotation in annotations
        for each in annotation["result"]
        if isinstance(each.get("value"), dict) and AREA_KEYS & each["value"].keys()
    }
    if len(places) > 1:
        raise ValueError(f"it has labels on several images, {', '.join(sorted(places))}: make a task of each")
    if len(pictures) > 1 and places:
        (place,) = places
        if place not in pictures and place != "image":
            raise ValueError(f"its labels are on {place!r}, which is none of its images {', '.join(pictures)}")
        return pictures.get(place, "")
    return texts.get("image") or next(iter(pictures.values()), "")


def _label(result: dict[str, Any]) -> str:
    """The class of a label, the first if it has several; "" if it has none."""
    value = result.get("value")
    if not isinstance(value, dict):
        return ""
    return next((class_name(value[key][0]) for key in LABEL_KEYS if value.get(key)), "")


def _region(name: str, value: dict[str, Any], size: Size) -> Region | None:
    scale = np.array(size[::-1], np.float64)
    if "rle" in value:
        return Region(name, partial(brush, value["rle"]))
    if "points" in value:
        return polygon(name, points(value["points"]) / 100 * scale)
    turn = float(np.deg2rad(float(points([value.get("rotation") or 0, 0])[0, 0])))
    if "radiusX" in value:
        center, radii = points([value[key] for key in ("x", "y", "radiusX", "radiusY")]) / 100 * scale
        return polygon(name, ellipse(center, radii, turn))
    if "width" in value and "height" in value:
        left, top, width, height = points([value[key] for key in ("x", "y", "width", "height")]).ravel().tolist()
        corners = rectangle(left, top, width, height) / 100 * scale
        return polygon(name, rotated(corners, turn, corners[0]), box=True)
    return None


def brush(numbers: Any, size: Size) -> NDArray[np.bool_]:
    """Return the pixels of brush strokes: runs of four bytes a pixel, of which the last, the opacity, counts.

    Args:
        numbers: The packed bytes.
        size: Height and width of the image.

    Raises:
        ValueError: They are damaged, or for an image of another size.
    """
    try:
        packed = np.asarray(numbers)
        if packed.ndim != 1 or packed.dtype.kind != "i" or packed.min() < 0 or packed.max() > 255:
            raise ValueError("strokes must be numbers from 0 to 255")
    except (TypeError, OverflowError) as error:
        raise ValueError("strokes must be numbers from 0 to 255") from error
    bits = _Bits(packed.astype(np.uint8))
    count = bits.number(32)
    if count != 4 * size[0] * size[1]:
        raise ValueError(f"strokes are for {count // 4} pixels, not the {size[1]} x {size[0]} of the image")
    word = bits.number(5) + 1
    widths = [bits.number(4) + 1 for _ in range(4)]
    values: list[int] = []
    lengths: list[int] = []
    done = 0
    while done < count:
        repeated = bits.number(1)
        length = 1 + bits.number(widths[bits.number(2)])
        if repeated:
            values.append(bits.number(word))
            lengths.append(length)
        else:
            values += [bits.number(word) for _ in range(length)]
            lengths += [1] * length
        done += length
    drawn = np.repeat(np.array(values, np.int64), lengths)[:count].reshape(*size, 4)[..., 3]
    return np.asarray(drawn > 0)


class _Bits:
    """Numbers of any count of bits, one after the other."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.text = np.unpackbits(data).astype(np.uint8).tobytes().translate(bytes([48, 49]) + bytes(range(2, 256)))
        self.place = 0

    def number(self, bits: int) -> int:
        """Return the next number."""
        self.place += bits
        if self.place > len(self.text):
            raise ValueError("strokes are cut short")
        return int(self.text[self.place - bits : self.place], 2)
