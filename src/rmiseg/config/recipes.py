"""Recipes: YAML files with options of a training, nested as in `TrainConfig`.

A recipe may begin with another, `base: other.yaml` (relative to its own folder), and say only what differs. Reading one
runs no code, imports nothing and opens no file but its bases.
"""

from __future__ import annotations

import codecs
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from rmiseg.config.options import TrainConfig
from rmiseg.config.registry import did_you_mean

BASE = "base"
CONFIG_FILE = "config.yaml"
"""The file in the folder of a run with all its options, which is a recipe, too."""

RENAMED = {"optim.slow_start_steps": "optim.warmup_steps", "optim.slow_start_lr": "optim.warmup_lr"}
"""Options that were called otherwise when older runs wrote their config.yaml."""


DEEPEST, MOST_VALUES, MOST_BYTES = 40, 5000, 250_000
"""Levels, values and bytes of a YAML file beyond which it is none that a person wrote."""

MOST_ITEMS = 500
"""Values of a list that is an option: more than there are classes."""


_OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|0b.*|.*[_:].*)")
"""Numbers of YAML 1.1, which PyYAML reads, that are others in YAML 1.2, or texts: 010 is 8, and 1:30 is 90."""


OTHER_KINDS = ("binary", "omap", "pairs", "set", "timestamp")
"""Tags of YAML whose values are other than texts, numbers, lists and mappings."""


class StrictLoader(yaml.SafeLoader):
    """YAML of plain values, within reason: a key that is given twice is an error, where PyYAML keeps the last.

    Values count as often as aliases repeat them: a file of ten lines can stand for billions. As in YAML 1.2, yes, no,
    on, off and dates are texts; numbers that its versions read otherwise are errors.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = self.count = 0
        self.sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # as PyYAML's stubs have it
        line, is_alias, before = event.start_mark.line + 1, isinstance(event, yaml.AliasEvent), self.count
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"line {line}: it is more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        assert node is not None
        if is_alias and node not in self.sizes:
            raise ValueError(f"line {line}: an alias stands for what it is a part of")
        self.count += self.sizes[node] if is_alias else 1
        if self.count > MOST_VALUES:
            raise ValueError(f"line {line}: it holds more than {MOST_VALUES} values, aliases counted as what they are")
        self.sizes.setdefault(node, self.count - before)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                value, line = self.construct_object(key), key.start_mark.line + 1
                if value in seen:
                    raise ValueError(
                        f"line {line}: {shortened(key.value)!r} is given twice, first in line {seen[value]}"
                    )
                seen[value] = line
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in OTHER_KINDS:
            raise ValueError(f"line {node.start_mark.line + 1}: !!{kind} is not read; write a plain value")
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                float(value)  # or an OverflowError, of hundreds of digits
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:  # of PyYAML's conversions
            raise ValueError(f"line {node.start_mark.line + 1}: {shortened(node.value, 100)} is no {kind}") from error
        if isinstance(value, int | float) and node.style is None and _OLD_NUMBER.fullmatch(node.value):
            raise ValueError(f"line {node.start_mark.line + 1}: {_two_readings(node.value, value)}")
        return value


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith((":bool", ":timestamp"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)


def _two_readings(text: str, value: object) -> str:
    """Say what a number is that versions of YAML read otherwise, and what to write."""
    plain = text.removeprefix("+")
    other = str(int(plain)) if plain.removeprefix("-").isdecimal() else "a text"
    return (
        f"{shortened(text, 50)} is {shortened(str(value), 50)} in YAML 1.1, and {shortened(other, 50)} in YAML 1.2: "
        f"write the number that is meant as a decimal, or '{shortened(text, 50)}' in quotes, if it is a text"
    )


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML, a key is given twice, or it is larger than any that a person writes; the message
            names file and line.
    """
    if not is_file(path):
        raise FileNotFoundError(f"{shortened(str(path))} does not exist")
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{path}: it has {size} bytes, and may have {MOST_BYTES}")
        text = read_text(path)
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return yaml.load(text, StrictLoader)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        hint = ""
        if isinstance(error, yaml.YAMLError) and re.search(r":[ ]+#[0-9a-fA-F]{3}", text):
            hint = "; a color that begins with # needs quotes, as in '#ff0000'"
        raise ValueError(f"{path}: {shortened(str(error))}{hint}") from error


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with a byte order mark or without, or in UTF-16, as PowerShell's > writes it.

    Raises:
        ValueError: It is neither; the message names file and line.
    """
    data = path.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1  # of bytes without the mark
        raise ValueError(
            f"{path}: line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}), as if it were saved as "
            f"Latin-1; save the file as UTF-8"
        ) from error


def is_file(path: Path) -> bool:
    """Tell whether there is a file; a name that cannot be one, or a link that leads to itself, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_recipe(path: Path) -> dict[str, Any]:
    """The options that a recipe and its bases name, nested; values are not checked yet.

    The folder of a run is the recipe of its training there.

    Raises:
        FileNotFoundError: It does not exist, or a base of it.
        ValueError: It is no YAML, names an option that does not exist, or is a base of itself.
    """
    return _read(path, ())


