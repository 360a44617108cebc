"""Judgement of a whole data set by what its masks hold: what training on it could not learn, or would learn wrong.

`rmiseg data check` asks for it after it has read all files, and training, before its first step, after some; see
`rmiseg.data.training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmiseg.data.checking.inspection import SplitReport
from rmiseg.data.checking.two_ways import two_ways
from rmiseg.data.classes import ClassTable, RawValue
from rmiseg.data.description import Description, yaml_line, yaml_value
from rmiseg.runtime.words import some

SELDOM = 2
"""Factor by which pixels nearest to a class may exceed those that hold its value, where nobody said what is ignored; a
class beyond it is not what the masks hold."""


def problems_of(
    classes: ClassTable, description: Description | None, learned: Sequence[SplitReport], reports: Sequence[SplitReport]
) -> list[str]:
    """Say what is wrong with a data set as a whole: what comes first of classes, splits, and classes of two values.

    Args:
        classes: The classes.
        description: What the data set's own dataset.yaml says, if it has one.
        learned: Findings in the masks that are trained on.
        reports: Findings in all masks.
    """
    problems = class_problems(classes, description, learned) + palette_problems(reports)
    return problems or unscored(reports) or two_ways(classes, description, reports)


def class_problems(classes: ClassTable, description: Description | None, reports: Sequence[SplitReport]) -> list[str]:
    """Say which classes cannot be learned from the masks of a training.

    Args:
        classes: The classes.
        description: What the data set's own dataset.yaml says, if it has one.
        reports: Findings in the masks that are trained on.
    """
    where = description.path if description else "the data set"
    names = " and ".join(report.name for report in reports)
    if len(classes) == 1:
        return [
            f"{where} names one class, {classes.names[0]}, and nothing to tell it from: name what all else is, too, "
            f"as in `classes: {_with_background(classes, reports)}`"
        ]
    exact, near = (
        np.sum([getattr(each, name) for each in reports], axis=0) for name in ("exact_pixels", "class_pixels")
    )
    ignored = _ignored(reports)
    assumed = ignored and description and description.ignore_assumed
    pixels = np.where(SELDOM * exact < near, 0, near) if assumed else near
    unknown = any(report.unknown_values for report in reports)
    if (not pixels.any() and not ignored) or (unknown and not ignored):
        return []  # no mask could be read, or what they hold has to be told first
    present, absent = np.flatnonzero(pixels).tolist(), np.flatnonzero(pixels == 0).tolist()
    if ignored and absent and (len(present) < 2 or (description and description.ignore_assumed)):
        total = int(pixels.sum()) + sum(ignored.values())
        shares = " and ".join(f"{value} ({count / total:.1%} of the pixels)" for value, count in ignored.items())
        missing = some((classes.names[index] for index in absent), 5)
        default = " unless dataset.yaml says otherwise" if description and description.ignore_assumed else ""
        remedy = "Are these its masks?"
        if description:
            inverted = sum(ignored.values()) > total / 2
            remedy = renumbered(classes, reports) or _remedy(classes, present, absent, list(ignored), inverted)
        return [
            f"no mask of {names} holds the class{'es' if len(absent) > 1 else ''} {missing}, but {shares} is "
            f"ignored{default}. {remedy}"
        ]
    if len(present) == 1:
        return [
            f"the masks of {names} hold one class, {classes.names[present[0]]}, alone: there is nothing to tell it "
            f"from. {_known(classes)}{_alpha_hint(reports)}"
        ]
    return []


def renumbered(classes: ClassTable, reports: Sequence[SplitReport]) -> str:
    """Return the line to write into dataset.yaml, if masks hold as many values as there are classes, but others.

    Such are 0, 128 and 255, or 1 and 2, where names alone stand for 0, 1 and 2. "" if there is none.
    """
    exact = np.sum([report.exact_pixels for report in reports], axis=0)
    unknown = {value for report in reports for value in report.unknown_values}
    if exchanged := _exchanged(classes, unknown):
        return exchanged
    found = unknown | _ignored(reports).keys() | {value for value, n in zip(classes.values, exact) if n}
    if classes.rgb or classes.nearest or classes.also or not unknown or len(found) != len(classes):
        return ""
    levels = [color[0] for color in one_color_each(reports).values() if len(set(color)) == 1]
    if sorted(levels) == sorted(value for value in classes.values if isinstance(value, int)):
        colors = yaml_line({name: [value] * 3 for name, value in zip(classes.names, classes.values)})
        return (
            f"The values are numbers of a palette, and the colors in it are those of the classes: write this into "
            f"dataset.yaml: `classes: {colors}`"
        )
    line = yaml_line(dict(zip(classes.names, sorted(found, key=_yaml_key))))
    return (
        f"The masks hold as many values as there are classes. If these follow in the same order, write this into "
        f"dataset.yaml: `classes: {line}`"
    )


def _exchanged(classes: ClassTable, unknown: set[RawValue]) -> str:
    """The line to write, if all unknown colors are known ones with red and blue exchanged, as OpenCV takes colors."""
    known = set(classes.known)
    if not unknown or not all(isinstance(color, tuple) and color[::-1] in known for color in unknown):
        return ""
    colors = {
        name: [list(color[::-1]) for color in classes.values_of(index) if isinstance(color, tuple)]
        for index, name in enumerate(classes.names)
    }
    line = yaml_line({name: values if values[1:] else values[0] for name, values in colors.items()})
    return f"Red and blue are exchanged, as OpenCV takes colors: write this into dataset.yaml: `classes: {line}`"


def unscored(reports: Sequence[SplitReport]) -> list[str]:
    """Say which splits have masks of which every pixel is ignored: there is nothing to score on, nor to learn."""
    return [
        f"every pixel of the masks of {report.name} is ignored ({', '.join(map(str, report.ignored_values))}): a score "
        f"on them says nothing. Are these its masks?"
        for report in reports
        if report.ignored_values and not report.class_pixels.any() and not report.unknown_values
    ]


def ignored_note(description: Description | None, reports: Sequence[SplitReport]) -> list[str]:
    """Say which share of the pixels is ignored, where nobody said so."""
    pixels = sum(int(report.class_pixels.sum()) + report.ignored_pixels for report in reports)
    ignored = _ignored(reports)
    if description is None or not description.ignore_assumed or not ignored:
        return []
    share = sum(ignored.values()) / max(pixels, 1)
    value = next(iter(ignored))
    return [
        f"{share:.2%} of the pixels hold {value} and are ignored, which is so unless {description.path.name} says "
        f"otherwise (`ignore: []` for none)"
    ]


def palette_problems(reports: Sequence[SplitReport]) -> list[str]:
    """Say where the same value has different colors in the palettes of masks, or the same color different values."""
    colors: dict[int, dict[tuple[int, int, int], Path]] = {}
    values: dict[tuple[int, int, int], dict[int, Path]] = {}
    for report in reports:
        for index, files in report.colors.items():
            colors[index] = {**files, **colors.get(index, {})}
        for color, indices in report.values.items():
            values[color] = {**indices, **values.get(color, {})}
    found = sorted({color for files in colors.values() for color in files})
    remedy = (
        f"The palettes differ from file to file, so the values alone mean nothing. Give each class its color in "
        f"dataset.yaml, as in `classes: {{background: {list(found[0])}, something: {list(found[-1])}}}`; the masks "
        f"hold the colors {', '.join(str(list(color)) for color in found[:20])}"
        if found
        else ""
    )
    for index, files in sorted(colors.items()):
        if len(files) > 1:
            (first, one), (second, other) = list(files.items())[:2]
            return [f"value {index} is the color {list(first)} in mask {one}, but {list(second)} in {other}. {remedy}"]
    for color, indices in sorted(values.items()):
        if len(indices) > 1:
            (low, one), (high, other) = list(indices.items())[:2]
            return [f"the color {list(color)} is value {low} in mask {one}, but {high} in {other}. {remedy}"]
    return []


def _alpha_hint(reports: Sequence[SplitReport]) -> str:
    paths = [path for report in reports for path in report.transparent]
    return f". Is the class in the transparency of {paths[0]}? That is not read: save it as gray" if paths else ""


def one_color_each(reports: Sequence[SplitReport]) -> dict[int, tuple[int, int, int]]:
    """The color of each value of masks with palettes, where all palettes give it the same."""
    colors: dict[int, set[tuple[int, int, int]]] = {}
    for report in reports:
        for value, files in report.colors.items():
            colors.setdefault(value, set()).update(files)
    return {value: min(each) for value, each in colors.items() if len(each) == 1}


def _ignored(reports: Sequence[SplitReport]) -> dict[RawValue, int]:
    ignored: dict[RawValue, int] = {}
    for report in reports:
        for value, pixels in report.ignored_values.items():
            ignored[value] = ignored.get(value, 0) + pixels
    return ignored


def _yaml_key(value: RawValue) -> int:
    return value if isinstance(value, int) else 0


def _remedy(classes: ClassTable, present: list[int], absent: list[int], ignored: list[RawValue], inverted: bool) -> str:
    """The line to write into dataset.yaml, in place of what is there."""
    used = {classes.names[index]: yaml_value(classes.values[index]) for index in present}
    for index, value in zip(absent, ignored):
        used[classes.names[index]] = yaml_value(value)
    line = yaml_line(used)
    if not present and len(ignored) == 1:
        return "They hold nothing else, and so nothing to learn from: are these the masks?"
    if not present:
        return f"Name what the masks hold, as in `classes: {line}`"
    exact = len(absent) == len(ignored)
    swap = inverted and len(present) == len(absent) == len(ignored) == 1
    values = [yaml_value(value) for value in ignored]
    # Without a second class there is nothing to learn.
    keep = (
        f"; if it is to be ignored, write `ignore: {values[0] if len(values) == 1 else values}`" if present[1:] else ""
    )
    return (
        f"If {'it is that class' if len(absent) == 1 else 'it is one of them'}, write {'' if exact else 'the like of '}"
        f"this into dataset.yaml: `classes: {line}`{keep if len(present) > 1 else ''}"
        + (
            f", or, since most pixels hold it, `classes: {yaml_line(dict(zip(used, [*used.values()][::-1])))}`"
            if swap
            else ""
        )
    )


def _with_background(classes: ClassTable, reports: Sequence[SplitReport]) -> str:
    """The line for what the masks hold beside the one class."""
    pixels = {value: each.pixels for report in reports for value, each in report.unknown_values.items()}
    others = sorted(pixels | _ignored(reports), key=lambda value: -pixels.get(value, 0))
    value = classes.values[0]
    if value == 0:  # which stands for all else in nearly all masks
        return yaml_line({"background": 0, classes.names[0]: yaml_value(others[0]) if others else 1})
    background = others[0] if others else (0, 0, 0) if classes.rgb else 0
    return yaml_line({"background": yaml_value(background), classes.names[0]: yaml_value(value)})


def _known(classes: ClassTable) -> str:
    return f"Known are {some((f'{name}: {value}' for name, value in zip(classes.names, classes.values)), 5)}"
