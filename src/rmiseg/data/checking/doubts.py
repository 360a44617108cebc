"""Doubts about a whole data set: what need not be wrong, but seldom is intended.

`rmiseg.data.checking.verdict` has what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rmiseg.data.checking.inspection import SplitReport
from rmiseg.data.checking.seams import is_seam
from rmiseg.data.checking.verdict import one_color_each
from rmiseg.data.classes import ClassTable
from rmiseg.data.description import yaml_line
from rmiseg.data.images import Split
from rmiseg.runtime.words import counted, some

BETWEEN = 1.05
"""Factor by which pixels nearest to a class whose value lies between others may exceed those that hold it; beyond, it
is smoothed edges that are mistaken for it."""

EQUAL = 4
"""Equal masks from which on something is said, if they are most of a split."""


def warnings_of(classes: ClassTable, reports: Sequence[SplitReport], all_read: bool = True) -> list[str]:
    """List what need not be wrong, but seldom is intended.

    Args:
        classes: The classes.
        reports: Findings in the splits.
        all_read: False if only some of the masks were read, which do not tell that a class is absent.
    """
    warnings = list(dict.fromkeys(warning for report in reports for warning in report.warnings))
    warnings += [
        f"{report.name}: {counted(len(turned), 'image')} turned by the EXIF orientation, with a mask that has none, "
        f"e.g. {turned[0].image}: was the mask drawn on the image as it is stored? Then turn the mask, or remove the "
        f"orientation from the image"
        for report in reports
        if (turned := report.turned_alone)
    ]
    warnings += [
        f"{report.name}: {counted(len(turned), 'mask')} turned by an EXIF orientation that the image does not have, "
        f"e.g. {turned[0].mask}: was it drawn on the image as it is stored? Then remove the orientation from the mask"
        for report in reports
        if (turned := report.turned_otherwise)
    ]
    warnings += (
        _alpha_warnings(reports)
        + _between(classes, reports)
        + _seams(classes, reports)
        + _unlike_seen(classes, reports)
        + _repeated(reports)
    )
    warnings += [
        f"{report.name}: {counted(len(report.deep), 'image')} of more than 8 bits among others of 8, e.g. "
        f"{report.deep[0]}: of 16 bits the higher 8 are seen, so that 10 or 12 bits are nearly black. Save all alike, "
        f"or write what is black and white into dataset.yaml, as in `range: [0, 4095]`"
        for report in reports
        if report.deep
    ]
    absent: dict[tuple[str, ...], list[int]] = {}
    for index in range(len(classes) if all_read else 0):
        names = tuple(report.name for report in reports if report.class_pixels.any() and not report.class_pixels[index])
        if names:
            absent.setdefault(names, []).append(index)
    for names, indices in absent.items():
        if len(indices) == 1:
            index = indices[0]
            warnings.append(
                f"class {classes.names[index]} (mask value {classes.values[index]}) does not occur in "
                f"{', '.join(names)}"
            )
        else:
            shown = some((classes.names[index] for index in indices), 10)
            warnings.append(f"{len(indices)} of {len(classes)} classes do not occur in {', '.join(names)}: {shown}")
    return warnings


def may_share(first: Split, second: Split) -> bool:
    """True if two splits are meant to have images in common: parts of train, and trainval."""
    names = (first.name, second.name)
    return "trainval" in names or (first.name != second.name and all(name.startswith("train") for name in names))


def on_both_sides(first: Split, second: Split) -> str:
    """Say that two splits share images, where that is seldom intended; "" if they do not, or may."""
    if may_share(first, second):
        return ""
    both = {sample.image for sample in first.samples} & {sample.image for sample in second.samples}
    if not both:
        return ""
    return (
        f"{counted(len(both), 'image')} in both {first.name} and {second.name}, e.g. {min(both)}: scores on images "
        f"that were trained on say nothing"
    )


def _repeated(reports: Sequence[SplitReport]) -> list[str]:
    """Warn where masks are the same, pixel for pixel, although each should show another image."""
    found = []
    for report in reports:
        most, first = max(report.drawings.values(), default=(0, None))
        if most >= EQUAL and 2 * most > report.masks:
            found.append(
                f"{report.name}: {most} of {report.masks} masks are the same, pixel for pixel, such as {first}: was "
                f"one written in the place of all? All is well if camera and scene stand still"
            )
    return found


def _alpha_warnings(reports: Sequence[SplitReport]) -> list[str]:
    return [
        f"{report.name}: {counted(len(paths), 'mask')} with transparent pixels, e.g. {paths[0]}: what is stored below "
        f"the transparency counts, which no program shows. If transparent is a class, put it on a background of its own"
        for report in reports
        if (paths := report.transparent)
    ]


def _unlike_seen(classes: ClassTable, reports: Sequence[SplitReport]) -> list[str]:
    """Warn where the values of masks are other than what programs show: then black is not the first class."""
    warnings = [
        f"{report.name}: {counted(len(paths), 'mask')} of TIFF files whose zero is white (MinIsWhite), and most pixels "
        f"are not 0, e.g. {paths[0]}: the stored values count, so that programs show {classes.names[0]} in white, and "
        f"all else in gray or black. If black is {classes.names[0]}, save the masks as PNG"
        for report in reports
        if (paths := report.inverted) and not classes.rgb
    ]
    colors = {} if classes.rgb else one_color_each(reports)
    ids = dict(zip(classes.known, classes.known_ids))
    black = next((value for value, color in colors.items() if color == (0, 0, 0)), None)
    if (
        black is None
        or black not in ids
        or not 0 < ids[black] < len(classes)
        or (first := classes.values[0]) not in colors
    ):
        return warnings
    named = {classes.names[0]: [0, 0, 0]}
    named |= {classes.names[ids[black]]: list(colors[first])} if len(classes) == 2 else {}
    more = "" if len(classes) == 2 else "the like of "
    path = next(files[color] for report in reports for color in [(0, 0, 0)] if (files := report.colors.get(black)))
    return [
        *warnings,
        f"value {first}, {classes.names[0]}, has the color {list(colors[first])} in the palettes of the masks, and "
        f"{black}, {classes.names[ids[black]]}, is black, e.g. in {path}: the values count, not what programs show. If "
        f"black is {classes.names[0]}, write {more}this into dataset.yaml: `classes: {yaml_line(named)}`",
    ]


def _between(classes: ClassTable, reports: Sequence[SplitReport]) -> list[str]:
    """Warn where smoothed edges between two classes pass the value of a third, as which they are read."""
    if not classes.nearest or classes.rgb:
        return []
    levels = sorted(value for value in classes.known if isinstance(value, int))
    near, exact = (
        np.sum([getattr(each, name) for each in reports], axis=0) for name in ("class_pixels", "exact_pixels")
    )
    return [
        f"{1 - exact[index] / near[index]:.1%} of the pixels of class {classes.names[index]} hold another value that "
        f"is nearest to {value}: smoothed edges between {levels[0]} and {levels[-1]} pass it, and are read as this "
        f"class. Save the masks without smoothing, if there is a way"
        for index, value in enumerate(classes.values)
        if isinstance(value, int) and levels[0] < value < levels[-1] and near[index] > BETWEEN * exact[index]
    ]


def _seams(classes: ClassTable, reports: Sequence[SplitReport]) -> list[str]:
    """Warn of classes that are seams between two others, as interpolation makes them."""
    counts = np.sum([each.seams for each in reports], axis=0)
    found = [index for index in range(len(classes)) if is_seam(*counts[:, index].tolist())]
    if classes.nearest or not found:
        return []
    first, (pixels, between, _) = found[0], counts[:, found[0]]
    names = some((f"{classes.names[index]} ({classes.values[index]})" for index in found), 5)
    return [
        f"{between / pixels:.0%} of the pixels of class {classes.names[first]} lie in seams between lower and higher "
        f"values than {classes.values[first]}, and these hardly touch: were the masks resized with "
        f"interpolation, which makes 1 between 0 and 2? So it is with {names}. Resize them without (nearest neighbor); "
        f"all is well with a class that is the outline of another"
    ]
