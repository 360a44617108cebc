"""CamVid in the layout of the SegNet tutorial: 480 x 360 pixels, 11 classes, void ignored.

    root/
      train/       val/       test/        images
      trainannot/  valannot/  testannot/   masks, values 0 .. 11
      train.txt    val.txt    test.txt     optional lists

A line of a list is "/SegNet/CamVid/train/NAME.png /SegNet/CamVid/trainannot/NAME.png", where all but folder and name
stands for wherever the data lies. Without a list, images and masks are matched by name.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from rmiseg.data.dataset import ClassTable, Sample, Split

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
_PARTS = ("train", "val", "test")


def available_splits(root: Path) -> tuple[str, ...]:
    """The splits that have a list or a folder, and trainval where both its parts exist."""
    found = tuple(part for part in _PARTS if (root / f"{part}.txt").is_file() or (root / part).is_dir())
    return (*found, "trainval") if {"train", "val"} <= set(found) else found


def scan_split(root: Path, split: str) -> Split:
    """List the pairs of one split, and whatever does not pair up."""
    samples: list[Sample] = []
    unmasked: list[Path] = []
    unused: list[Path] = []
    problems: list[str] = []
    for part in ("train", "val") if split == "trainval" else (split,):
        pairs = _listed(root, part, problems) if (root / f"{part}.txt").is_file() else _matched(root, part, unused)
        for image, mask in pairs:
            if not image.is_file():
                problems.append(f"{image} is listed in {part}.txt, but does not exist")
            elif not mask.is_file():
                unmasked.append(image)
            else:
                samples.append(Sample(image.relative_to(root).with_suffix("").as_posix(), image, mask))
    return Split(split, tuple(samples), CLASSES, tuple(unmasked), tuple(unused), tuple(problems))


def _listed(root: Path, part: str, problems: list[str]) -> list[tuple[Path, Path]]:
    pairs = []
    lines = (root / f"{part}.txt").read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        entries = line.split()
        if len(entries) == 2:
            image, mask = (root.joinpath(*PurePosixPath(entry).parts[-2:]) for entry in entries)
            pairs.append((image, mask))
        elif entries:
            problems.append(f"{root / part}.txt, line {number}: expected an image and a mask, found {line.strip()!r}")
    return pairs


def _matched(root: Path, part: str, unused: list[Path]) -> list[tuple[Path, Path]]:
    images, masks = sorted((root / part).glob("[!.]*.png")), root / f"{part}annot"
    unused += sorted(set(masks.glob("[!.]*.png")) - {masks / image.name for image in images})
    return [(image, masks / image.name) for image in images]
