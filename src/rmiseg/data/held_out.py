"""Images of a split that are held out of a training, to score on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rmiseg.config.options import HELD_OUT
from rmiseg.data.images import Split
from rmiseg.runtime.files import printable


def named(entries: Iterable[str], names: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return the names that a list stands for, and its entries that stand for none.

    Args:
        entries: Names; one that ends in * stands for all that begin so.
        names: All names.
    """
    known, found, unknown = {printable(name): name for name in names}, set[str](), list[str]()
    ordered = sorted(known)
    for entry in map(printable, entries):
        place, many = bisect_left(ordered, entry[:-1]), set[str]()
        while entry.endswith("*") and place < len(ordered) and ordered[place].startswith(entry[:-1]):
            many.add(ordered[place])
            place += 1
        if entry not in known and not many:
            unknown.append(entry)
        found |= {known[text] for text in (many | {entry}) & known.keys()}
    return found, unknown


def divide(split: Split, held_out: Sequence[str]) -> tuple[Split, Split]:
    """Divide a split into the images to train on, and those that are held out, which are called `HELD_OUT`.

    Args:
        split: All images.
        held_out: See `named`.

    Raises:
        ValueError: An entry stands for no image, or one of the two would be empty.
    """
    found, unknown = named(held_out, split.names)
    if unknown:
        raise ValueError(f"data.held_out names the image {unknown[0]!r}, and split {split.name} has none of that name")
    if not 0 < len(found) < len(split):
        raise ValueError(
            f"data.held_out names {len(found)} of the {len(split)} images of split {split.name}: some are needed to "
            "train on, and some to score on"
        )
    train, val = (
        replace(split, samples=tuple(sample for sample in split.samples if (sample.name in found) == held))
        for held in (False, True)
    )
    return train, replace(val, name=HELD_OUT)
