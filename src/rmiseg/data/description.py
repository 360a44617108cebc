"""Description of a data set of somebody's own: the file dataset.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rmiseg.config.recipes import read_yaml, shortened
from rmiseg.data.bands import RGB, Bands, Ranges, checked_bands, checked_ranges
from rmiseg.data.classes import IGNORE_INDEX, ClassTable, Color, RawValue, voc_palette
from rmiseg.data.suggestion import suggest

NAMES = ("dataset.yaml", "dataset.yml")
"""Names of the file, in any capitals."""
TABLES, LISTS = (".json", ".xml", ".csv"), ("labelmap.txt", "classes.txt")
"""Suffixes and names of files in which labelling tools say what the values in masks mean."""
ENTRIES = ("classes", "ignore", "colors", "nearest", "range", "bands")


@dataclass(frozen=True)
class Description:
    """Content of a dataset.yaml.

    Attributes:
        path: The file.
        classes: The classes.
        ignore_assumed: True if the file does not say what is ignored, so that 255 is.
        value_range: Values of pixels that become 0 and 255, in images of more than 8 bits; None if it does not say.
        band_count: Number of bands of the images; None if it does not say.
        least_bands: Highest number of a band that it names: there are as many, or more.
        picture: Bands, from 0, that are red, green and blue in pictures; None if it does not say.
    """

    path: Path
    classes: ClassTable
    ignore_assumed: bool = False
    value_range: Ranges = None
    band_count: int | None = None
    least_bands: int = 1
    picture: tuple[int, int, int] | None = None

    @property
    def bands(self) -> Bands:
        """Bands of the images, as far as it says."""
        return Bands(self.band_count or max(RGB.count, self.least_bands), self.value_range, self.picture)


def read_description(root: Path, masks: Iterable[Path] = ()) -> Description:
    """Read dataset.yaml, or dataset.yml, whose entries are

    - ``classes``: a list of names, whose mask values are 0, 1, 2, ...; or a mapping from names to mask values, or from
      mask values to names; or a mapping from names to [red, green, blue] or '#rrggbb', for masks that hold colors. A
      class may have a list of several values, or colors. It may be called ``names``;
    - ``ignore``: the value (or color), or a list of them, of pixels that belong to no class. Default: 255, unless
      that is a class; nothing for colors;
    - ``colors``: a list of [red, green, blue] in the order of the classes, for pictures. Default: the colors of the
      masks, else those of PASCAL VOC;
    - ``nearest``: true if any other value in the masks stands for the nearest of these. Default: false;
    - ``range``: the values [black, white] of images of more than 8 bits, or one such pair for each band. Default:
      taken from the training images;
    - ``bands``: the number of bands of the images, or which of them are red, green and blue in pictures, counted from
      1, as {red: 3, green: 2, blue: 1}. Default: as many as the training images have.

    Args:
        root: Folder of the data set.
        masks: Its masks, from whose values a description is suggested where there is none.

    Raises:
        ValueError: the file is missing (the message shows one to start from), is not valid YAML, or says something
            that is not allowed.
    """
    found = sorted(path for path in root.iterdir() if path.name.lower() in NAMES and path.is_file())
    if not found:
        masks = list(masks)
        if not masks:
            raise ValueError(
                f"{root / NAMES[0]} is missing, and so are masks. What a labelling tool exported becomes such a data "
                f"set by `rmiseg data import {root} --out NEW`; else dataset.yaml says what the values in the masks "
                f"mean, as in `classes: {{background: 0, something: 1}}`"
            )
        exported = ""
        if (labels := _of_labelling_tool(root)) is not None:
            exported = (
                f"If {labels} says so, which may be of a labelling tool, `rmiseg data import {root} --out NEW` reads "
                f"it. "
            )
        raise ValueError(
            f"{root / NAMES[0]} is missing: it says what the values in the masks mean. {exported}To start from "
            f"(rename the classes):\n\n{suggest(masks)}"
        )
    if len(found) > 1:
        raise ValueError(f"there are both {found[0]} and {found[1]}: remove one")
    path = found[0]
    spec = read_yaml(path)
    try:
        return _parse(path, spec)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _of_labelling_tool(root: Path) -> Path | None:
    """A file beside the images, or in a folder there, as labelling tools write it."""
    beside = (path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)))
    return next((path for path in beside if path.suffix.lower() in TABLES or path.name.lower() in LISTS), None)


def _parse(path: Path, spec: Any) -> Description:
    if isinstance(spec, dict) and "names" in spec:  # as other programs call them
        if "classes" in spec:
            raise ValueError("give the classes once, as `classes`; they are there as `names`, too")
        spec = {**{key: value for key, value in spec.items() if key != "names"}, "classes": spec["names"]}
    if not isinstance(spec, dict) or "classes" not in spec:
        raise ValueError("there must be an entry `classes`: a list of names, or a mapping from names to mask values")
    if unknown := [key for key in spec if key not in ENTRIES]:
        raise ValueError(f"unknown entry {', '.join(map(repr, unknown))}; valid: {', '.join(ENTRIES)}")
    names, several = _classes(spec["classes"])
    values = tuple(each[0] for each in several)
    also = [(raw, index) for index, each in enumerate(several) for raw in each[1:]]
    rgb = isinstance(values[0], tuple)
    ignore = spec.get("ignore", [] if rgb or any(IGNORE_INDEX in each for each in several) else [IGNORE_INDEX])
    if ignore is None:
        ignore = []
    elif not isinstance(ignore, list) or (rgb and len(ignore) == 3 and all(type(x) is int for x in ignore)):
        ignore = [ignore]
    palette: Any = spec.get("colors") or (values if rgb else voc_palette(len(values)))
    if not isinstance(palette, list | tuple):
        raise ValueError(f"`colors` must be a list of [red, green, blue] in the order of the classes, not {palette!r}")
    nearest = spec.get("nearest", False)
    if not isinstance(nearest, bool):
        raise ValueError(f"`nearest` must be true or false, not {nearest!r}")
    value_range = spec.get("range")
    if value_range is not None and not isinstance(value_range, list):
        raise ValueError(f"`range` must be two numbers, such as [0, 4095], not {value_range!r}")
    count, least, picture = (None, 1, None) if spec.get("bands") is None else checked_bands(spec["bands"])
    classes = ClassTable(
        names=names,
        values=values,
        ignore=tuple(map(_raw_value, ignore)),
        palette=tuple(map(_color, palette)),
        nearest=nearest,
        also=tuple(raw for raw, _ in also),
        also_ids=tuple(index for _, index in also),
    )
    assumed = "ignore" not in spec and bool(classes.ignore)
    ranges = None if value_range is None else checked_ranges(value_range, count)
    return Description(path, classes, assumed, ranges, count, least, picture)


def _classes(classes: Any) -> tuple[tuple[str, ...], tuple[tuple[RawValue, ...], ...]]:
    """Names and raw values, one or several each, of the entry `classes`."""
    if isinstance(classes, dict) and all(_is_number(k) and isinstance(v, str) for k, v in classes.items()):
        # {0: background} and {'0': background}, as other programs have it
        classes = _turned_round({int(key): name for key, name in classes.items()})
    if isinstance(classes, list) and all(isinstance(each, dict) and len(each) == 1 for each in classes):
        entries = [entry for each in classes for entry in each.items()]  # a mapping with a dash before each line
        classes = dict(entries) if len({name for name, _ in entries}) == len(entries) else classes
    if isinstance(classes, dict) and all(
        _is_hex(k) and isinstance(v, str) and not _is_hex(v) for k, v in classes.items()
    ):
        classes = _turned_round(classes)
    names = list(classes) if isinstance(classes, list | dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`classes` must be a list of names, or a mapping from names to mask values, such as `{{background: 0, "
            f"something: 1}}`, not {shortened(repr(classes), 200)} (names such as true, null or 1 need quotes)"
        )
    raws = list(classes.values()) if isinstance(classes, dict) else list(range(len(names)))
    single = any(_is_single(raw) for raw in raws)
    return tuple(names), tuple(_raw_values(raw, single) for raw in raws)


def _turned_round(classes: dict[Any, str]) -> dict[str, Any]:
    """Names and values of values and names."""
    for name in classes.values():
        if len(values := [value for value, each in classes.items() if each == name]) > 1:
            raise ValueError(
                f"`classes` has the name {name!r} for {', '.join(map(str, values))}: `{name}: {values}` is one class "
                f"of several values"
            )
    return {name: value for value, name in classes.items()}


def _raw_values(value: Any, single: bool) -> tuple[RawValue, ...]:
    """Values of a class: one, or a list of several. Three numbers are a color, unless others have `single` values."""
    if isinstance(value, list) and value and (single or not _is_three(value)):
        return tuple(map(_raw_value, value))
    return (_raw_value(value),)


def _is_single(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) != 3 and all(type(each) is int for each in value)
    return type(value) is int or numbers or (isinstance(value, str) and value.strip().isdecimal())


def _is_three(value: list[Any]) -> bool:
    return len(value) == 3 and all(type(each) is int for each in value)


def _is_hex(key: Any) -> bool:
    return isinstance(key, str) and re.fullmatch("#[0-9a-fA-F]{6}", key) is not None


def _is_number(key: Any) -> bool:
    return type(key) is int or (isinstance(key, str) and key.isdecimal())


def _raw_value(value: Any) -> RawValue:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return _color(value)


def _color(value: Any) -> Color:
    if isinstance(value, list | tuple) and len(value) == 3 and all(type(channel) is int for channel in value):
        return (value[0], value[1], value[2])
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return (int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16))
    hint = "; a color that begins with # needs quotes" if value is None else ""
    given = shortened(repr(value), 200)
    raise ValueError(f"{given} is neither a mask value such as 3 nor a color such as [128, 0, 0] or '#800000'{hint}")


def yaml_line(values: dict[str, Any]) -> str:
    """Return an entry of the file in one line."""
    return str(
        yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()
    )


def yaml_value(value: RawValue) -> int | list[int]:
    """Return a value of a mask as it stands in the file."""
    return list(value) if isinstance(value, tuple) else value
