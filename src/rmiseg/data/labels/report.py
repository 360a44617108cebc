"""Findings of an import, as `rmiseg data import` prints them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from rmiseg.data.classes import ClassTable
from rmiseg.data.labels.annotations import Tally
from rmiseg.runtime.words import counted


@dataclass
class ImportReport:
    """Findings of an import.

    Attributes:
        format: Name of the format.
        title: The format as people call it.
        source: Where the labels came from.
        unused: Images and labels that could not be used.
        notes: Decisions, one line each.
        images: Number of images of each split.
        labels: Number of labels that were drawn.
        overlaps: Pixels and images in which two classes overlap, by the name of the one that won and of the other.
    """

    format: str
    title: str
    source: str
    unused: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    labels: int = 0
    overlaps: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add_image(self, split: str, labels: int) -> None:
        """Count an image of a split with its labels."""
        self.images[split] = self.images.get(split, 0) + 1
        self.labels += labels

    def add_overlap(self, winner: str, loser: str, pixels: int) -> None:
        """Count pixels of an image that two classes claim."""
        before = self.overlaps.get((winner, loser), (0, 0))
        self.overlaps[winner, loser] = (before[0] + pixels, before[1] + 1)

    def overlap_lines(self, most: int = 8) -> list[str]:
        """Return a line for each two classes that overlap, most pixels first."""
        ranked = sorted(self.overlaps.items(), key=lambda item: -item[1][0])
        lines = [
            f"{winner} won over {loser}: {pixels} pixels in {counted(images, 'image')}"
            for (winner, loser), (pixels, images) in ranked[:most]
        ]
        return lines + ([f"and {len(ranked) - most} more pairs of classes"] if len(ranked) > most else [])

    def as_dict(self, classes: ClassTable) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "source": self.source,
            "format": self.format,
            "classes": list(classes.names),
            "images": self.images,
            "labels": self.labels,
            "overlaps": [
                {"won": winner, "lost": loser, "pixels": pixels, "images": images}
                for (winner, loser), (pixels, images) in self.overlaps.items()
            ],
            "unused": self.unused.reasons,
            "notes": self.notes,
        }


def print_import(report: ImportReport, out: str, console: Console) -> None:
    """Print what was imported, and what could not be used."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    splits = ", ".join(f"{count} {split}" for split, count in report.images.items())
    say(f"{report.title}: {report.labels} labels, images: {splits}, in {out}")
    for note in report.notes:
        say(f"note: {note}")
    if report.overlaps:
        say("labels of two classes overlap:")
        for line in report.overlap_lines():
            say(f"  {line}")
    if lines := report.unused.lines():
        say("not used:")
        for line in lines:
            say(f"  {line}")
