"""Splits of data sets by name, and what is said when the files are not where they should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmiseg.config.parser import checked_options
from rmiseg.config.registry import find, names
from rmiseg.data.description import NAMES
from rmiseg.data.images import Split
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.pairing import ARCHIVES, holds_regions
from rmiseg.data.sets.places import MOST_FOLDERS, subfolders
from rmiseg.runtime.words import some

LABELS = (".json", ".xml", ".csv", ".ndjson")
"""Suffixes of what labelling tools write."""


def recognized(root: str | Path) -> str | None:
    """Return the name of the data set that a folder holds, by the names of its files; None if they do not tell.

    A folder with a dataset.yaml says itself what it holds.
    """
    root = Path(root or " ")
    if not root.is_dir() or any(entry.name.lower() in NAMES for entry in root.iterdir()):
        return None
    for name in names("dataset"):
        marks = getattr(find("dataset", name).make, "MARKS", ())
        if any(next(root.glob(mark), None) for mark in marks) and _is_one(_layout(name, {}), root):
            return name
    return None


def available_splits(name: str, root: str | Path, options: Mapping[str, Any] = {}) -> tuple[str, ...]:
    """Return the splits that a data set has, of those that it may have.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set. The data set demo is written there on first use.
        options: Options of its own, if it has any.

    Raises:
        ValueError: unknown data set or option, no root given, or files that contradict the layout.
        FileNotFoundError: the folder does not exist, is that of something else, or holds no split completely. The
            message shows the layout.
    """
    _check_name(name, root)
    return _available(_layout(name, options), name, root)


def scan_split(name: str, root: str | Path, split: str, options: Mapping[str, Any] = {}) -> Split:
    """Find the files of one split, whatever is wrong with them; problems are listed in the result.

    Raises:
        ValueError: as `available_splits`, and for an unknown split.
        FileNotFoundError: as `available_splits`, and for a split that is not unpacked.
    """
    return scan_splits(name, root, [split], options)[0]


def scan_splits(
    name: str, root: str | Path, splits: Sequence[str] | None = None, options: Mapping[str, Any] = {}
) -> list[Split]:
    """Find the files of several splits, looking at each folder once; see `scan_split`.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set.
        splits: The splits; by default all but trainval, which repeats others.
        options: Options of its own, if it has any.
    """
    _check_name(name, root)
    layout = _layout(name, options)
    available = _available(layout, name, root)
    parts = _parts(layout, name, root)
    if splits is None:
        splits = [split for split in available if split != "trainval"] or list(available)
    for split in splits:
        if split not in parts:
            raise ValueError(
                f"data set {name} in {root} has no split {split!r}; it has {', '.join(available)}. "
                + missing_split(split)
            )
        if missing := _missing(parts[split]):
            raise FileNotFoundError(
                f"data set {name} in {root} lacks what split {split} needs: {some(missing)} does not exist; complete "
                f"are {', '.join(available)}. {_tree(layout, root)}"
            )
    return [layout.scan_split(Path(root), split) for split in dict.fromkeys(splits)]


def missing_split(split: str) -> str:
    """Say what to do where there is no split of a name."""
    if split not in ("train", "val"):
        return f"Name one of these instead of {split}"
    return (
        f"Another one in its place is `--data.{split}_split NAME`; in a data set of your own, lists train.txt and "
        f"val.txt of file names, one a line, divide the images of one folder"
    )


def load_split(
    name: str, root: str | Path, split: str, *, masks: bool = True, options: Mapping[str, Any] = {}
) -> Split:
    """Find the files of one split, complete and ready for use.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set. The data set demo is written there on first use.
        split: Name of the split.
        masks: Whether the split must have masks, as `SegmentationDataset` needs them.
        options: Options of the data set's own, if it has any.

    Raises:
        ValueError: as `scan_split`, and a split without images or without the masks asked for, or files that do not
            pair up.
        FileNotFoundError: as `scan_split`.
    """
    return load_splits(name, root, [split], masks=masks, options=options)[0]


def load_splits(
    name: str, root: str | Path, splits: Sequence[str], *, masks: bool = True, options: Mapping[str, Any] = {}
) -> list[Split]:
    """Find the files of several splits, looking at each folder once; see `load_split`."""
    layout = _tree(_layout(name, options), root)
    found = {split.name: split for split in scan_splits(name, root, splits, options)}
    for split in found.values():
        _check_complete(split, f"split {split.name} of data set {name}", root, masks, layout)
    return [found[split] for split in splits]


def _check_complete(split: Split, title: str, root: str | Path, masks: bool, layout: str) -> None:
    problems = [f"image {image} has no mask of the same name" for image in split.images_without_mask] + list(
        split.problems
    )
    if problems:
        more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
        warnings = "".join(f"\n{warning}" for warning in split.warnings)
        raise ValueError(
            f"{title} in {root} has {len(problems)} problem(s) beside {len(split.samples)} complete pairs:\n  "
            + "\n  ".join(problems[:5])
            + f"{more}{warnings}\n`rmiseg data check` lists them all. {layout}"
        )
    if not split.samples:
        warnings = "".join(f"\n{warning}" for warning in split.warnings)
        raise ValueError(f"{title} in {root} has no images. {layout}{warnings}")
    if masks and not split.labeled:
        raise ValueError(
            f"{title} has images, but no masks: `rmiseg predict` segments it, but it can be used neither to train nor "
            f"to score"
        )


def _check_name(name: str, root: str | Path) -> None:
    if name == "folder" and (known := recognized(root)) is not None:
        raise ValueError(
            f"{root} holds the data set {known}, by the names of its files: say --data.name {known} (train) or --name "
            f"{known}. Images of your own would have a dataset.yaml beside them, which says what the masks' values mean"
        )


def _layout(name: str, options: Mapping[str, Any]) -> Layout:
    component = find("dataset", name)
    layout = component.make(**checked_options(component, options, "data.options"))
    if not isinstance(layout, Layout):
        raise TypeError(f"the data set {name} of {component.origin} is no subclass of rmiseg.data.Layout")
    return layout


def _available(layout: Layout, name: str, root: str | Path) -> tuple[str, ...]:
    parts = _parts(layout, name, root)
    complete = tuple(split for split, paths in parts.items() if not _missing(paths))
    if not complete:
        needed = list(dict.fromkeys(path for paths in parts.values() for path in paths))
        missing = _missing(needed)
        if len(missing) < len(needed):
            trouble = f"data set {name} in {root} is incomplete, perhaps half unpacked: {some(missing)} does not exist"
        else:
            entries = sorted(entry.name for entry in Path(root).iterdir())
            trouble = (
                f"{root} holds no split of the data set {name}, nor a part of one; is it the right folder? "
                f"{_elsewhere(layout, Path(root)) or 'It holds ' + (some(entries) or 'nothing')}"
            )
        raise FileNotFoundError(
            f"{trouble}{_of_archives(Path(root))}{_of_labels(name, Path(root))}. {_tree(layout, root)}"
        )
    return complete


def _elsewhere(layout: Layout, root: Path) -> str:
    """Say which folder in another, or around it, holds a split of a data set; "" if none does."""
    if (inside := _nested(layout, root)) is None:
        around = root.absolute().parent
        return f"{around} is one: name that" if _is_one(layout, around) else ""
    alike = [name for name in subfolders(inside.parent)[:MOST_FOLDERS] if _is_one(layout, inside.parent / name)]
    if len(alike) == 1:
        return f"{inside} is one: name that"
    return (
        f"{len(alike)} folders in {inside.parent}, such as {inside.name}, are one each: put their images into one "
        f"folder images/, and their masks into masks/, in a folder for each, such as images/{inside.name}/, if names "
        f"would be the same"
    )


def _of_archives(root: Path) -> str:
    entries = [entry for entry in sorted(root.iterdir()) if entry.suffix.lower() in ARCHIVES]
    found = [entry.name for entry in entries if not holds_regions(entry)]
    return f"; unpack {some(found)}, for archives are not read" if found else ""


def _of_labels(name: str, root: Path) -> str:
    """Say how labels of a labelling tool are read, where there seem to be some."""
    if name != "folder":
        return ""
    folders = [root, *(root / each for each in subfolders(root)[:MOST_FOLDERS])]
    files = [each for folder in folders for each in folder.iterdir()]
    found = any(each.suffix.lower() in LABELS or holds_regions(each) for each in files)
    return f"; what a labelling tool exported is read by `rmiseg data import {root} --out NEW`" if found else ""


def _nested(layout: Layout, root: Path) -> Path | None:
    """A folder inside of another, one or two levels below, that holds a split of a data set."""
    below = [root / name for name in subfolders(root)[:MOST_FOLDERS]]
    folders = [*below, *(each / name for each in below for name in subfolders(each)[:MOST_FOLDERS])]
    return next((folder for folder in folders if _is_one(layout, folder)), None)


def _is_one(layout: Layout, folder: Path) -> bool:
    """Tell whether a folder holds a split of a data set."""
    try:
        return any(not _missing(paths) for paths in layout.parts(folder).values())
    except (ValueError, OSError):
        return False


def _parts(layout: Layout, name: str, root: str | Path) -> dict[str, tuple[Path, ...]]:
    if not str(root):
        raise ValueError(f"data set {name} needs the folder that holds it: --data.root (train) or --root")
    root = Path(root)
    if root.is_file():
        unpack = "unpack it, and name the folder" if root.suffix.lower() in ARCHIVES else "name the folder"
        raise FileNotFoundError(f"data set {name}: {root} is a file: {unpack}. {_tree(layout, root.parent)}")
    if not layout.WRITES_ROOT and not root.is_dir():
        raise FileNotFoundError(
            f"data set {name}: folder {root} does not exist; name the right one with --data.root (train) or --root. "
            f"{_tree(layout, root)}"
        )
    return layout.parts(root)


def _tree(layout: Layout, root: str | Path) -> str:
    return f"The layout is\n{layout.tree(root)}"


def _missing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]
