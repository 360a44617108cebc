"""The data sets by name. Each is a module with two functions: available_splits(root) and scan_split(root, split)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rmiseg.data import camvid, demo, folder
from rmiseg.data.dataset import Split


class Layout(NamedTuple):
    """How the files of a data set are found."""

    available_splits: Callable[[Path], tuple[str, ...]]
    scan_split: Callable[[Path, str], Split]


DATASETS = {
    "folder": Layout(folder.available_splits, folder.scan_split),
    "camvid": Layout(camvid.available_splits, camvid.scan_split),
    "demo": Layout(demo.available_splits, demo.scan_split),
}


def available_splits(name: str, root: str | Path) -> tuple[str, ...]:
    """The splits that a data set has.

    Args:
        name: Name of the data set, a key of `DATASETS`.
        root: Folder of the data set. The data set demo is written there on first use.

    Raises:
        ValueError: unknown data set, no root given, or files that contradict the layout.
        FileNotFoundError: the folder, or a part of it that the layout asks for, does not exist.
    """
    layout, root = _layout(name), _root(name, root)
    splits = layout.available_splits(root)
    if not splits:
        raise FileNotFoundError(f"{root} holds no split of the data set {name}: no train.txt and no folder train/")
    return splits


def scan_split(name: str, root: str | Path, split: str) -> Split:
    """Find the files of one split, whatever is wrong with them; problems are listed in the result.

    Raises:
        ValueError, FileNotFoundError: as `available_splits`, and ValueError for an unknown split.
    """
    splits = available_splits(name, root)
    if split not in splits:
        raise ValueError(f"data set {name} in {root} has no split {split!r}; it has {', '.join(splits)}")
    return DATASETS[name].scan_split(Path(root), split)


def load_split(name: str, root: str | Path, split: str) -> Split:
    """Find the files of one split, complete and ready for `SegmentationDataset`.

    Args:
        name: Name of the data set: folder, camvid or demo.
        root: Folder of the data set. The data set demo is written there on first use.
        split: Name of the split.

    Raises:
        ValueError: unknown data set or split, a split without images, or files that do not pair up.
        FileNotFoundError: the folder, or a part of it that the layout asks for, does not exist.
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
            + f"{more}\n`rmiseg data check` lists them all."
        )
    if not found.samples:
        raise ValueError(f"split {split} of data set {name} in {root} has no images")
    return found


def _layout(name: str) -> Layout:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; valid names: {', '.join(DATASETS)}")
    return DATASETS[name]


def _root(name: str, root: str | Path) -> Path:
    if not str(root):
        raise ValueError(f"data set {name} needs the folder that holds it: --data.root (train) or --root")
    root = Path(root)
    if name != "demo" and not root.is_dir():
        raise FileNotFoundError(
            f"data set {name}: folder {root} does not exist; name the right one with --data.root (train) or --root"
        )
    return root
