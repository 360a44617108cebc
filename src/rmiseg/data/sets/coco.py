"""COCO with the 21 classes of PASCAL VOC, drawn from its instance annotations: what DeepLab is pretrained on.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; Chen et al., arXiv:1706.05587, section 4.1.2.

Images with fewer than 1000 pixels of the twenty objects are left out. Where objects overlap, smaller ones lie in front
of larger ones, and all in front of the roughly outlined crowds, which count as their class. The masks are drawn once,
see `rmiseg.data.drawn_masks`. Split test has no masks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.recipes import shortened
from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable
from rmiseg.data.drawn_masks import Drawing, drawn_masks
from rmiseg.data.images import Split
from rmiseg.data.sets import voc
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.listing import Entry, first_existing, pair_up
from rmiseg.runtime.extras import import_extra

CLASSES = voc.CLASSES
YEARS = (2017, 2014)
TEST = tuple(f"test{year}" for year in YEARS)
LEAST_PIXELS = 1000
# What COCO calls differently.
_VOC_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


@register("dataset", "coco")
class COCO(Layout):
    """COCO with the 21 classes of PASCAL VOC."""

    TREE = """
        {root}/
          train2017/  val2017/  test2017/      000000000139.jpg ...   also in images/; also of 2014
          annotations/                         instances_train2017.json  instances_val2017.json
    """

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """See `Layout.parts`."""
        return {
            "train": sources(root, "instances", "train"),
            "val": sources(root, "instances", "val"),
            "test": (image_folder(root, *TEST),),
        }

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up; draws the masks on first use.

        Raises:
            ValueError: the annotations are damaged, or of another kind.
            ModuleNotFoundError: pycocotools is not installed.
        """
        if split == "test":
            return scan_test(root, CLASSES)
        annotations, images = sources(root, "instances", split)
        masks = drawn_masks(annotations, "voc", drawings)
        entries = [Entry(Path(name).stem, images / name, mask, str(annotations)) for name, mask in masks]
        return pair_up(split, CLASSES, entries)


def sources(root: Path, kind: str, split: str) -> tuple[Path, Path]:
    """The annotation file of a split, of 2017 or else of 2014, and the folder of its images."""
    annotations = first_existing(*(root / "annotations" / f"{kind}_{split}{year}.json" for year in YEARS))
    return annotations, image_folder(root, annotations.stem.removeprefix(f"{kind}_"))


def image_folder(root: Path, *names: str) -> Path:
    """The first folder of images that exists, of several names."""
    return first_existing(*(root / place / name for name in names for place in ("", "images")))


def scan_test(root: Path, classes: ClassTable) -> Split:
    """The test images, which have no masks."""
    images = sorted(image_folder(root, *TEST).glob("[!.]*.jpg"))
    return pair_up("test", classes, [Entry(image.stem, image, None) for image in images])


def drawings(content: dict[str, Any]) -> dict[str, Drawing]:
    """Return what draws each image of an instance annotation file."""
    names = {category["id"]: _VOC_NAMES.get(category["name"], category["name"]) for category in content["categories"]}
    class_ids = {key: CLASSES.names.index(name) for key, name in names.items() if name in CLASSES.names}
    objects: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if annotation["category_id"] not in names:
            raise ValueError(
                f"annotation {annotation.get('id')} has the category {annotation['category_id']}, which is none of "
                f"those that the file lists: {shortened(str(list(names)), 200)}"
            )
        if annotation["category_id"] in class_ids:
            objects.setdefault(annotation["image_id"], []).append(annotation)
    return {
        image["file_name"]: partial(_draw, objects.get(image["id"], []), class_ids, (image["height"], image["width"]))
        for image in content["images"]
    }


def _draw(objects: list[dict[str, Any]], class_ids: dict[int, int], size: tuple[int, int]) -> NDArray[np.uint8] | None:
    regions = [(_region(annotation, size), annotation) for annotation in objects]
    # Later ones cover earlier ones.
    regions.sort(key=lambda item: (not item[1].get("iscrowd", 0), -item[0].sum()))
    mask = np.zeros(size, np.uint8)
    for region, annotation in regions:
        mask[region] = class_ids[annotation["category_id"]]
    return mask if np.count_nonzero(mask) >= LEAST_PIXELS else None


def _region(annotation: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of an object, (H, W) bool, from polygons or run lengths, compressed or not."""
    coco = import_extra("pycocotools.mask", "coco", "drawing COCO's annotations")
    outline = annotation["segmentation"]
    if isinstance(outline, list):
        polygons = [polygon for polygon in outline if len(polygon) >= 6]  # fewer numbers enclose nothing
        if not polygons:
            return np.zeros(size, bool)
        runs = coco.merge(coco.frPyObjects(polygons, *size))
    else:
        runs = coco.frPyObjects(outline, *size) if isinstance(outline["counts"], list) else outline
    region: NDArray[np.bool_] = coco.decode(runs).astype(bool)
    if region.shape != size:
        raise ValueError(
            f"annotation {annotation.get('id')} is drawn on {region.shape[1]} x {region.shape[0]} pixels, but its "
            f"image has {size[1]} x {size[0]}"
        )
    return region
