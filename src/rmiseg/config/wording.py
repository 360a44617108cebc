"""Errors of jsonargparse in the words of somebody who does not program in Python."""

from __future__ import annotations

import dataclasses
import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rmiseg.config.recipes import closest, shortened

AS_WRITTEN = {"None": "null", "True": "true", "False": "false"}
"""Values of Python as files and the command line have them."""


def in_words(message: str, config: type | None) -> str:
    """An error of jsonargparse in the words of somebody who does not program in Python."""
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        option = found[1].partition("=")[0]
        known = [f"--{name}" for name in option_kinds(config)] if config else []
        if option in known:  # one of those that are told by their place
            return f"there is no option {option}: give {option[2:].upper()} without it, where the line of usage has it"
        if known and option.startswith("-"):
            return f"there is no option {option}{closest(option, known)}"
        roots = [name for name in ("--root", "--data.root") if name in known]
        return f"what is {shortened(found[1])!r}?" + "".join(
            f" A folder of images is given by {name}" for name in roots
        )
    if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
        return f"there is no command {found[1]}{closest(found[1], re.findall('[a-z-]+', found[2]))}"
    if found := re.search(r'expected "(.*?)\.action" to be one of \{(.*)\}', message):
        actions = ", ".join(f"{found[1]} {action}" for action in found[2].split(","))
        return f"{found[1]} alone is no command; there are {actions}"
    if found := re.search(r"argument (--\S+): expected (?:one|at least one) argument", message):
        return f"{found[1]}: a value is missing"
    if found := re.search(r"arguments? (?:are|is) required: (.*)", message):
        return f"{found[1].rpartition('.')[2]} is missing"
    key, value = (re.search(pattern, message) for pattern in (r'[Kk]ey "([\w.]+)"', r"(?:Got|Given) value: (.*)"))
    kind = option_kinds(config).get(key[1]) if key and config else None
    if key is None or value is None or kind is None:
        return shortened(message, 1000)
    said = AS_WRITTEN.get(value[1], value[1])
    whole = re.fullmatch(r"(-?\d{1,15})\.0", said) if int in (kind, *get_args(kind)) else None
    return f"{key[1]}: {shortened(said)} is {_negated(kind)}{f'; write {whole[1]}' if whole else ''}"


def option_kinds(config: Any, prefix: str = "") -> dict[str, Any]:
    """The type of every option by its dotted name."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(config).items():
        if dataclasses.is_dataclass(kind):
            kinds |= option_kinds(kind, f"{prefix}{name}.")
        else:
            kinds[prefix + name] = kind
    return kinds


def _negated(kind: Any) -> str:
    """That something is not of a type, in words."""
    if get_origin(kind) is Literal:
        return f"none of {', '.join(map(str, get_args(kind)))}"
    others = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) in (Union, types.UnionType) and all(get_origin(each) is Literal for each in others):
        return f"none of {', '.join(str(choice) for each in others for choice in get_args(each))}"
    return f"not {described_type(kind)}"


def described_type(kind: Any, several: bool = False) -> str:
    simple: dict[Any, tuple[str, str]] = {
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        bool: ("true or false", "true or false"),
        str: ("text", "texts"),
        type(None): ("null", "null"),
        Any: ("value", "values"),
    }
    if kind in simple:
        return simple[kind][several]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(described_type(each) for each in inner if each is not type(None))
    if origin is tuple and inner[-1] is not ...:
        example = f"[{','.join('12345'[: len(inner)])}]"
        return f"{len(inner)} {described_type(inner[0], several=True)}, such as {example}"
    if origin in (list, tuple):
        example = "[1,2]" if inner[0] in (int, float) else "[a,b]"
        return f"a list of {described_type(inner[0], several=True)}, such as {example}"
    if origin is dict:
        return f"a mapping from names to {described_type(inner[1], several=True)}"
    return "a mapping from names to values"
