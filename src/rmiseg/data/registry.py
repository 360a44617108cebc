"""The data sets by name, and what is said when one is not where it should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from rmiseg.data import ade20k, camvid, cityscapes, coco, coco_panoptic, coco_stuff, demo, folder, voc
from rmiseg.data.dataset import Split


class Layout(Protocol):
    """What a data set module defines.

    Attributes:
        TREE: The files as they should lie, for messages; "{root}" stands for the folder of the data set.
    """

    TREE: str

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """All splits that the data set may have, and the files and folders that each needs."""

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of a split whose parts exist, and whatever does not pair up."""


DATASETS: dict[str, Layout] = {
    "folder": folder,
    "voc": voc,
    "cityscapes": cityscapes,
    "coco": coco,
    "coco-stuff": coco_stuff,
    "coco-panoptic": coco_panoptic,
    "ade20k": ade20k,
    "camvid": camvid,
    "demo": demo,
}


def available_splits(name: str, root: str | Path) -> tuple[str, ...]:
    """The splits that a data set has, of those that it may have.

    Args:
        name: Name of the data set, a key of `DATASETS`.
        root: Folder of the data set. The data set demo is written there on first use.

    Raises:
        ValueError: unknown data set, no root given, or files that contradict the layout.
        FileNotFoundError: the folder does not exist, is that of something else, or holds no split completely. The
            message shows the layout.
    """
    parts = _parts(name, root)
    complete = tuple(split for split, paths in parts.items() if not _missing(paths))
    if not complete:
        needed = list(dict.fromkeys(path for paths in parts.values() for path in paths))
        missing = _missing(needed)
        if len(missing) < len(needed):
            trouble = f"data set {name} in {root} is incomplete, perhaps half unpacked: {_some(missing)} does not exist"
        else:
            entries = sorted(entry.name for entry in Path(root).iterdir())
            trouble = (
                f"{root} holds no split of the data set {name}, nor a part of one; is it the right folder? It holds "
                f"{_some(entries) or 'nothing'}"
            )
        raise FileNotFoundError(f"{trouble}. {_layout(name, root)}")
    return complete


def scan_split(name: str, root: str | Path, split: str) -> Split:
    """Find the files of one split, whatever is wrong with them; problems are listed in the result.

    Raises:
        ValueError: as `available_splits`, and for an unknown split.
        FileNotFoundError: as `available_splits`, and for a split that is not unpacked.
    """
    available = available_splits(name, root)
    parts = _parts(name, root)
    if split not in parts:
        raise ValueError(f"data set {name} in {root} has no split {split!r}; it has {', '.join(available)}")
    if missing := _missing(parts[split]):
        raise FileNotFoundError(
            f"data set {name} in {root} lacks what split {split} needs: {_some(missing)} does not exist; complete are "
            f"{', '.join(available)}. {_layout(name, root)}"
        )
    return DATASETS[name].scan_split(Path(root), split)


def load_split(name: str, root: str | Path, split: str, *, masks: bool = True) -> Split:
    """Find the files of one split, complete and ready for use.

    Args:
        name: Name of the data set, a key of `DATASETS`.
        root: Folder of the data set. The data set demo is written there on first use.
        split: Name of the split.
        masks: Whether the split must have masks, as `SegmentationDataset` needs them.

    Raises:
        ValueError: as `scan_split`, and a split without images or without the masks asked for, or files that do not
            pair up.
        FileNotFoundError: as `scan_split`.
    """
    found = scan_split(name, root, split)
    problems = [f"image {image} has no mask of the same name" for image in found.images_without_mask] + list(
        found.problems
    )
    if problems:
        more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"split {split} of data set {name} in {root} has {len(problems)} problem(s) "
            f"beside {len(found.samples)} complete pairs:\n  "
            + "\n  ".join(problems[:5])
            + f"{more}\n`rmiseg data check` lists them all. {_layout(name, root)}"
        )
    if not found.samples:
        raise ValueError(f"split {split} of data set {name} in {root} has no images. {_layout(name, root)}")
    if masks and not found.labeled:
        raise ValueError(
            f"split {split} of data set {name} has images, but no masks: `rmiseg predict` segments it, but it can be "
            f"used neither to train nor to score"
        )
    return found


def _parts(name: str, root: str | Path) -> dict[str, tuple[Path, ...]]:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; valid names: {', '.join(DATASETS)}")
    if not str(root):
        raise ValueError(f"data set {name} needs the folder that holds it: --data.root (train) or --root")
    root = Path(root)
    if name != "demo" and not root.is_dir():
        raise FileNotFoundError(
            f"data set {name}: folder {root} does not exist; name the right one with --data.root (train) or --root. "
            f"{_layout(name, root)}"
        )
    return DATASETS[name].parts(root)


def _layout(name: str, root: str | Path) -> str:
    return f"The layout is{DATASETS[name].TREE.format(root=root)}"


def _missing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _some(things: Sequence[object], most: int = 5) -> str:
    return ", ".join(map(str, things[:most])) + (", ..." if len(things) > most else "")
