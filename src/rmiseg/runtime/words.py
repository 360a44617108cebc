"""Numbers and lists in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable


def counted(number: int, noun: str) -> str:
    """Say how many of something there are."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def scope_of_mean(scored: int, classes: int) -> str:
    """Say over how many classes a mean is taken, if not over all: " over 2 of 3 classes", else ""."""
    return "" if scored == classes else f" over {scored} of {classes} classes"


def some(things: Iterable[object], most: int = 6) -> str:
    """List the first of some things, such as names, and say how many more there are."""
    names = list(map(str, things))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def percent(share: float | None, sign: str = "") -> str:
    """Write a share in percent, with two digits and the sign behind it; a dash alone for what has no value."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}{sign}"


def percents(interval: Iterable[float | None]) -> str:
    """Write the ends of an interval of shares in percent; a dash for that of what has no value."""
    ends = [percent(each) for each in interval]
    return "-" if "-" in ends else " to ".join(ends)


def rounded(number: float) -> str:
    """Write a number with two digits that count, or all before the point."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
