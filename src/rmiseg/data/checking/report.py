"""Report of a data set's check as tables, problems and warnings."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rmiseg.data.checking.check import Report
from rmiseg.data.checking.inspection import SplitReport
from rmiseg.data.checking.verdict import renumbered
from rmiseg.data.classes import describe_classes
from rmiseg.data.image_files.masks import smoothed
from rmiseg.runtime import terminal
from rmiseg.runtime.terminal import numbers_table
from rmiseg.runtime.words import counted, some

MOST_CLASSES = 40
"""Classes up to which the table has those, too, that do not occur."""


def print_report(report: Report, console: Console | None = None, most: int = 10) -> None:
    """Print a report as tables, problems and warnings, with the verdict in the last line.

    Args:
        report: What `check_dataset` returned.
        console: Where to print; by default standard output.
        most: Problems of one kind to print for each split.
    """
    console = console or terminal.Console()
    console.print(_files_table(report))
    console.print(_classes_table(report))
    for note in dict.fromkeys(note for split in report.splits for note in split.notes):
        console.print(escape(note), soft_wrap=True)
    _print_list(console, "the data set", report.problems, most)
    for split in report.splits:
        if split.images == 0:
            _print_list(console, f"{split.name}: no images", [], most)
        _print_list(console, f"{split.name}: images without mask", list(map(str, split.images_without_mask)), most)
        _print_list(console, f"{split.name}: files", split.problems, most)
        _print_list(console, f"{split.name}: unreadable", split.unreadable, most)
        _print_list(console, f"{split.name}: sizes that differ", split.size_mismatches, most)
        unknown = [
            f"value {value}: {counted(found.pixels, 'pixel')} in {counted(len(found.files), 'mask')}, "
            f"{some(found.files, 3)}"
            for value, found in sorted(split.unknown_values.items())
        ]
        _print_list(console, f"{split.name}: mask values that are neither a class nor ignored", unknown, most)
    if any(split.unknown_values for split in report.splits):
        console.print(
            escape(
                f"  known are {describe_classes(report.classes)}; in a data set of your own, add each to `classes` or "
                f"`ignore`"
            ),
            soft_wrap=True,
        )
        if line := renumbered(report.classes, report.splits):
            console.print(escape(f"  {line}"), soft_wrap=True)
    for split in report.splits:
        if hint := smoothed(_pixels(split), {value: each.pixels for value, each in split.unknown_values.items()}):
            console.print(escape(f"  {split.name}: {hint.strip()}"), soft_wrap=True)
    for warning in report.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)
    images = counted(sum(split.images for split in report.splits), "image")
    if report.problem_count:
        verdict = f"[bold red]{counted(report.problem_count, 'problem')}[/] in {images}"
    else:
        verdict = f"[bold green]no problems[/] in {images}"
    if report.warnings:
        verdict += f", {counted(len(report.warnings), 'warning')}"
    console.print(verdict)


def _pixels(split: SplitReport) -> int:
    unknown = sum(each.pixels for each in split.unknown_values.values())
    return int(split.class_pixels.sum()) + split.ignored_pixels + unknown


def _print_list(console: Console, title: str, lines: list[str], most: int) -> None:
    if lines or title.endswith("no images"):
        console.print(f"[red]{escape(title)}[/]" + (f" ({len(lines):,})" if lines else ""))
    for line in lines[:most]:
        console.print(escape(f"  {line}"), soft_wrap=True)
    if len(lines) > most:
        console.print(f"  ... and {len(lines) - most:,} more")


def _files_table(report: Report) -> Table:
    title = escape(f"{report.name}: {report.root}")
    table = numbers_table("split", "images", "masks", "problems", "smallest", "largest", title=title)
    for split in report.splits:
        table.add_row(
            escape(split.name),
            f"{split.images:,}",
            f"{split.masks:,}",
            f"[red]{split.problem_count:,}[/]" if split.problem_count else "0",
            *("{} x {}".format(*size) if size else "-" for size in (split.smallest, split.largest)),
        )
    return table


def _classes_table(report: Report) -> Table:
    splits = [split for split in report.splits if split.masks]
    table = numbers_table("class", "value", *(f"{escape(split.name)}: pixels, images" for split in splits))
    totals = [max(split.class_pixels.sum() + split.ignored_pixels, 1) for split in splits]
    width = max((len(f"{split.images:,}") for split in splits), default=0)
    present = sum((split.class_pixels for split in splits), start=np.zeros(len(report.classes), np.int64)) > 0
    for index, name in enumerate(report.classes.names):
        if len(report.classes) > MOST_CLASSES and not present[index]:
            continue  # a warning counts them
        cells = [
            f"{split.class_pixels[index] / total:.2%} {split.class_images[index]:>{width},}"
            for split, total in zip(splits, totals)
        ]
        table.add_row(escape(name), str(report.classes.values[index]), *cells)
    ignored = report.classes.ignore
    values = ", ".join(map(str, ignored)) if len(ignored) <= 3 else f"{len(ignored)} values"
    cells = [f"{split.ignored_pixels / total:.2%} {'':{width}}" for split, total in zip(splits, totals)]
    table.add_row("[dim]ignored[/]", values, *cells)
    return table
