"""Read a whole data set and report everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch.utils.data import DataLoader, Dataset

from rmiseg.data.classes import ClassTable, RawValue
from rmiseg.data.finding import available_splits, scan_split
from rmiseg.data.images import Sample, Split, size_mismatch
from rmiseg.data.reading import read_image, read_raw_mask
from rmiseg.runtime.progress import track


@dataclass
class UnknownValue:
    """A raw mask value that is neither a class nor ignored: how many pixels hold it, and in which masks."""

    pixels: int = 0
    files: list[Path] = field(default_factory=list)


@dataclass
class SplitReport:
    """Findings in one split. Sizes are (width, height).

    Args:
        name: Name of the split.
        images: Image files that the split refers to and that exist.
        masks: Mask files of these images, and masks without image.
        images_without_mask: A problem each.
        masks_without_image: A warning each.
        problems: Other problems of lists and file names, one line each.
        unreadable: Image or mask files that cannot be read, with the reason, one line each.
        size_mismatches: Pairs whose sizes differ, one line each.
        unknown_values: Raw mask values that are neither a class nor ignored.
        class_pixels: Pixels of each class, (C,) int64, over the readable masks.
        class_images: Masks in which each class occurs, (C,) int64.
        ignored_pixels: Ignored pixels.
        smallest: Smallest width and smallest height of the readable images; None if there is none.
        largest: Likewise the largest.
    """

    name: str
    images: int
    masks: int
    images_without_mask: list[Path]
    masks_without_image: list[Path]
    problems: list[str]
    class_pixels: np.ndarray
    class_images: np.ndarray
    unreadable: list[str] = field(default_factory=list)
    size_mismatches: list[str] = field(default_factory=list)
    unknown_values: dict[RawValue, UnknownValue] = field(default_factory=dict)
    ignored_pixels: int = 0
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None

    @property
    def problem_count(self) -> int:
        """Number of problems; an unknown mask value counts once for each mask that holds it."""
        return (
            (self.images == 0)
            + len(self.images_without_mask)
            + len(self.problems)
            + len(self.unreadable)
            + len(self.size_mismatches)
            + sum(len(unknown.files) for unknown in self.unknown_values.values())
        )


@dataclass
class Report:
    """Findings of `check_dataset`."""

    name: str
    root: Path
    classes: ClassTable
    splits: list[SplitReport]
    warnings: list[str]

    @property
    def problem_count(self) -> int:
        """Number of problems in all splits; training should wait until it is 0."""
        return sum(split.problem_count for split in self.splits)


def check_dataset(
    name: str,
    root: str | Path,
    splits: Sequence[str] | None = None,
    workers: int = 2,
    console: Console | None = None,
    options: Mapping[str, Any] = {},
) -> Report:
    """Read every image and mask, going on after each problem.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set.
        splits: Splits to read; by default all but trainval, which repeats others.
        workers: Processes that read files; 0 reads in the main process.
        console: Where to show progress; by default nowhere.
        options: Options of the data set's own, if it has any.

    Raises:
        ValueError, FileNotFoundError: no such data set, folder or split, or the classes are not known: nothing could
            be checked.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, not {workers}")
    available = available_splits(name, root, options)
    if splits is None:
        splits = [split for split in available if split != "trainval"] or list(available)
    scans = [scan_split(name, root, split, options) for split in dict.fromkeys(splits)]
    reports = [_empty_report(scan) for scan in scans]
    inspections = _Inspections(scans)
    # A DataLoader without batches is a process pool that keeps the order and, with 0 workers, starts no process.
    loader = DataLoader(inspections, batch_size=None, num_workers=workers, collate_fn=_identity)
    for index, inspection in track(loader, "reading", console, total=len(inspections)):
        _add(reports[index], inspection)
    return Report(name, Path(root), scans[0].classes, reports, _warnings(scans, reports))


