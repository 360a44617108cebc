"""YOLO's segmentation labels: a text file an image, a line an object, and data.yaml (or classes.txt) with the names.

A line is the number of the class and the corners, as shares of the width and height of the image. A number left over
at its end is a confidence. Of objects that overlap the smaller one lies in front. Exact by supervision.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.recipes import read_text, shortened
from rmiseg.config.registry import register
from rmiseg.data.labels.annotations import Annotations, LabeledImage, LabelFormat, Region
from rmiseg.data.labels.documents import HASHED, SPLITS, Documents, read_lines, read_mapping
from rmiseg.data.labels.shapes import filled_polygon, points, rectangle
from rmiseg.data.labels.values import Size, class_name, whole

OTHER_TEXTS = ("classes.txt", "labels.txt", "obj.names", "readme.txt", "labelmap.txt")
"""Names of text files that hold no objects; so do those that begin with README."""
FARTHEST = 1.0
"""Distance from the middle, in widths and heights of the image, beyond which a coordinate is none of a share."""


@register("labels", "yolo")
class YOLO(LabelFormat):
    """YOLO's segmentation labels."""

    TITLE = "YOLO segmentation"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        if _description(documents) is not None:
            return True
        return bool(documents.files("/classes.txt", "classes.txt")) and bool(_label_files(documents))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        description = _description(documents)
        found = Annotations(smaller_in_front=True)
        lists: dict[str, set[str]] = {}
        if description is not None:
            path, content = description
            names = _names(content, path)
            lists = _lists(content, path, documents, found.notes)
            if "kpt_shape" in content:
                raise ValueError(f"{path} is of a data set of keypoints (kpt_shape), which have no outlines")
        elif listed := documents.files("classes.txt"):
            lines = read_text(listed[0]).splitlines()  # a blank one counts, too
            names = {i: line.strip() for i, line in enumerate(lines) if line.strip()}
        else:
            raise ValueError(f"{documents.source} has neither data.yaml nor classes.txt, which names the classes")
        found.classes = list(dict.fromkeys(names.values()))
        if description is not None and description[1].get("nc", len(names)) != len(names):
            found.notes.append(f"{description[0]}: nc is {description[1]['nc']}, but {len(names)} classes have names")
        labels = {path: path for path in _label_files(documents)}
        by_stem: dict[str, list[Path]] = {}
        for path in labels:
            for stem in {path.stem, HASHED.sub("", path.stem)}:
                by_stem.setdefault(stem, []).append(path)
        for path in documents.image_files():
            candidates = [place for place in _places(path) if place in labels] or by_stem.get(path.stem, [])
            if not candidates:
                found.unlabeled.append(path)
                continue
            if len(candidates) > 1 and candidates[0] not in _places(path):
                raise ValueError(f"the image {path} may have its labels in {candidates[0]} or {candidates[1]}")
            label_file = candidates[0]
            labels.pop(label_file, None)
            split = next((split for split, paths in lists.items() if _is_in(path, paths)), "")
            if not split and path.is_relative_to(documents.root):
                split = documents.split_of_folder(path)
            regions = _regions(label_file, names, found)
            found.images.append(LabeledImage(str(path), label_file, regions, split=split, path=path))
        for path in labels:
            found.unused.add("label files have no image", str(path))
        regions = [region for image in found.images for region in image.regions if not region.box]
        if regions and all(_corners(region) == 4 for region in regions):
            found.notes.append("all polygons have four corners: turned boxes (YOLO OBB) would be no outlines")
        return found


def _description(documents: Documents) -> tuple[Path, dict[str, Any]] | None:
    """The file data.yaml, by any name, and what it holds."""
    for path in documents.files(".yaml", ".yml"):
        try:
            content = read_mapping(path)
        except ValueError:
            if path.stem == "data":
                raise
            continue
        is_data = path.stem.lower() == "data" or bool({"train", "val", "nc", "path"} & content.keys())
        if isinstance(content.get("names"), list | dict) and is_data:
            return path, content
        if "names" in content and is_data:
            raise ValueError(f"{path}: names must be a list, not {shortened(repr(content['names']), 100)}")
    return None


def _names(content: dict[str, Any], path: Path) -> dict[int, str]:
    names = content["names"]
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    try:
        return {whole(key, "the number of a class"): class_name(name) for key, name in pairs}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _label_files(documents: Documents) -> list[Path]:
    """The text files of objects: below folders called labels if there are any."""
    texts = [
        path
        for path in documents.files(".txt")
        if path.name.lower() not in OTHER_TEXTS and not path.name.lower().startswith("readme")
    ]
    below = [path for path in texts if "labels" in path.relative_to(documents.root).parts[:-1]]
    return below or [path for path in texts if path.parent != documents.root or path.stem not in SPLITS]


