"""Decisions before the data are opened, where nothing says it: their kind, and the images to score on.

The images to score on, and folds, have every class on both sides, and no sequence on both.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rmiseg.config import DataConfig, OpenConfig, TrainConfig
from rmiseg.data.description import NAMES
from rmiseg.data.image_files.volumes import is_slice
from rmiseg.data.images import Split
from rmiseg.data.sets.finding import load_split, recognized, scan_splits
from rmiseg.data.sets.folder import Folder
from rmiseg.planning.decisions import C, Decision, is_given
from rmiseg.runtime.files import printable
from rmiseg.runtime.progress import track

FOLDS = 5
"""Parts of which one is val."""
MOST_MASKS = 1000
"""Images up to which every mask is read, to see which classes it shows; of more, chance gives each side its share."""
MOST_NAMES = 2000
"""Entries of a list of val images beyond which it is left to the hash of the names."""
TRIES = 200

_FRAME = re.compile(r"^(.+?[/_\-. ])(?:frame|img|image|f|t)?[_\-. ]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Folds:
    """A division of images into parts.

    Attributes:
        parts: Names of the images of each part.
        sequences: Number of sequences that were kept together; 0 if names tell none.
        classes_known: Whether masks were read to give every part its share of each class.
    """

    parts: tuple[tuple[str, ...], ...]
    sequences: int
    classes_known: bool


def planned_name(config: TrainConfig) -> Decision | None:
    """Recognize the data set that a folder holds by the names of its files; None for one of somebody's own, and where
    somebody gave its name, or options that are all decided.
    """
    if not isinstance(config, OpenConfig) or is_given(config, "data.name"):
        return None
    known = recognized(config.data.root)
    because = f"by the names of its files, and it has no {NAMES[0]} that would say otherwise"
    return None if known is None else Decision("data.name", known, because)


def with_name(config: C, name: str) -> C:
    """The options with a data set whose name was decided, and its own options as given, or else by default."""
    own = config.data.options if isinstance(config, OpenConfig) and is_given(config, "data.options") else {}
    return replace(config, data=replace(config.data, name=name, options=own))


def planned_val(data: DataConfig, console: Console | None = None) -> Decision | None:
    """Choose the images to score on, in a data set of somebody's own that does not say which; None for others.

    Args:
        data: The options of the data.
        console: Where to show progress; by default nowhere.

    Raises:
        ValueError, OSError: As `rmiseg.data.sets.finding.scan_splits`.
    """
    if data.name != "folder" or not Path(data.root or " ").is_dir() or not Folder().makes_splits(Path(data.root)):
        return None
    scans = scan_splits(data.name, data.root, ["train", "val"])
    if any(is_slice(sample.image) for split in scans for sample in split.samples):
        return None  # whole volumes are on one side
    images = {sample.name: (split, index) for split in scans for index, sample in enumerate(split.samples)}
    if len(images) < 2 or any(split.problems or split.images_without_mask for split in scans):
        return None  # said when they are opened
    folds = choose_folds(sorted(images), _classes_shown(images, console), FOLDS)
    names = folds.parts[0]
    entries = list(map(printable, _entries(names, images)))
    if len(entries) > MOST_NAMES or (not folds.sequences and not folds.classes_known):
        return None
    reasons = [f"{len(names)} of {len(images)} images"]
    if folds.classes_known:
        reasons.append("every class on both sides where two images show it, in equal shares where that can be")
    if folds.sequences:
        reasons.append(f"no frames of one of the {folds.sequences} sequences on both sides")
    return Decision("data.options", {"val": entries}, "; ".join(reasons))


def planned_folds(
    config: TrainConfig, count: int, console: Console | None = None
) -> tuple[DataConfig, list[list[str]]]:
    """Divide the images to train on into parts; all images, in a data set of somebody's own that says of none that it
    is to be scored on.

    Args:
        config: The options.
        count: Number of parts.
        console: Where to show progress, and say what was decided; by default nowhere.

    Returns:
        The options by which split `data.train_split` holds all these images, and their names, part by part; what those
        of a sequence begin with, and a star, in place of all its names.

    Raises:
        ValueError, OSError: As `rmiseg.data.load_split`; there are too few images.
    """
    console = console or Console(quiet=True)
    known = planned_name(config)
    data = config.data if known is None else with_name(config, known.value).data
    if data.held_out is not None:
        raise ValueError("data.folds chooses the images of data.held_out: give one of them")
    own = data.name == "folder" and data.options.get("val") is None and Path(data.root or " ").is_dir()
    if own and Folder().makes_splits(Path(data.root)):
        data = replace(data, options={**data.options, "val": []})
    split = load_split(data.name, data.root, data.train_split, options=data.options)
    images = {sample.name: (split, index) for index, sample in enumerate(split.samples)}
    if len(images) < count:
        raise ValueError(f"data.folds is {count}, and there are {len(images)} images to divide: give fewer folds")
    names = sorted(images)
    folds = choose_folds(names, _classes_shown(images, console), count)
    told = [f"{len(names)} images in {len(folds.parts)} folds"]
    told += ["in equal shares of each class, where that can be"] if folds.classes_known else []
    told += [f"each of {folds.sequences} sequences in one of them"] if folds.sequences else []
    console.print("; ".join(told), markup=False)
    return data, [_entries(part, images) for part in folds.parts]


def choose_folds(names: Sequence[str], shown: NDArray[np.bool_] | None, count: int) -> Folds:
    """Divide images into parts of about the same size and the same share of each class.

    Of `TRIES` divisions that fill the smallest part first, the one whose parts have the most even shares, and whose
    first part has no class alone, which could not be learned; it depends on nothing but the arguments. Frames of one
    sequence stay together, where names tell (seq1_0001, seq1_0002), unless they would leave a class to one part alone
    that the images could give to two.

    Args:
        names: Names of the I images.
        shown: (I, C) classes that each image shows; None if it is not known.
        count: Number of parts; fewer where there are fewer images.
    """
    sequences = _sequences(names)
    single = [[index] for index in range(len(names))]
    table = shown.astype(np.int64) if shown is not None else np.zeros((len(names), 0), np.int64)
    divided = _divide(single, table, count)
    kept = 0
    if 1 < len(sequences) < len(names):
        together = _divide(sequences, table, count)
        if _lonely(together, table) <= _lonely(divided, table) and _share(together, len(names)) <= 0.5:
            divided, kept = together, len(sequences)
    parts = tuple(tuple(names[index] for index in sorted(part)) for part in divided)
    return Folds(parts, kept, shown is not None)


def sequence_of(name: str) -> str | None:
    """The part of a name that frames of one sequence share, seq1_ of seq1_0001; None if it does not tell."""
    found = _FRAME.match(name)
    return found[1] if found else None


def _sequences(names: Sequence[str]) -> list[list[int]]:
    """Numbers of the images of each sequence; an image of none is one by itself."""
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(sequence_of(name) or f"/{name}", []).append(index)
    return list(found.values())


def _divide(units: list[list[int]], shown: NDArray[np.int64], count: int) -> list[list[int]]:
    """Parts of whole units, see `choose_folds`."""
    count = max(min(count, len(units)), 1)
    sizes = np.array([len(unit) for unit in units])
    classes = np.stack([shown[unit].sum(axis=0) for unit in units])
    total = classes.sum(axis=0)
    rng = np.random.default_rng(0)
    best: tuple[float, NDArray[np.int64]] | None = None
    for _ in range(TRIES if shown.shape[1] else 1):
        order = rng.permutation(len(units))
        order = order[np.argsort(-sizes[order], kind="stable")]
        filled, part_of = np.zeros(count, np.int64), np.zeros(len(units), np.int64)
        for unit in order:
            part_of[unit] = filled.argmin()
            filled[part_of[unit]] += sizes[unit]
        parts = np.zeros((count, shown.shape[1]))
        np.add.at(parts, part_of, classes)
        off = np.abs(parts - total / count) / np.maximum(total, 1) + ((parts == 0) & (total >= count))
        score = float(off.sum() + (parts[0] == 0)[total >= 2].sum())
        if best is None or score < best[0]:
            best = score, part_of
    assert best is not None
    part_of = best[1]
    parts = np.zeros((count, shown.shape[1]))
    np.add.at(parts, part_of, classes)
    found = [[index for unit in np.flatnonzero(part_of == part) for index in units[unit]] for part in range(count)]
    if count > 1 and ((parts[0] == total) & (total > 0)).any():  # what is in the first alone could not be learned
        lacks = ((parts == 0) & (total >= 2)).sum(axis=1) + 2 * ((parts == total) & (total > 0)).sum(axis=1)
        off = np.abs(parts - total / count) / np.maximum(total, 1)
        first = int((lacks + off.sum(axis=1) / (1 + parts.shape[1])).argmin())
        found[0], found[first] = found[first], found[0]
    return found


def _lonely(parts: list[list[int]], shown: NDArray[np.int64]) -> int:
    """Number of classes that the first part alone shows, or that it does not show."""
    first, all_ = shown[parts[0]].sum(axis=0), shown.sum(axis=0)
    return int((((first == 0) | (first == all_)) & (all_ > 0)).sum())


def _share(parts: list[list[int]], images: int) -> float:
    return len(parts[0]) / images


def _classes_shown(images: Mapping[str, tuple[Split, int]], console: Console | None) -> NDArray[np.bool_] | None:
    """(I, C) classes that each image shows, in the order of names; None for too many images, or an unreadable mask."""
    if len(images) > MOST_MASKS:
        return None
    rows = []
    for name in track(sorted(images), "looking for classes", console, total=len(images)):
        split, index = images[name]
        try:
            ids = split.read_mask(index)
        except (ValueError, OSError):
            return None  # which is said when it is opened
        rows.append(np.bincount(ids.ravel(), minlength=256)[: len(split.classes)] > 0)
    return np.array(rows)


def _entries(names: Sequence[str], images: Mapping[str, object]) -> list[str]:
    """Names, and in place of a whole sequence what its names begin with, and a star."""
    chosen, ordered, entries = set(names), sorted(images), dict[str, None]()
    for name in names:
        begin = sequence_of(name)
        if begin is not None and f"{begin}*" not in entries:
            several = ordered[bisect_left(ordered, begin) : bisect_right(ordered, f"{begin}\U0010ffff")]
            begin = begin if len(several) > 1 and chosen.issuperset(several) else None
        entries[name if begin is None else f"{begin}*"] = None
    return list(entries)
