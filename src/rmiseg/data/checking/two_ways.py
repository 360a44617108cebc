"""Classes that masks of one data set write in two ways: 0 and 1 in some files, 0 and 255 in others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rmiseg.data.checking.inspection import SplitReport
from rmiseg.data.classes import IGNORE_INDEX, ClassTable, RawValue
from rmiseg.data.description import Description, yaml_line, yaml_value
from rmiseg.runtime.words import counted, some


def two_ways(classes: ClassTable, description: Description | None, reports: Sequence[SplitReport]) -> list[str]:
    """Say so, if a class seems to be written with one value in some of the masks, and with another in others.

    Masks of 0 and 1 beside masks of 0 and 255, which is ignored, or beside 0 where dataset.yaml says `nearest: true`:
    those that hold the other value hold one class alone, and training would learn that there is nothing else in them.

    Args:
        classes: The classes.
        description: What the data set's own dataset.yaml says, if it has one.
        reports: Findings in the masks.
    """
    if description is None:
        return []
    return _ignored(classes, description, reports) or _near(classes, description, reports)


def _ignored(classes: ClassTable, description: Description, reports: Sequence[SplitReport]) -> list[str]:
    """Likewise, of a value that nobody said is ignored."""
    ignored = sum(report.ignored_images for report in reports)
    if not description.ignore_assumed or not ignored:
        return []
    images = np.sum([report.class_images for report in reports], axis=0)
    together = np.sum([report.ignored_with for report in reports], axis=0)
    apart = np.flatnonzero((images > 0) & (together == 0)).tolist()
    if np.count_nonzero(together) != 1 or not apart:
        return []
    value = yaml_value(classes.ignore[0])
    names = some((classes.names[index] for index in apart), 5)
    first = next(report.ignored_file for report in reports if report.ignored_file)
    other = next(report.class_files[apart[0]] for report in reports if apart[0] in report.class_files)
    held = ", ".join(map(str, classes.values_of(apart[0])))
    return [
        f"{counted(ignored, 'mask')} of {' and '.join(report.name for report in reports if report.ignored_images)}, "
        f"such as {first}, {'holds' if ignored == 1 else 'hold'} {value}, which is ignored unless dataset.yaml says "
        f"otherwise, and none of these holds {names}, as others do, such as {other} with {held}: is that class written "
        f"in two ways? If so, write {'the like of ' if apart[1:] else ''}this into {description.path.name}: "
        f"`classes: {_with(classes, apart[0], classes.ignore[0])}`; if {value} is to be ignored, `ignore: {value}`"
    ]


def _near(classes: ClassTable, description: Description, reports: Sequence[SplitReport]) -> list[str]:
    """Likewise, of a value that stands for the nearest one: in masks of two values there are no smoothed edges."""
    for report in reports:
        for value, (index, path) in report.flat_values.items():
            if index == IGNORE_INDEX and not description.ignore_assumed:
                continue
            name = "ignored" if index == IGNORE_INDEX else classes.names[index]
            other = next((each for each in range(len(classes))[::-1] if each != index), index)
            same = f"`ignore: {[*map(yaml_value, classes.ignore), yaml_value(value)]}`"
            if index != IGNORE_INDEX:
                same = f"`classes: {_with(classes, index, value)}`"
            return [
                f"mask {path} of {report.name} holds two values, and `nearest: true` reads {value} as {name}: is a "
                f"class written in two ways? If it is a class of another value, write "
                f"{'the like of ' if len(classes) > 2 else ''}`classes: {_with(classes, other, value)}` into "
                f"{description.path.name}; if it is {name}, {same}"
            ]
    return []


def _with(classes: ClassTable, index: int, value: RawValue) -> str:
    """The entry `classes` with one more value of a class."""
    found = {name: [yaml_value(raw) for raw in classes.values_of(at)] for at, name in enumerate(classes.names)}
    found[classes.names[index]].append(yaml_value(value))
    return yaml_line({name: values if values[1:] else values[0] for name, values in found.items()})
