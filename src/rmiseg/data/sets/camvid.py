"""CamVid in the layout of the SegNet tutorial: 480 x 360 pixels, 11 classes, void ignored or a twelfth.

Brostow et al., Semantic object classes in video, Pattern Recognition Letters 2009.

A line of a list is "/SegNet/CamVid/train/NAME.png /SegNet/CamVid/trainannot/NAME.png", where all but folder and name
stands for wherever the data lies. Without a list, images and masks are matched by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable
from rmiseg.data.images import Split
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.listing import Entry, pair_up, read_lines

_CLASSES = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
CLASSES = ClassTable(
    names=tuple(_CLASSES), values=tuple(range(len(_CLASSES))), ignore=(11,), palette=tuple(_CLASSES.values())
)
WITH_VOID = ClassTable(
    names=(*CLASSES.names, "Void"), values=(*CLASSES.values, 11), ignore=(), palette=(*CLASSES.palette, (0, 0, 0))
)


@dataclass
class CamVidOptions:
    """Options of CamVid's own."""

    void: bool = False
    """Train and score void as a twelfth class, as the code of the RMI paper does; by default it does not count."""


@register("dataset", "camvid", options=CamVidOptions)
class CamVid(Layout):
    """CamVid in the layout of the SegNet tutorial: 11 classes."""

    TREE = """
        {root}/
          train/       val/       test/        images, 0001TP_006690.png ...
          trainannot/  valannot/  testannot/   masks of the same names
          train.txt    val.txt    test.txt     optional lists
    """
    MARKS = tuple(f"train/{drive}_*.png" for drive in ("0001TP", "0006R0", "0016E5", "Seq05VD"))

    def __init__(self, void: bool = False) -> None:
        self.classes = WITH_VOID if void else CLASSES

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """See `Layout.parts`."""
        needs = {part: _needs(root, part) for part in ("train", "val", "test")}
        return {**needs, "trainval": needs["train"] + needs["val"]}

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up."""
        entries: list[Entry] = []
        unused: set[Path] = set()  # harmless: some use only a part of the frames
        problems: list[str] = []
        for part in ("train", "val") if split == "trainval" else (split,):
            if (root / f"{part}.txt").is_file():
                entries += _listed(root, part, problems)
            else:
                images, masks = sorted((root / part).glob("[!.]*.png")), root / f"{part}annot"
                entries += [Entry(f"{part}/{image.stem}", image, masks / image.name) for image in images]
                unused |= set(masks.glob("[!.]*.png")) - {masks / image.name for image in images}
        return replace(
            pair_up(split, self.classes, entries, problems=problems), masks_without_image=tuple(sorted(unused))
        )


def _needs(root: Path, part: str) -> tuple[Path, ...]:
    listed = root / f"{part}.txt"
    return (listed,) if listed.is_file() else (root / part, root / f"{part}annot")


def _listed(root: Path, part: str, problems: list[str]) -> list[Entry]:
    entries = []
    for number, line in read_lines(root / f"{part}.txt"):
        source = f"{part}.txt, line {number}"
        outside = [path for path in line.split() if {"..", "/"} & {*PurePosixPath(path).parts[-2:]}]
        if outside:
            problems.append(f"{source}: {outside[0]!r} does not name a folder and a file in {root}")
        elif len(line.split()) == 2:
            image, mask = (root.joinpath(*PurePosixPath(path).parts[-2:]) for path in line.split())
            entries.append(Entry(image.relative_to(root).with_suffix("").as_posix(), image, mask, source))
        else:
            problems.append(f"{source}: expected an image and a mask, found {line!r}")
    return entries