def _lists(content: dict[str, Any], path: Path, documents: Documents, notes: list[str]) -> dict[str, set[str]]:
    """Files and folders that belong to each split. What is named and not there is noted."""
    bases = [path.parent / str(content.get("path") or "."), path.parent]
    lists: dict[str, set[str]] = {}
    for key, split in SPLITS.items():
        value = content.get(key)
        for entry in value if isinstance(value, list) else [value] if isinstance(value, str) else []:
            place = _place(str(entry), bases, documents)
            if place is None:
                notes.append(f"{path}: {key} is {shortened(str(entry), 200)}, which is not there")
                continue
            lists.setdefault(split, set()).add(place)
            if place.endswith(".txt"):
                found = {
                    line: _place(line, [Path(place).parent, *bases], documents) for line in read_lines(Path(place))
                }
                lists[split] |= {each for each in found.values() if each}
                if missing := [line for line, each in found.items() if each is None]:
                    shown = shortened(missing[0], 200)
                    notes.append(f"{place}: {len(missing)} of {len(found)} images are not there, such as {shown}")
    return lists


def _place(entry: str, bases: list[Path], documents: Documents) -> str | None:
    """A file or folder that is named from one of some folders, or as it lay on another machine."""
    name = entry.replace("\\", "/")
    parts = PurePosixPath(name.lstrip("./")).parts  # ../train/images for what lies beside the file
    # Of a path from a folder that is not here, the end counts; that of a folder such as ../test/images says too little.
    whole_path = name.startswith("/") or name[1:2] == ":" or bool(PurePosixPath(name).suffix)
    names = [name, *("/".join(parts[start:]) for start in range(len(parts) if whole_path else 1))]
    folders = [*bases, *([documents.images] if documents.images else [])]
    places = (os.path.normpath(os.path.join(folder, each)) for each in names for folder in folders)
    return next((each for each in places if documents.is_inside(Path(each)) and os.path.exists(each)), None)


def _is_in(path: Path, places: set[str]) -> bool:
    normal = Path(os.path.normpath(path))
    return any(str(each) in places for each in (normal, *normal.parents))


def _places(image: Path) -> list[Path]:
    """Places where the labels of an image may be: in the folder labels in place of images, or beside it."""
    parts = list(image.parts)
    places = []
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[:-1][::-1].index("images")] = "labels"
        places.append(Path(*parts).with_suffix(".txt"))
    return [*places, image.with_suffix(".txt")]


def _regions(path: Path, names: dict[int, str], found: Annotations) -> list[Region]:
    regions = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not (values := line.split()):
            continue
        where = f"{path}, line {number}"
        class_id = whole(values[0], f"{where}: the number of a class")
        if class_id not in names:
            raise ValueError(f"{where}: there is no class {class_id}, but {shortened(str(sorted(names)), 100)}")
        if len(values) < 5:
            raise ValueError(f"{where}: {len(values)} numbers are neither a box nor a polygon")
        try:
            if len(values) < 7:  # with a confidence or without
                x, y, width, height = points(values[1:5]).ravel().tolist()
                corners = rectangle(x - width / 2, y - height / 2, width, height)
            else:
                if len(values) % 2 == 0:
                    found.unused.add("numbers at the end of polygons are taken for confidences", where)
                corners = points(values[1 : 1 + (len(values) - 1) // 2 * 2])
            if (np.abs(corners - 0.5) > FARTHEST).any():
                raise ValueError("coordinates are shares of width and height, 0 to 1: are these pixels, or key points?")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        regions.append(Region(names[class_id], partial(relative_polygon, corners), box=len(values) < 7))
    return regions


def _corners(region: Region) -> int:
    assert isinstance(region.draw, partial)
    return len(region.draw.args[0])


def relative_polygon(corners: NDArray[np.float64], size: Size) -> NDArray[np.bool_]:
    """Return the pixels of a polygon whose corners (N, 2) are shares of width and height."""
    with np.errstate(over="ignore"):  # what is not finite then is refused
        scaled = corners.astype(np.float32) * np.array(size[::-1], np.float32)
    return filled_polygon(np.round(scaled).astype(np.float64), (), size)
