"""Read a whole data set and report everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console

from rmiseg.data.band_choice import choose_bands
from rmiseg.data.bands import Bands
from rmiseg.data.checking.doubts import may_share, on_both_sides, warnings_of
from rmiseg.data.checking.inspection import Inspection, SplitReport, inspect
from rmiseg.data.checking.shifted import MANY, fit_warnings
from rmiseg.data.checking.verdict import ignored_note, problems_of
from rmiseg.data.classes import ClassTable
from rmiseg.data.images import Sample, Split
from rmiseg.data.sets.finding import missing_split, scan_splits
from rmiseg.runtime.cores import made_by, worker_count
from rmiseg.runtime.progress import track
from rmiseg.runtime.words import counted


@dataclass
class Report:
    """Findings of `check_dataset`; problems are those of the data set as a whole."""

    name: str
    root: Path
    classes: ClassTable
    splits: list[SplitReport]
    warnings: list[str]
    problems: list[str]

    @property
    def problem_count(self) -> int:
        """Number of problems in all splits; training should wait until it is 0."""
        return len(self.problems) + sum(split.problem_count for split in self.splits)


def check_dataset(
    name: str,
    root: str | Path,
    splits: Sequence[str] | None = None,
    workers: int | None = None,
    console: Console | None = None,
    options: Mapping[str, Any] = {},
) -> Report:
    """Read every image and mask, going on after each problem.

    Args:
        name: Name of a registered data set.
        root: Folder of the data set.
        splits: Splits to read; by default all but trainval, which repeats others.
        workers: Processes that read files; 0 reads in the main process. By default one a core.
        console: Where to show progress; by default nowhere.
        options: Options of the data set's own, if it has any.

    Raises:
        ValueError, FileNotFoundError: no such data set, folder or split, or the classes are not known: nothing could
            be checked.
    """
    worker_count(workers, 1)  # whose error comes before any work
    scans = scan_splits(name, root, splits, options)
    absent = [split for split in ("train", "val") if splits is None and split not in {scan.name for scan in scans}]
    trained = [scan for scan in scans if scan.name.startswith("train")] or scans[:1]
    bands, notes = choose_bands(trained[0])
    reports = [SplitReport.of(scan) for scan in scans]
    contents: list[dict[bytes, Path]] = [{} for _ in scans]
    items = [(index, sample) for index, scan in enumerate(scans) for sample in scan.samples]
    look = partial(_inspected, classes=[scan.classes for scan in scans], bands=bands)
    processes = worker_count(workers, len(items))
    for index, inspection in track(made_by(look, items, processes), "reading", console, total=len(items)):
        reports[index].add(inspection)
        if inspection.content:
            contents[index].setdefault(inspection.content, inspection.sample.image)
    reports[0].notes += notes + ignored_note(scans[0].description, reports)
    learned = [report for report in reports if report.name in {scan.name for scan in trained}]
    problems = problems_of(scans[0].classes, scans[0].description, learned, reports)
    warnings = [f"there is no split {split}, which training needs. {missing_split(split)}" for split in absent]
    samples = [sample for _, sample in items]
    warnings += fit_warnings(samples, scans[0].classes, bands, most=MANY, workers=processes)
    warnings += _warnings(scans, reports, contents)
    return Report(name, Path(root), scans[0].classes, reports, warnings, problems)


def _inspected(item: tuple[int, Sample], classes: Sequence[ClassTable], bands: Bands) -> tuple[int, Inspection]:
    """The index of the split of a sample, and its inspection."""
    index, sample = item
    return index, inspect(sample, classes[index], bands=bands)


def _warnings(scans: list[Split], reports: list[SplitReport], contents: list[dict[bytes, Path]]) -> list[str]:
    """List things that need not be wrong, but seldom are intended."""
    warnings = [
        f"{report.name}: {counted(len(unused), 'mask')} without image, e.g. {unused[0]}"
        for report in reports
        if (unused := report.masks_without_image)
    ]
    doubles = []
    for (first, seen), (second, others) in combinations(zip(scans, contents), 2):
        if may_share(first, second):
            continue
        if both := on_both_sides(first, second):
            warnings.append(both)
        elif alike := sorted((seen[content], others[content]) for content in seen.keys() & others.keys()):
            doubles.append(
                f"{counted(len(alike), 'image')} of {second.name} with the pixels of one of {first.name}, e.g. "
                f"{alike[0][1]} and {alike[0][0]}: scores on images that were trained on say nothing"
            )
    return warnings + warnings_of(scans[0].classes, reports) + doubles
