"""Arguments as they stand on the command line, made into those that jsonargparse takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

from rmiseg.config.commands import COMMANDS
from rmiseg.config.recipes import RENAMED
from rmiseg.config.wording import option_kinds

WITH_RECIPE = ("train", "plan")
"""Commands that take the options of a training, and a recipe."""


def command_of(arguments: Sequence[str]) -> str | None:
    """The name of the command that arguments begin with."""
    return next((name for name in COMMANDS if list(arguments[: len(name.split())]) == name.split()), None)


def completed(arguments: Iterable[str]) -> list[str]:
    """Let `train recipe.yaml` mean `train --recipe recipe.yaml`, and `bench` mean `bench loss`."""
    arguments = list(arguments)
    option = len(arguments) < 2 or arguments[1].startswith("-")
    if is_recipe(arguments):
        arguments.insert(1, "--recipe")
    if arguments[:1] == ["bench"] and option and arguments[1:2] not in (["-h"], ["--help"]):
        arguments.insert(1, "loss")
    return arguments


def is_recipe(arguments: Sequence[str]) -> bool:
    """Tell whether a recipe follows the command, without the word --recipe."""
    return len(arguments) > 1 and arguments[0] in WITH_RECIPE and arguments[1][:1] != "-"


def renamed(argument: str) -> str:
    option, equals, value = argument.partition("=")
    known = RENAMED.get(option.removeprefix("--")) if option.startswith("--") else None
    return argument if known is None else f"--{known}{equals}{value}"


def bracketed(arguments: list[str]) -> list[str]:
    """Let `--data.crop_size 513,513` mean `--data.crop_size [513,513]`, and so for every list."""
    name = command_of(arguments)
    if name is None:
        return arguments
    lists = _list_options(COMMANDS[name].config)
    result = list(arguments)
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if not equals:
            option, value = arguments[index - 1] if index else "", argument
        has_others = lists.get(option.removeprefix("--"))
        if has_others is None or value.startswith(("[", "--")) or value == "null":
            continue
        if "," in value or not has_others:
            result[index] = f"{option}=[{value}]" if equals else f"[{value}]"
    return result


def _list_options(config: type) -> dict[str, bool]:
    """Dotted names of the options that take lists, and whether they also take something else, other than null."""
    options: dict[str, bool] = {}
    for name, kind in option_kinds(config).items():
        choices = [kind] if _is_list(kind) else get_args(kind)
        others = [choice for choice in choices if not _is_list(choice)]
        if len(others) < len(choices):
            options[name] = any(choice is not type(None) for choice in others)
    return options


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple)
