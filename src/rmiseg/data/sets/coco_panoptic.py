"""COCO's panoptic annotations without their instances: 80 classes of things and 53 of stuff; what is void is ignored.

Kirillov et al., Panoptic Segmentation, CVPR 2019. Masks are index PNGs whose values are category numbers, as the script
panoptic2semantic_segmentation.py of panopticapi writes them, in annotations/panoptic_semantic_train2017/. Where that
folder is missing, they are made once from the annotations themselves, see `rmiseg.data.drawn_masks`. Split test has no
masks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable, voc_palette
from rmiseg.data.drawn_masks import Drawing, drawn_masks
from rmiseg.data.image_files.masks import read_numbers
from rmiseg.data.images import Split
from rmiseg.data.sets.coco import TEST, YEARS, image_folder, scan_test, sources
from rmiseg.data.sets.coco_stuff import THINGS, categories
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.listing import Entry, first_existing, pair_up

_STUFF = categories("""
    92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff, 118 floor-wood,
    119 flower, 122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff, 138 net, 141 pillow, 144 platform,
    145 playingfield, 147 railroad, 148 river, 149 road, 151 roof, 154 sand, 155 sea, 156 shelf, 159 snow, 161 stairs,
    166 tent, 168 towel, 171 wall-brick, 175 wall-stone, 176 wall-tile, 177 wall-wood, 178 water-other,
    180 window-blind, 181 window-other, 184 tree-merged, 185 fence-merged, 186 ceiling-merged, 187 sky-other-merged,
    188 cabinet-merged, 189 table-merged, 190 floor-other-merged, 191 pavement-merged, 192 mountain-merged,
    193 grass-merged, 194 dirt-merged, 195 paper-merged, 196 food-other-merged, 197 building-other-merged,
    198 rock-merged, 199 wall-other-merged, 200 rug-merged
""")
_CATEGORIES = THINGS | _STUFF
VOID = 0
CLASSES = ClassTable(tuple(_CATEGORIES.values()), tuple(_CATEGORIES), (VOID,), voc_palette(len(_CATEGORIES)))


@register("dataset", "coco-panoptic")
class COCOPanoptic(Layout):
    """COCO's panoptic annotations without their instances: 133 classes."""

    TREE = """
        {root}/
          train2017/  val2017/  test2017/    000000000139.jpg ...   also in images/
          annotations/                       panoptic_train2017.json  panoptic_val2017.json
            panoptic_train2017/  panoptic_val2017/    000000000139.png ...   from a .zip inside the .zip; or index PNGs:
            panoptic_semantic_train2017/  panoptic_semantic_val2017/    000000000139.png ...
    """

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """See `Layout.parts`."""
        return {"train": _needs(root, "train"), "val": _needs(root, "val"), "test": (image_folder(root, *TEST),)}

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up; makes the masks on first use.

        Raises:
            ValueError: the annotations are damaged, or of another kind.
        """
        if split == "test":
            return scan_test(root, CLASSES)
        if (folder := _index_pngs(root, split)).is_dir():
            images = sorted(_needs(root, split)[0].glob("[!.]*.jpg"))
            entries = [Entry(image.stem, image, folder / f"{image.stem}.png") for image in images]
            return pair_up(split, CLASSES, entries, folder.glob("[!.]*.png"))
        folder, annotations, segments = _needs(root, split)
        masks = drawn_masks(annotations, "semantic", partial(_drawings, segments), segments)
        entries = [Entry(Path(name).stem, folder / name, mask, str(annotations)) for name, mask in masks]
        return pair_up(split, CLASSES, entries)


def _needs(root: Path, split: str) -> tuple[Path, ...]:
    if (masks := _index_pngs(root, split)).is_dir():
        return image_folder(root, masks.name.removeprefix("panoptic_semantic_")), masks
    annotations, images = sources(root, "panoptic", split)
    return images, annotations, annotations.with_suffix("")


def _index_pngs(root: Path, split: str) -> Path:
    return first_existing(*(root / "annotations" / f"panoptic_semantic_{split}{year}" for year in YEARS))


def _drawings(segments: Path, content: dict[str, Any]) -> dict[str, Drawing]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return {
        names[annotation["image_id"]]: partial(
            _draw,
            segments / annotation["file_name"],
            {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]},
        )
        for annotation in content["annotations"]
    }


def _draw(path: Path, category_of: dict[int, int]) -> NDArray[np.uint8]:
    """Category numbers from an image whose colors are segment numbers, red + 256 green + 65536 blue.

    Raises:
        ValueError: A segment is not in the annotations, or its category none of COCO's.
    """
    segments = read_numbers(path, colors=True)
    numbers, index = np.unique(segments, return_inverse=True)
    known = {VOID: VOID, **category_of}
    for number in numbers.tolist():
        if number not in known:
            raise ValueError(f"{path}: its segment {number} is not in `segments_info` of the annotations")
        if number != VOID and known[number] not in _CATEGORIES:
            raise ValueError(f"{path}: the category {known[number]} of its segment {number} is none of COCO's")
    return np.array([known[number] for number in numbers.tolist()], np.uint8)[index].reshape(segments.shape)
