"""Exports that are not read: what they are called, and what to do about them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rmiseg.data.labels.documents import Documents
from rmiseg.data.sets.pairing import ARCHIVES, LABEL_SUFFIXES

BEGINNING = 10_000
"""Bytes of a file that are looked at."""
COCO = "export COCO, which is read"
FOLDER = "a data set `folder` (images/ and masks/), see `rmiseg data check --root`"
LINES = (".ndjson", ".jsonl", ".manifest")
"""Suffixes of files that have a JSON text in each line."""


class _Stranger(NamedTuple):
    """An export that is not read.

    Attributes:
        title: Its name.
        remedy: What to do.
        known: Tells whether the content of a JSON file is of it; of a list, its first entry.
    """

    title: str
    remedy: str
    known: Callable[[dict[str, Any]], bool]


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda content: set(keys) <= content.keys()


def _within(outer: str, *keys: str) -> Callable[[dict[str, Any]], bool]:
    def known(content: dict[str, Any]) -> bool:
        inner = content.get(outer)
        inner = inner[0] if isinstance(inner, list) and inner else inner
        return isinstance(inner, dict) and set(keys) <= inner.keys()

    return known


_FOLDER = "its masks of colors are read as a data set `folder`, with the colors in dataset.yaml"
STRANGERS = (
    _Stranger("Label Studio's JSON-MIN", "export JSON", _has("annotator")),
    _Stranger(
        "Labelbox",
        "its masks lie on a server and need a key; write COCO, or masks as PNG files, with its Python package",
        lambda content: _has("data_row", "projects")(content) or _has("DataRow ID", "Label")(content),
    ),
    _Stranger(
        "Segments.ai",
        "its masks lie on a server; `export_dataset` of its Python package writes coco-panoptic, which is read",
        _within("dataset", "samples"),
    ),
    _Stranger("Encord", COCO, _has("data_units", "label_hash")),
    _Stranger("Kili", f"{COCO}, or YOLO", lambda content: _within("labels", "jsonResponse")(content)),
    _Stranger(
        "SuperAnnotate", "`export_annotation` of its Python package writes COCO, which is read", _has("instances")
    ),
    _Stranger("ISAT", "its converters write COCO and VOC, which are read", lambda c: _isat(c)),
    _Stranger(
        "the full ADE20K",
        "train on ADEChallengeData2016, the same images with 150 classes: data set `ade20k`",
        _within("annotation", "object", "imsize"),
    ),
    _Stranger(
        "BDD100K (Scalabel)", "its package bdd100k writes masks and COCO, which are read", _within("labels", "poly2d")
    ),
    _Stranger(
        "BDD100K (Scalabel)", "its package bdd100k writes masks and COCO, which are read", _has("frames", "config")
    ),
    _Stranger(
        "GeoJSON of a map",
        "gdal_rasterize draws it on the pixels of an image, as a mask; both are read as a data set `folder`",
        lambda content: content.get("type") in ("FeatureCollection", "Feature"),
    ),
    _Stranger("Dataloop", COCO, lambda c: _within("annotations", "coordinates", "type")(c) and "filename" in c),
    _Stranger("CreateML", "its labels are boxes, which are no outlines", _within("annotations", "coordinates")),
    _Stranger("Amazon SageMaker Ground Truth", f"{_FOLDER}", _has("source-ref")),
    _Stranger(
        "predictions in COCO's results format",
        "it names no images and classes; import a file that has images and categories, too",
        _has("image_id", "category_id"),
    ),
    _Stranger("OpenLABEL", COCO, _has("openlabel")),
    _Stranger(
        "VIA 3",
        "label images in VIA 2, whose JSON, CSV and COCO are read",
        _has("project", "metadata", "attribute", "file"),
    ),
    _Stranger("Scale", "its task with masks of colors is read as a data set `folder`", _has("task_id", "response")),
    _Stranger(
        "Segment Anything (SA-1B)", "its masks have no classes to learn", _within("image", "image_id", "file_name")
    ),
)


def _isat(content: dict[str, Any]) -> bool:
    info = content.get("info")
    return isinstance(info, dict) and info.get("description") == "ISAT"


XML = {
    b"<polygon>": ("LabelMe of MIT, or RectLabel", "CVAT imports it as LabelMe, and exports what is read"),
    b"<bndbox>": ("boxes of Pascal VOC", "they are no outlines"),
    b"<ASAP_Annotations": ("ASAP", "export masks, which are read as a data set `folder`"),
    b"MicronsPerPixel": (
        "Aperio ImageScope",
        "QuPath imports it, and exports masks, which are read as a data set `folder`",
    ),
}
FILES = {
    r"(^|/)task-\d+-annotation-\d+-[^/]*\.(png|npy)$": (
        "looks like brush labels of Label Studio, a file for each class, which are not read: export JSON"
    ),
    r"\.(nrrd|mha|mhd)$": (
        "holds volumes as NRRD or MetaImage, which are not read: save them and their segmentations as NIfTI, for a "
        "data set `folder`"
    ),
    r"\.nii(\.gz)?$": "holds volumes (NIfTI), which need no import: with their masks they are {folder}",
    r"\.shp$": "holds shapefiles, which are not read: gdal_rasterize draws them as masks, for a data set `folder`",
    r"\.(tfrecords?|parquet|arrow)$": (
        "holds tables of TFRecord, Parquet or Arrow, which are not read: export COCO, or masks as files for a data set "
        "`folder`"
    ),
    r"(^|/)obj\.(data|names)$": (
        "looks like CVAT's export YOLO 1.1, whose labels are boxes, no outlines: export Ultralytics YOLO Segmentation"
    ),
    r"(^|/)labels/.*\.txt$": (
        "has text files in labels/, as YOLO, but neither data.yaml nor classes.txt: write the names of the classes "
        "into classes.txt, one a line"
    ),
    r"(^|/)label_colors\.txt$": "looks like CVAT's export CamVid, which is not read: export Segmentation mask 1.1",
    r"(^|/)pixellabeldata/": "holds pixel labels of MATLAB, which need no import: with their images they are {folder}",
}
"""Patterns of the names of files, in lower case, and what they say."""
CSV = {
    "xmin": ("boxes", "they are no outlines"),
    "maskpath": ("Open Images", "its masks are one file an object: draw them into one mask for each image"),
}


def told(documents: Documents) -> str:
    """Say what an export is that is not read, and what to do; "" if nobody knows it."""
    for content in [*documents.peek(), *_lines(documents)]:
        first = content[0] if isinstance(content, list) and content else content
        for each in STRANGERS:
            if isinstance(first, dict) and each.known(first):
                return f"looks like {each.title}, which is not read: {each.remedy}"
    for path in documents.files(".xml", ".csv", ".txt", ".ndjson")[:20]:
        if _beginning(path)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return f"holds {path.name}, which is UTF-16: save it as UTF-8"
    for path in documents.files(".xml")[:5]:
        for mark, (title, remedy) in XML.items():
            if mark in _beginning(path):
                return f"looks like {title}, which is not read: {remedy}"
    for path in documents.files(".csv")[:5]:
        header = _beginning(path).partition(b"\n")[0].decode(errors="replace").lower()
        for word, (title, remedy) in CSV.items():
            if word in header:
                return f"looks like {title} in a CSV file, which is not read: {remedy}"
    for pattern, sentence in FILES.items():
        if any(re.search(pattern, name.lower()) for name in documents.names):
            return sentence.format(folder=FOLDER)
    if packed := documents.files(*ARCHIVES):
        return f"holds the archive {packed[0].name}: unpack it, and name its folder"
    if documents.files(".csv"):
        return "has CSV files, of which those of VIA and of run lengths (Kaggle) are read: let the tool export JSON"
    if documents.image_files() and not documents.files(*LABEL_SUFFIXES, ".yaml", ".yml"):
        return (
            f"has images alone: name the folder of the labels, and this one with --images. Masks that are images need "
            f"no import: with their images they are {FOLDER}"
        )
    return ""


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(BEGINNING)


def _lines(documents: Documents) -> list[Any]:
    """The first line of files that have a JSON text in each."""
    found = []
    for path in documents.files(*LINES)[:5]:
        try:
            with open(path, "rb") as file:
                found.append(json.loads(file.readline(1 << 20)))
        except (ValueError, RecursionError):
            continue
    return found
