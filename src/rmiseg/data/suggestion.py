"""Suggestion of a dataset.yaml to start from, made of what masks hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmiseg.data.classes import IGNORE_INDEX, RawValue
from rmiseg.data.image_files.masks import SMOOTHED_SHARE, SMOOTHED_VALUES, read_raw_mask
from rmiseg.data.image_files.opening import nodata_of
from rmiseg.data.spread import spread
from rmiseg.runtime.words import counted

FEW_LEVELS = 6
"""Values that cover a hundredth of the pixels, up to which others are taken for edges that were smoothed."""
MANY_OBJECTS = 20
"""Objects in one of several masks, from which on values that are numbered in each of them are those of objects."""
FEW_OBJECTS = 4
"""Those from which on they may be."""
OBJECTS = """classes:
  background: 0
  object: 1
nearest: true  # all other numbers are objects, too
ignore: []
"""
NOTHING = "classes:\n  background: 0\n  something: 1\nignore: 255\n"


@dataclass
class _Masks:
    """Values of some masks, and what else is to be known of them.

    Attributes:
        count: Number of masks that were looked at.
        pixels: Pixels of each value, or of each color.
        unread: What is wrong with those that cannot be read.
        nodata: Values that TIFF files name as standing for no data.
        numbered: Of each mask that does not hold 0 alone, its highest value if they are 1, 2, 3 and so on, else 0.
    """

    count: int
    pixels: Counter[RawValue] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    nodata: set[int] = field(default_factory=set)
    numbered: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, paths: Sequence[Path]) -> _Masks:
        found = cls(len(paths))
        rgb = any(map(_holds_colors, paths))
        for path in paths:
            try:
                raw, nodata = read_raw_mask(path, rgb, lossy=True).values, nodata_of(path)
            except (ValueError, OSError) as error:
                found.unread.append(str(error))
                continue
            values, pixels = np.unique(raw.reshape(-1, 3) if rgb else raw.ravel(), axis=0, return_counts=True)
            if not rgb and values[-1] > 0:
                found.numbered.append(int(values[-1]) if _is_numbered(values) else 0)
            found.pixels.update(dict(zip(map(tuple, values.tolist()) if rgb else values.tolist(), pixels.tolist())))
            if nodata is not None and nodata.is_integer() and int(nodata) in found.pixels:
                found.nodata.add(int(nodata))
        return found

    def number_objects(self, least: int) -> bool:
        """Tell whether the values seem to number the objects of each mask, of which one has `least`."""
        return len(set(self.numbered)) > 1 and all(self.numbered) and max(self.numbered) >= least

    @property
    def levels(self) -> Counter[RawValue]:
        """The values that are left if others come from edges that were smoothed; else all."""
        total = self.pixels.total()
        frequent = Counter({value: count for value, count in self.pixels.items() if count >= 0.01 * total})
        if len(frequent) == 1 and len(self.pixels) > 1:  # a small object: its level is the most frequent of the others
            second = max(self.pixels.keys() - frequent.keys(), key=lambda value: self.pixels[value])
            frequent[second] = self.pixels[second]
        most = min(FEW_LEVELS, (len(self.pixels) - SMOOTHED_VALUES) // 2)
        return frequent if len(frequent) <= most and frequent.total() >= SMOOTHED_SHARE * total else self.pixels


def suggest(paths: list[Path], files: int = 50, most: int = 40) -> str:
    """Return a dataset.yaml made from the values in some masks, which are spread evenly over all."""
    masks = _Masks.of([paths[index] for index in spread(len(paths), files)])
    unread = ""
    if masks.unread:
        first = " ".join(masks.unread[0].split())
        unread = f"# of {counted(masks.count, 'mask')} {len(masks.unread)} cannot be read; the first: {first}\n"
    if not masks.pixels:
        return unread + NOTHING
    if masks.number_objects(MANY_OBJECTS):
        programs = "Cellpose, StarDist, napari and Fiji"
        return f"{unread}# the values seem to number the objects of each image, as those of {programs} do\n{OBJECTS}"
    levels, total = masks.levels, masks.pixels.total()
    # 255 beside several values is the usual mark of ignored pixels; beside 0 alone it is the usual foreground.
    usual = {IGNORE_INDEX} if IGNORE_INDEX in levels and len(levels) > 2 else set()
    named = (masks.nodata - {0}) & levels.keys()  # 0 is the background of many who call it so
    if len(levels.keys() - usual - named) < 2:
        named = set()
    ignored = sorted(usual | named)
    lines = [f"# from {masks.count} of the masks, with the share of pixels", "classes:"]
    for number, value in enumerate(sorted(levels.keys() - set(ignored))[:most]):
        entry = f"class_{number}: {list(value)}" if isinstance(value, tuple) else f"class_{value}: {value}"
        note = ", which the files name as no data: a class, or to `ignore`?" if value in masks.nodata else ""
        lines.append(f"  {entry}  # {levels[value] / total:.2%}{note}")
    if len(levels) > most + len(ignored):
        lines.append(f"  # ... and {len(levels) - most - len(ignored)} more values: are these masks?")
    if ignored:
        values = str(ignored[0]) if len(ignored) == 1 else str(ignored)
        note = ", which the files name as no data" if named else ""
        lines.append(f"ignore: {values}  # {sum(levels[value] for value in ignored) / total:.2%}{note}")
    lines += ["nearest: true  # the edges look smoothed"] if levels is not masks.pixels else []
    if masks.number_objects(FEW_OBJECTS):
        lines += ["", "# if the values number the objects of each image, and are no classes, write in place of that:"]
        lines += [f"# {line}" for line in OBJECTS.splitlines()]
    return unread + "\n".join(lines) + "\n"


def _is_numbered(values: NDArray[np.integer[Any]]) -> bool:
    """Tell whether the values of a mask, sorted, are 1, 2, 3 and so on, with a few gaps, beside 0."""
    positive = values[values > 0]
    return bool(values[0] >= 0 and len(positive) >= 0.75 * positive[-1])


def _holds_colors(path: Path) -> bool:
    """Tell whether a mask holds colors, rather than values or gray that was saved as RGB."""
    try:
        read_raw_mask(path, rgb=False, lossy=True)
    except (ValueError, OSError):
        try:
            read_raw_mask(path, rgb=True, lossy=True)
        except (ValueError, OSError):
            return False
        return True
    return False
