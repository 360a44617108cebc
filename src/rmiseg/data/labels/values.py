"""Values of labelling tools' documents, taken strictly: names of classes, whole numbers, sizes, colors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from rmiseg.config.recipes import shortened
from rmiseg.data.classes import Color

Size: TypeAlias = tuple[int, int]
"""Height and width."""


def class_name(value: Any) -> str:
    """Return the name of a class, of what a document gives as such: a text, or a number.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(
            f"{shortened(repr(value), 100)} is no name of a class; in YAML, words such as true need quotes"
        )
    return str(value)


def whole(value: Any, title: str) -> int:
    """Return a whole number that a document gives as such, or as a float or text.

    Raises:
        ValueError: It is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not number.is_integer() or abs(number) > 2**53:
        raise ValueError(f"{title} must be a whole number, not {shortened(repr(value), 100)}")
    return int(number)


def size_of(entry: Mapping[str, Any], height: str = "height", width: str = "width") -> Size:
    """Return the size of an image that an entry gives under two keys.

    Raises:
        KeyError, ValueError: It does not.
    """
    return whole(entry[height], height), whole(entry[width], width)


def hex_color(text: str | None) -> Color | None:
    """Return the color of a text such as #ff8000; None if it is none."""
    try:
        code = int((text or "").removeprefix("#"), 16)
    except ValueError:
        return None
    return packed_color(code) if text and len(text) == 7 else None


def packed_color(code: int) -> Color:
    """Return the color whose red, green and blue are the third, second and last byte of a number."""
    return (code >> 16 & 255, code >> 8 & 255, code & 255)
