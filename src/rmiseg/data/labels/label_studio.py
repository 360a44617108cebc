"""Label Studio's JSON: tasks with polygons and brush strokes. Later labels lie in front.

Polygons are drawn by pycocotools, from the corners that label-studio-sdk exports to COCO; strokes are exact by its own
decoder. Of several annotations of an image the latest is taken; predictions are read only once somebody submitted them.
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
from rmiseg.data.classes import ClassTable
from rmiseg.data.labels.annotations import (
    Annotations,
    LabeledImage,
    LabelFormat,
    PreLabels,
    Region,
    Size,
    Tally,
    add_region,
    naming,
    written_classes,
)
from rmiseg.data.labels.documents import Documents, class_name, whole
from rmiseg.data.labels.outlines import outlines
from rmiseg.data.labels.shapes import exact_polygons, points, rectangle
from rmiseg.data.pairing import IMAGE_SUFFIXES

LABEL_KEYS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels", "labels")


@register("labels", "label-studio")
class LabelStudio(LabelFormat):
    """Label Studio's JSON."""

    TITLE = "Label Studio JSON"
    WRITES = True

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(map(_is_tasks, documents.peek()))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = Annotations()
        several = 0
        for path in documents.files(".json"):
            content = documents.json(path)
            if not _is_tasks(content):
                found.unused.add("JSON files are not of Label Studio, with its tasks", str(path))
                continue
            for number, task in enumerate(content, start=1):
                with naming(f"{path}, task {task.get('id', number)}", "Label Studio's labels"):
                    image, count = _image(task, path, found.unused)
                found.images.append(image)
                several += count > 1
        if several:
            found.notes.append(f"{several} images have several annotations, of which the latest is taken")
        return found

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`."""
        height, width = labels.ids.shape
        result: list[dict[str, Any]] = []
        for class_id, name in written_classes(labels.classes):
            for corners in outlines(labels.ids == class_id, labels.tolerance):
                value = {
                    "points": (100 * corners / (width, height)).tolist(),
                    "closed": True,
                    "polygonlabels": [name],
                }
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
            color = "#{:02x}{:02x}{:02x}".format(*classes.palette[class_id])
            ElementTree.SubElement(labels, "Label", value=name, background=color)
        ElementTree.indent(view)
        config = ElementTree.tostring(view, encoding="unicode") + "\n"
        return {"tasks.json": f"[{', '.join(parts)}]\n", "config.xml": config}


def _is_tasks(content: Any) -> bool:
    keys = {"annotations", "completions", "predictions"}
    return (
        isinstance(content, list)
        and all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in content)
        and any(keys & task.keys() for task in content)
    )


def _image(task: dict[str, Any], path: Path, unused: Tally) -> tuple[LabeledImage, int]:
    """The image of a task, with its labels, and the number of its annotations."""
    texts = {key: value for key, value in task["data"].items() if isinstance(value, str)}
    pictures = [text for text in texts.values() if text.lower().endswith(IMAGE_SUFFIXES)]
    reference = texts.get("image") or (pictures or [""])[0]
    if not reference:
        raise ValueError(f"its data name no image: {', '.join(task['data'])}")
    image = LabeledImage(reference, path)
    annotations = task.get("annotations", task.get("completions")) or []
    annotations = [each for each in annotations if not each.get("was_cancelled")]
    if not annotations:
        if task.get("predictions"):
            unused.add("images have predictions alone, which nobody has submitted", PurePosixPath(reference).name)
        return image, 0
    latest = max(annotations, key=lambda each: str(each.get("updated_at") or each.get("created_at") or ""))
    results = latest["result"]
    labels = {each["id"]: label for each in results if (label := _label(each)) and "id" in each}
    for number, each in enumerate(results, start=1):
        value = each.get("value", {})
        if not isinstance(value, dict) or not {"points", "rle", "x"} & value.keys():
            continue  # a choice, a text; or the class of a label that comes apart
        name = _label(each) or labels.get(each.get("id"), "")
        if not name:
            unused.add("labels have no class", f"{reference}, label {number}")
            continue
        if any(isinstance(value.get(key), list) and value[key][1:] for key in LABEL_KEYS):
            unused.add("labels have several classes, of which the first is taken", f"{name} in {reference}")
        if each.get("image_rotation"):
            unused.add("labels are on images that were rotated in Label Studio", f"{name} in {reference}")
        else:
            image.size = (whole(each["original_height"], "original_height"), whole(each["original_width"], "width"))
            reason = f"labels are of the kind {each.get('type')}, whose area is not read"
            title, example = f"label {number}, {name!r}", f"{name} in {reference}"
            add_region(image, partial(_region, name, value, image.size), title, unused, reason, example)
    return image, len(annotations)


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
        corners = points(value["points"]) / 100 * scale
        return Region(name, partial(exact_polygons, [corners])) if len(corners) > 2 else None
    if "width" in value and "height" in value and not value.get("rotation"):
        corners = rectangle(*points([value[key] for key in ("x", "y", "width", "height")]).ravel().tolist())
        return Region(name, partial(exact_polygons, [corners / 100 * scale]), box=True)
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
