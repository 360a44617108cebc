"""PASCAL VOC 2012, with or without the extra annotations of the Semantic Boundaries Dataset (SBD).

Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010; Hariharan et al., Semantic Contours from
Inverse Detectors, ICCV 2011.

Splits are train, val, trainval and test, which has no masks, by the lists of the challenge, and trainaug: all images
with any annotation that are not in val. Its list is read where there is one (trainaug.txt or train_aug.txt), else made.
A mask of trainaug comes from SegmentationClassAug/ where that exists; else from VOC where VOC annotated the image, and
from the .mat file of SBD where not.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable, voc_palette
from rmiseg.data.images import Split
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.listing import Entry, first_existing, pair_up, read_lines

NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
CLASSES = ClassTable(tuple(NAMES.split()), values=tuple(range(21)), ignore=(255,), palette=voc_palette(21))


@register("dataset", "voc")
class VOC(Layout):
    """PASCAL VOC 2012: 21 classes."""

    TREE = """
        {root}/   the folder VOC2012, or VOCdevkit around it, or the one around that
          ImageSets/Segmentation/        train.txt  val.txt  trainval.txt  test.txt  (trainaug.txt)
          JPEGImages/                    2007_000032.jpg ...
          SegmentationClass/             2007_000032.png ...
          SegmentationClassAug/          2007_000032.png ...   for trainaug; or else
          SBD/dataset/cls/               2008_000002.mat ...   what SBD's archive calls benchmark_RELEASE/dataset/cls
    """
    MARKS = tuple(f"{home}JPEGImages/2007_00????.jpg" for home in ("", "VOC2012/", "VOCdevkit/VOC2012/"))

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """See `Layout.parts`."""
        home = _home(root)
        images, masks = home / "JPEGImages", home / "SegmentationClass"
        return {
            "train": (_list(home, "train"), images, masks),
            "trainaug": (_list(home, "val"), images, first_existing(home / "SegmentationClassAug", _sbd_masks(home))),
            "trainval": (_list(home, "trainval"), images, masks),
            "val": (_list(home, "val"), images, masks),
            "test": (_list(home, "test"), images),
        }

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up."""
        home = _home(root)
        if split == "trainaug":
            names, masks = _augmented(home)
        else:
            names = _names(_list(home, split))
            masks = {name: home / "SegmentationClass" / f"{name}.png" for name, _ in names}
        entries = [
            Entry(name, home / "JPEGImages" / f"{name}.jpg", None if split == "test" else masks[name], source)
            for name, source in names
        ]
        return pair_up(split, CLASSES, entries)


def _augmented(home: Path) -> tuple[list[tuple[str, str]], dict[str, Path]]:
    """The names of trainaug, with where each was found, and the mask of each."""
    masks: dict[str, Path] = {}
    for folder, suffix in (
        (_sbd_masks(home), ".mat"),
        (home / "SegmentationClass", ".png"),
        (home / "SegmentationClassAug", ".png"),
    ):
        masks.update((path.stem, path) for path in folder.glob(f"[!.]*{suffix}"))
    if (listed := first_existing(_list(home, "trainaug"), _list(home, "train_aug"))).is_file():
        names = _names(listed)
        masks |= {name: home / "SegmentationClassAug" / f"{name}.png" for name, _ in names if name not in masks}
    else:
        val = {name for name, _ in _names(_list(home, "val"))}
        names = [(name, masks[name].parent.name) for name in sorted(masks) if name not in val]
    return names, masks


def _home(root: Path) -> Path:
    places = (root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    return next((place for place in places if place.is_dir()), root)


def _sbd_masks(home: Path) -> Path:
    folders = ("SBD/dataset", "SBD", "sbd/dataset", "sbd", "benchmark_RELEASE/dataset")
    return first_existing(*(home / folder / "cls" for folder in folders))


def _list(home: Path, name: str) -> Path:
    return home / "ImageSets" / "Segmentation" / f"{name}.txt"


def _names(path: Path) -> list[tuple[str, str]]:
    """The names in a list, and where each is. Some lists say "/JPEGImages/NAME.jpg /SegmentationClassAug/NAME.png"."""
    return [(PurePosixPath(line.split()[0]).stem, f"{path.name}, line {number}") for number, line in read_lines(path)]
