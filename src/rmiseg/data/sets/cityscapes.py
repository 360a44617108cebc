"""Cityscapes: 19 classes in streets of 50 cities, 2048 x 1024 pixels.

Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.

Masks are the *_labelIds.png of the archives, whose values are mapped here, or *_labelTrainIds.png, if as many of them
were made. Split train_extra has coarse masks; test is for prediction, since its masks are blank.
"""

from __future__ import annotations

from pathlib import Path

from rmiseg.config.registry import register
from rmiseg.data.classes import IGNORE_INDEX, ClassTable
from rmiseg.data.images import Split
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.listing import Entry, pair_up

# Name: value in labelIds, color. In the order of the train ids.
_CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
_NAMES = tuple(_CLASSES)
_LABEL_IDS, _PALETTE = zip(*_CLASSES.values())
CLASSES = {
    "labelTrainIds": ClassTable(_NAMES, tuple(range(19)), (IGNORE_INDEX,), _PALETTE),
    "labelIds": ClassTable(_NAMES, _LABEL_IDS, tuple(sorted({*range(34)} - {*_LABEL_IDS})), _PALETTE),
}
_FOLDERS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "train_extra": ("train_extra",)}


@register("dataset", "cityscapes")
class Cityscapes(Layout):
    """Cityscapes: 19 classes."""

    TREE = """
        {root}/
          leftImg8bit/train/aachen/   aachen_000000_000019_leftImg8bit.png ...   also val/, test/, train_extra/
          gtFine/train/aachen/        aachen_000000_000019_gtFine_labelIds.png ...   also val/
          gtCoarse/train_extra/augsburg/   augsburg_000000_000000_gtCoarse_labelIds.png ...   only for train_extra
    """
    MARKS = ("leftImg8bit/train/aachen/aachen_*_leftImg8bit.png",)

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """See `Layout.parts`."""
        images = root / "leftImg8bit"
        needs = {
            split: tuple(path for folder in folders for path in (images / folder, _masks(root, folder)))
            for split, folders in _FOLDERS.items()
        }
        return {**needs, "test": (images / "test",)}

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up."""
        folders = _FOLDERS.get(split, (split,))
        made = {
            kind: [mask for folder in folders for mask in sorted(_masks(root, folder).glob(f"*/[!.]*_{kind}.png"))]
            for kind in CLASSES
        }
        kind = max(CLASSES, key=lambda kind: len(made[kind]))  # the first where both are as many
        entries = []
        for folder in folders:
            masks = _masks(root, folder)
            for image in sorted((root / "leftImg8bit" / folder).glob("*/[!.]*_leftImg8bit.png")):
                city, name = image.parent.name, image.name.removesuffix("_leftImg8bit.png")
                mask = masks / city / f"{name}_{masks.parent.name}_{kind}.png" if split != "test" else None
                entries.append(Entry(f"{folder}/{city}/{name}", image, mask))
        return pair_up(split, CLASSES[kind], entries, made[kind] if split != "test" else ())


def _masks(root: Path, folder: str) -> Path:
    return root / ("gtCoarse" if folder == "train_extra" else "gtFine") / folder
