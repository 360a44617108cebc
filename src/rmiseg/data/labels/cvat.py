"""CVAT for images 1.1: an XML file with polygons and masks. Later ones of the same or a larger z_order lie in front.

Polygons are drawn as CVAT draws them when it exports masks, which is by pycocotools. Its export "Segmentation mask" is
read by `rmiseg.data.labels.voc_masks`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

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
    written_classes,
)
from rmiseg.data.labels.documents import SPLITS, Documents, read_xml
from rmiseg.data.labels.shapes import between, ellipse, points, rotated, row_run_lengths
from rmiseg.data.labels.values import hex_color, size_of, whole

OTHER_ELEMENTS = ("tag", "attribute")
"""Elements of an image that are no labels of a place in it."""


@register("labels", "cvat")
class CVAT(LabelFormat):
    """CVAT's XML of images."""

    TITLE = "CVAT for images 1.1"
    WRITES = True
    PART_SUFFIX = ".xml"

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(b"<annotations" in _beginning(path) for path in documents.files(".xml")[:5])

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = Annotations()
        for path in documents.files(".xml"):
            root = read_xml(path)
            if root.tag != "annotations":
                found.unused.add("XML files are not of CVAT", str(path))
                continue
            if root.find("track") is not None:
                raise ValueError(f"{path} is of a video: export it as CVAT for images 1.1")
            with naming(path, "CVAT's labels"):
                _read_classes(root, found)
                for element in root.iter("image"):
                    found.images.append(_image(element, path, documents, found.unused))
        return found

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`."""
        height, width = labels.ids.shape
        image = ElementTree.Element("image", name=labels.name, width=str(width), height=str(height))
        for _, name, corners in labels.polygons():
            text = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners.tolist())
            ElementTree.SubElement(image, "polygon", label=name, source="auto", occluded="0", points=text, z_order="0")
        return ElementTree.tostring(image, encoding="unicode")

    def compose(self, parts: Sequence[str], classes: ClassTable) -> Mapping[str, str]:
        """See `LabelFormat.compose`."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
        for class_id, name in written_classes(classes):
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "color").text = hex_of(classes.palette[class_id])
            ElementTree.SubElement(label, "attributes")
        for number, image in enumerate(map(ElementTree.fromstring, parts)):
            image.set("id", str(number))
            root.append(image)
        ElementTree.indent(root)
        return {"annotations.xml": ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"}


def _beginning(path: Path, count: int = 4096) -> bytes:
    with open(path, "rb") as file:
        return file.read(count)


def _read_classes(root: ElementTree.Element, found: Annotations) -> None:
    for label in root.iter("label"):
        if name := (label.findtext("name") or "").strip():
            found.add_class(name, hex_color(label.findtext("color")))


def _image(element: ElementTree.Element, path: Path, documents: Documents, unused: Tally) -> LabeledImage:
    name, subset = element.attrib["name"], element.attrib.get("subset", "")
    image = LabeledImage(name, path, size=size_of(element.attrib), split=SPLITS.get(subset.lower(), ""))
    if subset and "/" not in subset and subset.strip("."):  # two subsets may hold images of one name
        image.path = documents.find_image(f"images/{subset}/{name}", path)
    shapes = [shape for shape in element if shape.tag not in OTHER_ELEMENTS]
    shapes.sort(key=lambda shape: whole(shape.attrib.get("z_order", 0), "z_order"))
    for number, shape in enumerate(shapes, start=1):
        title, example = f"image {name}, {shape.tag} {number}", f"{shape.get('label', shape.tag)} in {name}"
        add_region(image, shape.tag, partial(_region, shape), title, example, unused)
    return image


def _region(shape: ElementTree.Element) -> Region | None:
    label = shape.attrib["label"].strip()
    if shape.tag == "polygon":
        return polygon(label, points([each.split(",") for each in shape.attrib["points"].split(";")]))
    if shape.tag == "mask":
        left, top, width, height = (whole(shape.attrib[key], key) for key in ("left", "top", "width", "height"))
        counts = [whole(each, "a run length") for each in shape.attrib["rle"].split(",")]
        return Region(label, partial(row_run_lengths, counts, left, top, width, height))
    if shape.tag == "box":
        (x0, y0), (x1, y1) = points([shape.attrib[key] for key in ("xtl", "ytl", "xbr", "ybr")]).tolist()
        corners = between(x0, y0, x1, y1)
        return polygon(label, rotated(corners, _angle(shape), corners.mean(axis=0)), box=True)
    if shape.tag == "ellipse":
        center, radii = points([shape.attrib[key] for key in ("cx", "cy", "rx", "ry")])
        return polygon(label, ellipse(center, radii, _angle(shape)))
    return None


def _angle(shape: ElementTree.Element) -> float:
    return float(np.deg2rad(float(shape.attrib.get("rotation", 0))))
