"""Checks of the options of losses, and of what losses are called with."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor


def check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    """Raises a ValueError if `choice` is none of the choices."""
    if choice not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {choice!r}")


def whole_number(name: str, value: Any) -> int:
    """An integer of at least 1, which may be NumPy's.

    Raises:
        ValueError: It is no such number.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    """One integer, several or none, as plain numbers: torch.compile of older versions takes no others.

    Raises:
        ValueError: They are something else.
    """
    if values is None:
        return ()
    for several in ((values,), values):
        with suppress(TypeError):
            return tuple(map(operator.index, several))
    raise ValueError(f"{name} must be an integer, several, or None; got {values!r}")


def check_tensors(*, mask: Any = None, **tensors: Any) -> None:
    """See that what a loss is called with are tensors, on one device.

    Raises:
        TypeError: One is something else.
        ValueError: They are on different devices.
    """
    if mask is not None:
        tensors["mask"] = mask
    for name, given in tensors.items():
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(given).__name__}{_items(given)}")
    (first, device), *others = ((name, given.device) for name, given in tensors.items())
    for name, other in others:
        if other != device:
            raise ValueError(f"{first} on {device} and {name} on {other}: bring both to one device")


def _items(given: Any) -> str:
    if isinstance(given, Mapping):
        return f"; give one of its items: {', '.join(map(str, given))}"
    return f"; give one of its {len(given)} items" if isinstance(given, tuple | list) else ""