def _read(path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
    if is_file(path / CONFIG_FILE):
        return {**_read(path / CONFIG_FILE, readers), "out": str(path)}
    if not is_file(path):
        of = f", the base of {readers[-1]}," if readers else ""
        wrong = (
            "is no folder of a run; one with images is given by --data.root"
            if os.path.isdir(path)
            else "does not exist"
        )
        raise FileNotFoundError(f"recipe {shortened(str(path))}{of} {wrong}")
    if path.resolve() in readers:
        way = shortened(", ".join(each.name for each in readers))
        raise ValueError(f"{path} is its own base, by way of {way}")
    if len(readers) > DEEPEST:
        raise ValueError(f"{path} is the base of a base of ..., more than {DEEPEST} times")
    content = read_yaml(path)
    if content is None:
        content = {}
    try:
        if not isinstance(content, dict):
            raise ValueError(
                f"a recipe must be a mapping, as in `optim: {{lr: 0.01}}`, not {shortened(repr(content), 60)}"
            )
        base = content.pop(BASE, None)
        if base is not None and not isinstance(base, str):
            raise ValueError(f"base must be the name of a recipe, not {shortened(repr(base))}")
        options = checked_names(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if base is None:
        return options
    return merged(_read(path.parent / base, (*readers, path.resolve())), options)


def checked_names(options: Mapping[str, Any], config: type = TrainConfig, prefix: str = "") -> dict[str, Any]:
    """Nested options whose names are those of the fields of a dataclass; older names are replaced.

    Raises:
        ValueError: There is no option of a name, or a section is no mapping.
    """
    kinds = get_type_hints(config)
    checked: dict[str, Any] = {}
    for name, value in options.items():
        dotted = f"{prefix}{name}"
        renamed = RENAMED.get(dotted, dotted)
        name = renamed.removeprefix(prefix)
        if name in checked or (renamed != dotted and name in options):
            raise ValueError(f"{renamed} is given twice, once by its older name")
        if name not in kinds:
            raise ValueError(
                f"there is no option {shortened(dotted)}{closest(dotted[:100], [prefix + each for each in kinds])}"
            )
        if dataclasses.is_dataclass(kinds[name]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{dotted} is a section with options of its own, not {shortened(repr(value))}")
            value = checked_names(value, kinds[name], f"{renamed}.")
        if isinstance(value, list) and len(value) > MOST_ITEMS:
            raise ValueError(f"{dotted} has {len(value)} values, and may have {MOST_ITEMS}")
        checked[name] = value
    return checked


def flat(options: Mapping[str, Any], config: Any = TrainConfig, prefix: str = "") -> dict[str, Any]:
    """Nested options by their dotted names; those that are mappings themselves, such as loss.plus, stay whole."""
    kinds = get_type_hints(config)
    leaves: dict[str, Any] = {}
    for name, value in options.items():
        kind = kinds.get(name)
        if dataclasses.is_dataclass(kind):
            leaves |= flat(value, kind, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def nested(name: str, value: Any) -> dict[str, Any]:
    """A value by the dotted name of its option, as a recipe nests it; the other way round than `flat`."""
    first, _, rest = name.partition(".")
    return {first: nested(rest, value) if rest else value}


def value_of(config: Any, name: str) -> Any:
    """The value of an option by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def check_types(options: Any, prefix: str = "") -> None:
    """See whether the fields of a dataclass hold values of their types, as they may not where a file was read.

    Args:
        options: An instance of a dataclass.
        prefix: What the name of the dataclass is in messages, with a point.

    Raises:
        ValueError: One does not.
    """
    for name, kind in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if dataclasses.is_dataclass(value):
            check_types(value, f"{prefix}{name}.")
        elif not _is_of(value, kind):
            raise ValueError(
                f"{prefix}{name} is {shortened(repr(value))}, which is no {getattr(kind, '__name__', kind)}"
            )


def _is_of(value: Any, kind: Any) -> bool:
    """Tell whether a value is of a type; lists stand for tuples and the other way round, since files have only one."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin in (Union, UnionType):
        return any(_is_of(value, each) for each in inner)
    if origin in (list, tuple):
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if not isinstance(value, list | tuple) or (fixed and len(value) != len(inner)):
            return False
        return all(_is_of(item, each) for item, each in zip(value, inner if fixed else len(value) * inner[:1]))
    if origin is not None:
        return isinstance(value, Mapping) and all(
            _is_of(key, inner[0]) and _is_of(item, inner[1]) for key, item in value.items()
        )
    if kind is Any or isinstance(kind, TypeVar):
        return True
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options; those of the second have the last word."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def closest(name: str, known: list[str]) -> str:
    """A question at the end of a message, if there is a name that may have been meant."""
    return did_you_mean(name, known) or f"; there are {shortened(', '.join(known))}"


def shortened(text: str, most: int = 300) -> str:
    """Text for a message, which may come from anywhere."""
    return text if len(text) <= most else f"{text[:most]} ..."
