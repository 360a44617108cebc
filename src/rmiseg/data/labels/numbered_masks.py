"""Masks of numbers beside a table of their meanings: Roboflow's "semantic segmentation masks", and COCO panoptic.

train/ a.jpg  a_mask.png  _classes.csv      Roboflow: `Pixel Value, Class`, then lines such as `1, car`
panoptic_train2017.json  panoptic_train2017/ a.png      COCO panoptic: numbers of segments, red + 256 green + 65536 blue
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rmiseg.config.recipes import read_text
from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import (
    IGNORED_NAMES,
    Annotations,
    JSONFormat,
    LabeledImage,
    LabelFormat,
    Region,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.shapes import mask_numbers, pixels_of_value
from rmiseg.data.labels.values import whole

TABLE = "_classes.csv"
MASK_ENDING = "_mask"


@register("labels", "roboflow-masks")
class RoboflowMasks(LabelFormat):
    """Roboflow's masks."""

    TITLE = "Roboflow's semantic segmentation masks"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(_masks(table.parent, documents) for table in _tables(documents))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        mask_numbers.cache_clear()  # files may have changed
        found = Annotations()
        for table in _tables(documents):
            names = _meanings(table)
            for name in names.values():
                found.add_class(name)
            files = _masks(table.parent, documents)
            masks = {path.stem.removesuffix(MASK_ENDING): path for path in files}
            split = documents.split_of_folder(table)
            for path in documents.image_files():
                if path.parent != table.parent or path in files:
                    continue
                if path.stem not in masks:
                    found.unlabeled.append(path)
                    continue
                mask = masks.pop(path.stem)
                numbers = mask_numbers(mask, False)
                regions = []
                for value, count in zip(*np.unique(numbers, return_counts=True)):
                    if int(value) not in names:
                        raise ValueError(
                            f"{mask} has {count} pixels of the value {value}, which has no name in {table}"
                        )
                    regions.append(Region(names[int(value)], partial(pixels_of_value, mask, False, int(value))))
                size = numbers.shape[0], numbers.shape[1]
                found.images.append(LabeledImage(str(path), mask, regions, size=size, split=split, path=path))
            for mask in masks.values():
                found.unused.add("masks have no image", str(mask))
        return found


def _tables(documents: Documents) -> list[Path]:
    return [path for path in documents.files(TABLE) if path.name.lower() == TABLE]


def _masks(folder: Path, documents: Documents) -> list[Path]:
    return [path for path in documents.files(f"{MASK_ENDING}.png") if path.parent == folder]


def _meanings(table: Path) -> dict[int, str]:
    """The class of each value."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(table).splitlines()) if any(row)]
    if not rows or [cell.lower() for cell in rows[0]] != ["pixel value", "class"]:
        raise ValueError(f"{table} does not begin with `Pixel Value, Class`")
    names: dict[int, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not row[1]:
            raise ValueError(f"{table}, line {number}: {','.join(row)[:100]!r} is not like `1, car`")
        value = whole(row[0], f"{table}, line {number}: a pixel value")
        if value in names:
            raise ValueError(f"{table}, line {number}: the value {value} is {names[value]} and {row[1]}")
        names[value] = row[1]
    return names


@register("labels", "coco-panoptic")
class Panoptic(JSONFormat):
    """COCO panoptic."""

    TITLE = "COCO panoptic"
    OWNER, HOLDS = "COCO panoptic", "COCO's panoptic annotations"

    def is_own(self, content: Any) -> bool:
        """See `JSONFormat.is_own`."""
        return is_panoptic(content)

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        mask_numbers.cache_clear()
        return super().read(documents)

    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """See `JSONFormat.read_file`."""
        names = {
            whole(each["id"], "the id of a category"): found.add_class(each["name"]) for each in content["categories"]
        }
        files = {each["id"]: str(each["file_name"]) for each in content["images"]}
        split = documents.split_of(path)
        images: dict[str, list[Path]] = {}  # which may be called as their segments are
        for each in documents.image_files():
            images.setdefault(each.name, []).append(each)
        for label in content["annotations"]:
            reference = files.get(label["image_id"], Path(str(label["file_name"])).stem + ".jpg")
            image = LabeledImage(reference, path, split=split)
            mask = _panoptic_mask(str(label["file_name"]), path, documents)
            segments = {whole(each["id"], "the id of a segment"): each for each in label["segments_info"]}
            numbers = mask_numbers(mask, True)
            image.size = numbers.shape[0], numbers.shape[1]
            beside = [each for each in images.get(Path(reference).name, []) if each.parent != mask.parent]
            image.path = beside[0] if len(beside) == 1 else documents.find_image(reference, path)
            for value, count in zip(*np.unique(numbers, return_counts=True)):
                if value and int(value) not in segments:
                    raise ValueError(f"{mask} has {count} pixels of the segment {value}, which is not listed")
                name = IGNORED_NAMES[0]
                if value:
                    category = whole(segments[int(value)]["category_id"], "category_id")
                    if category not in names:
                        raise ValueError(f"a segment of {reference} has the category {category}, which has no name")
                    name = names[category]
                image.regions.append(Region(name, partial(pixels_of_value, mask, True, int(value))))
            found.images.append(image)


def is_panoptic(content: Any) -> bool:
    """Tell whether a JSON file is of COCO panoptic, whose annotations are an image each."""
    labels = content.get("annotations") if isinstance(content, dict) else None
    return isinstance(labels, list) and bool(labels) and isinstance(labels[0], dict) and "segments_info" in labels[0]


def _panoptic_mask(name: str, path: Path, documents: Documents) -> Path:
    """The file of segments: in the folder that is called as the JSON file, or beside it, or by its name alone."""
    for folder in (path.with_suffix(""), path.parent):
        if "/" not in name and "\\" not in name and (folder / name).is_file():
            return folder / name
    found = documents.find_image(name, path)
    if found is None:
        raise ValueError(f"{path} names the segments {name}, which are not there: unpack {path.stem}.zip beside it")
    return found
