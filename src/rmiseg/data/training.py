"""Data sets opened for a training: what must be known of them before its first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from rmiseg.data.band_choice import check_bands, choose_bands
from rmiseg.data.bands import Bands, Ranges
from rmiseg.data.checking.doubts import on_both_sides, warnings_of
from rmiseg.data.checking.inspection import SplitReport, inspect
from rmiseg.data.checking.shifted import fit_warnings
from rmiseg.data.checking.verdict import ignored_note, problems_of, renumbered
from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.data.held_out import divide
from rmiseg.data.image_files.masks import read_mask
from rmiseg.data.images import LabeledImages, Split
from rmiseg.data.sets.finding import load_split, load_splits
from rmiseg.data.spread import spread
from rmiseg.runtime.progress import track

SAMPLE = 200
"""Masks of a split that are looked at before a training; all of them, if these look wrong."""


def open_training_data(
    name: str,
    root: str,
    splits: tuple[str, str],
    *,
    options: Mapping[str, Any] = {},
    bands: int | None = None,
    value_range: Ranges = None,
    picture: tuple[int, int, int] | None = None,
    held_out: Sequence[str] | None = None,
    on_error: str = "fail",
    console: Console | None = None,
) -> tuple[Split, Split]:
    """Find the images to train and to score on, see whether their masks can be learned from, and say what was decided.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set.
        splits: Names of the splits to train and to score on.
        options: Options of the data set's own, if it has any.
        bands: Number of bands of the images; by default what dataset.yaml says, or what the training images hold.
        value_range: Values that become 0 and 255, in images of more than 8 bits; likewise.
        picture: Numbers of the bands, from 1, that are red, green and blue in pictures.
        held_out: Images of the first split to score on in place of the second, see `divide`; by default none.
        on_error: fail if one of the masks that are looked at cannot be read, or skip.
        console: Where to say what was decided; by default nowhere.

    Returns:
        Both splits, with the same bands and range of values; without a range if the images that were looked at have 8
        bits.

    Raises:
        ValueError: as `load_split` and `divide`, and masks from which nothing can be learned, as `rmiseg data check`
            finds too.
        FileNotFoundError: as `load_split`.
    """
    if held_out is None:
        train, val = load_splits(name, root, splits, options=options)
    else:
        train, val = divide(load_split(name, root, splits[0], options=options), held_out)
    console = console or Console(quiet=True)
    shown = None if picture is None else (picture[0] - 1, picture[1] - 1, picture[2] - 1)
    chosen, decisions = choose_bands(train, count=bands, ranges=value_range, picture=shown)
    if on_error == "fail":
        check_bands(train, chosen)
        check_bands(val, chosen)
    lines = [*train.notes, *val.notes, *decisions]
    reports = [_sampled(train, chosen), _sampled(val, chosen)]
    problems = problems_of(train.classes, train.description, reports[:1], reports)
    if problems and any(len(split) > SAMPLE for split in (train, val)):
        reports = [_read_all(split, chosen, console) for split in (train, val)]
        problems = problems_of(train.classes, train.description, reports[:1], reports)
    if problems:
        raise ValueError("\n".join([*problems, f"`rmiseg data check --root {root}` says more"]))
    if on_error == "fail":
        for split, report in zip((train, val), reports):
            _refuse_unreadable(split, report, root)
    for line in dict.fromkeys(lines + ignored_note(train.description, reports)):
        console.print(line, markup=False, soft_wrap=True)
    warnings = warnings_of(train.classes, reports, all_read=len(train) <= SAMPLE >= len(val))
    warnings += [both] if (both := on_both_sides(train, val)) else []
    if not console.quiet:
        warnings += fit_warnings([*train.samples, *val.samples], train.classes, chosen)
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    return train.with_bands(chosen), val.with_bands(chosen)


def check_given_masks(train: LabeledImages, val: LabeledImages, on_error: str = "fail") -> None:
    """See whether masks that are given in Python can be learned from, and scored on: they are read until it is clear.

    Args:
        train: Images to train on.
        val: Images to score on.
        on_error: fail if one of the masks cannot be read, or skip.

    Raises:
        ValueError: there are no images, all masks are ignored, or those of train hold one class alone.
        Exception: what reading a mask raises, unless skipped.
    """
    for images, enough in ((train, 2), (val, 1)):
        if not len(images):
            raise ValueError(f"the data set {images.name} has no images")
        seen, ignored = _classes_seen(images, enough, on_error)
        if len(seen) >= enough or not (seen or ignored):
            continue
        if not seen:
            raise ValueError(
                f"every pixel of the masks of {images.name} is {IGNORE_INDEX}, ignored: there is nothing to learn, nor "
                "to score on. Are these its masks?"
            )
        remedy = f"{IGNORE_INDEX} is ignored: are masks of 0 and {IGNORE_INDEX} meant to be of 0 and 1?"
        raise ValueError(
            f"the masks of {images.name} hold the class {images.classes.names[seen.pop()]} alone: there is nothing to "
            f"tell it from. {remedy if ignored else 'Are these its masks?'}"
        )


def _classes_seen(images: LabeledImages, enough: int, on_error: str) -> tuple[set[int], bool]:
    """The classes in masks, read until there are enough of them; and True if a pixel is ignored."""
    first = spread(len(images), SAMPLE)
    seen, chosen = set[int](), set(first)
    for index in (*first, *(index for index in range(len(images)) if index not in chosen)):
        try:
            seen.update(np.unique(images.read_mask(index)).tolist())
        except (ValueError, OSError):
            if on_error == "fail":
                raise
        if len(seen - {IGNORE_INDEX}) >= enough:
            break
    return seen - {IGNORE_INDEX}, IGNORE_INDEX in seen


def _refuse_unreadable(split: Split, report: SplitReport, root: str) -> None:
    """Say now what training would find out in the middle of an epoch."""
    if report.unreadable:
        more = f"; {len(report.unreadable) - 1} more cannot be read" if report.unreadable[1:] else ""
        raise ValueError(f"{report.unreadable[0]}{more}. `rmiseg data check --root {root}` lists them")
    if report.size_mismatches:
        more = f"; {len(report.size_mismatches) - 1} more differ" if report.size_mismatches[1:] else ""
        raise ValueError(f"{report.size_mismatches[0]}{more}. `rmiseg data check --root {root}` lists them")
    for unknown in report.unknown_values.values():
        for path in unknown.files[:1]:
            try:
                read_mask(path, split.classes)  # which says what is wrong with it
            except ValueError as error:
                raise ValueError(f"{error}\n{renumbered(split.classes, [report])}".rstrip()) from None


def _sampled(split: Split, bands: Bands) -> SplitReport:
    report = SplitReport.of(split)
    for index in spread(len(split), SAMPLE):
        report.add(inspect(split.samples[index], split.classes, decode=False, bands=bands))
    return report


def _read_all(split: Split, bands: Bands, console: Console) -> SplitReport:
    report = SplitReport.of(split)
    for sample in track(split.samples, f"reading the masks of {split.name}", console, total=len(split)):
        report.add(inspect(sample, split.classes, decode=False, bands=bands))
    return report