@dataclass
class _Inspection:
    """Findings in one pair of files."""

    sample: Sample
    unreadable: list[str] = field(default_factory=list)
    size_mismatch: str = ""
    image_size: tuple[int, int] | None = None
    counts: np.ndarray | None = None  # pixels of each class id, (256,)
    unknown: dict[RawValue, int] = field(default_factory=dict)


class _Inspections(Dataset[tuple[int, _Inspection]]):
    """The index of the split and an inspection, for each sample of several splits."""

    def __init__(self, scans: list[Split]) -> None:
        self.samples = [(index, sample) for index, scan in enumerate(scans) for sample in scan.samples]
        self.classes = [scan.classes for scan in scans]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int) -> tuple[int, _Inspection]:
        index, sample = self.samples[key]
        found = _Inspection(sample)
        try:
            height, width = read_image(sample.image).shape[:2]
            found.image_size = (width, height)
        except (ValueError, OSError) as error:
            found.unreadable.append(str(error))
        if sample.mask is None:
            return index, found
        mask_size = None
        try:
            raw = read_raw_mask(sample.mask, self.classes[index].rgb)
            mask_size = (raw.shape[1], raw.shape[0])
            ids, found.unknown = self.classes[index].encode(raw)
            found.counts = np.bincount(ids.ravel(), minlength=256)
            found.counts[-1] -= sum(found.unknown.values())
        except (ValueError, OSError) as error:
            found.unreadable.append(str(error))
        if found.image_size and mask_size and found.image_size != mask_size:
            found.size_mismatch = size_mismatch(sample.describe(), found.image_size, mask_size)
        return index, found


def _identity(item: Any) -> Any:
    return item


def _empty_report(scan: Split) -> SplitReport:
    return SplitReport(
        name=scan.name,
        images=len(scan.samples) + len(scan.images_without_mask),
        masks=sum(sample.mask is not None for sample in scan.samples) + len(scan.masks_without_image),
        images_without_mask=list(scan.images_without_mask),
        masks_without_image=list(scan.masks_without_image),
        problems=list(scan.problems),
        class_pixels=np.zeros(len(scan.classes), np.int64),
        class_images=np.zeros(len(scan.classes), np.int64),
    )


def _add(report: SplitReport, found: _Inspection) -> None:
    report.unreadable += found.unreadable
    if found.size_mismatch:
        report.size_mismatches.append(found.size_mismatch)
    for value, pixels in found.unknown.items():
        unknown = report.unknown_values.setdefault(value, UnknownValue())
        unknown.pixels += pixels
        if found.sample.mask is not None:
            unknown.files.append(found.sample.mask)
    if found.counts is not None:
        counts = found.counts[: len(report.class_pixels)]
        report.class_pixels += counts
        report.class_images += counts > 0
        report.ignored_pixels += int(found.counts[-1])
    if size := found.image_size:
        small, large = report.smallest or size, report.largest or size
        report.smallest = (min(small[0], size[0]), min(small[1], size[1]))
        report.largest = (max(large[0], size[0]), max(large[1], size[1]))


def _warnings(scans: list[Split], reports: list[SplitReport]) -> list[str]:
    """List things that need not be wrong, but seldom are intended."""
    warnings = [
        f"{report.name}: {count(len(unused), 'mask')} without image, e.g. {unused[0]}"
        for report in reports
        if (unused := report.masks_without_image)
    ]
    for first, second in combinations(scans, 2):
        both = {sample.image for sample in first.samples} & {sample.image for sample in second.samples}
        names = (first.name, second.name)
        if both and "trainval" not in names and not all(name.startswith("train") for name in names):
            warnings.append(
                f"{count(len(both), 'image')} in both {first.name} and {second.name}, e.g. {min(both)}: scores on "
                f"images that were trained on say nothing"
            )
    classes = scans[0].classes
    for index, name in enumerate(classes.names):
        absent = [report.name for report in reports if report.class_pixels.any() and not report.class_pixels[index]]
        if absent:
            warnings.append(f"class {name} (mask value {classes.values[index]}) does not occur in {', '.join(absent)}")
    return warnings


def count(number: int, noun: str) -> str:
    """Say how many of something there are."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
