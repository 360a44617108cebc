"""Data sets opened for a training: what must be known of them before its first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rmiseg.data.deep import SHARES, ValueRange, checked_range, range_of
from rmiseg.data.finding import load_splits
from rmiseg.data.images import Split
from rmiseg.data.inspection import SplitReport, inspect
from rmiseg.data.reading import deep_values
from rmiseg.data.verdict import class_problems, count, ignored_note, palette_problems, two_ways, warnings_of
from rmiseg.runtime.progress import track

SAMPLE = 200
"""Masks of a split that are looked at before a training; all of them, if these look wrong."""
RANGE_SAMPLE = 32
"""Images that the range of values is taken from."""


def open_training_data(
    name: str,
    root: str,
    splits: tuple[str, str],
    *,
    options: Mapping[str, Any] = {},
    value_range: ValueRange | None = None,
    console: Console | None = None,
) -> tuple[Split, Split]:
    """Find the images to train and to score on, see whether their masks can be learned from, and say what was decided.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set.
        splits: Names of the splits to train and to score on.
        options: Options of the data set's own, if it has any.
        value_range: Values that become 0 and 255, in images of more than 8 bits; by default what dataset.yaml says, or
            what the training images hold.
        console: Where to say what was decided; by default nowhere.

    Returns:
        Both splits, with the same range of values; without one if the images that were looked at have 8 bits.

    Raises:
        ValueError: as `load_split`, and masks from which nothing can be learned, as `rmiseg data check` finds too.
        FileNotFoundError: as `load_split`.
    """
    train, val = load_splits(name, root, splits, options=options)
    console = console or Console(quiet=True)
    chosen, note = choose_range(train, value_range)
    lines = [*train.notes, *val.notes, *([note] if note else [])]
    reports = [_sampled(train), _sampled(val)]
    problems = _problems([train, val], reports)
    if problems and any(len(split) > SAMPLE for split in (train, val)):
        reports = [_read_all(split, console) for split in (train, val)]
        problems = _problems([train, val], reports)
    if problems:
        raise ValueError("\n".join([*problems, f"`rmiseg data check --root {root}` says more"]))
    for line in dict.fromkeys(lines + ignored_note(train.description, reports)):
        console.print(line, markup=False, soft_wrap=True)
    warnings = warnings_of(train.classes, reports if len(train) <= SAMPLE >= len(val) else [])
    for warning in two_ways(train.classes, train.description, reports[:1]) + warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    return train.with_range(chosen), val.with_range(chosen)


def choose_range(split: Split, given: ValueRange | None = None) -> tuple[ValueRange | None, str]:
    """Return the values that become 0 and 255 in images of more than 8 bits, and what to say of them.

    Args:
        split: The training images; what their dataset.yaml says comes before what they hold.
        given: The values, if a recipe says them.
    """
    if given is not None:
        return checked_range(given), ""
    if split.value_range is not None:
        return split.value_range, ""
    deep: list[NDArray[Any]] = []
    looked = _spread(len(split), RANGE_SAMPLE)
    for index in looked:
        try:
            values = deep_values(split.samples[index].image)
        except (ValueError, OSError, ModuleNotFoundError):
            continue  # that it cannot be read is said when it is needed
        if values is not None:
            deep.append(values)
    if not deep:
        return None, ""
    low, high = range_of(deep)
    kinds = " and ".join(sorted({str(values.dtype) for values in deep}))
    rest = f"; the others of {len(looked)} have 8 bits and are read as they are" if len(deep) < len(looked) else ""
    return (low, high), (
        f"images of {kinds}: the values {low:.6g} to {high:.6g} become 0 to 255, which are the percentiles "
        f"{SHARES[0]:g} and {SHARES[1]:g} of {count(len(deep), 'training image')}{rest}. `range: [black, white]` in "
        f"dataset.yaml sets others"
    )


def _problems(splits: Sequence[Split], reports: Sequence[SplitReport]) -> list[str]:
    train = splits[0]
    return class_problems(train.classes, train.description, reports[:1]) + palette_problems(reports)


def _sampled(split: Split) -> SplitReport:
    report = SplitReport.of(split)
    for index in _spread(len(split), SAMPLE):
        report.add(inspect(split.samples[index], split.classes, decode=False))
    return report


def _read_all(split: Split, console: Console) -> SplitReport:
    report = SplitReport.of(split)
    for sample in track(split.samples, f"reading the masks of {split.name}", console, total=len(split)):
        report.add(inspect(sample, split.classes, decode=False))
    return report


def _spread(size: int, most: int) -> list[int]:
    """Numbers of at most so many items, evenly spaced."""
    return sorted(set(np.linspace(0, size - 1, min(size, most)).round().astype(int).tolist())) if size else []
