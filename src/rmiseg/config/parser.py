"""The command line's options, and recipes, as typed values.

jsonargparse makes the options of the dataclasses, reads their docstrings for --help, and checks types. What is wrong is
said in words, see `in_words`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import re
from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from docstring_parser import parse_from_object
from jsonargparse import ActionYesNo, ArgumentParser, Namespace, get_loader, set_loader, set_parsing_settings

from rmiseg.config.arguments import WITH_RECIPE, bracketed, command_of, completed, is_recipe, renamed
from rmiseg.config.commands import COMMANDS, GROUPS
from rmiseg.config.effects import check_effects
from rmiseg.config.options import OpenConfig, TrainConfig
from rmiseg.config.ranges import COMMAND_RANGES, check_ranges
from rmiseg.config.recipes import StrictLoader, checked_names, flat, nested, read_recipe, value_of
from rmiseg.config.registry import GIVEN, Component, find, is_known, names, none_of
from rmiseg.config.wording import in_words, option_kinds

# Values of any type may not name classes either, which jsonargparse would import, and make instances of (class_path).
set_parsing_settings(
    docstring_parse_attribute_docstrings=True, instantiate_subclass_spec_in_any=False, import_path_denylist=["*"]
)

_load_value = get_loader("yaml")


class ValueLoader(StrictLoader):
    """Values of the command line: those of files, and powers of ten such as 1e-3, which are numbers."""


ValueLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _loaded(text: str) -> Any:
    """The value that an argument stands for; where the type of its option is that of a text, it stays one."""
    value = _load_value(text)
    if isinstance(value, str | bool) or value is None:  # yes, too, where a type is true or false
        return value
    return yaml.load(text, ValueLoader)


set_loader("yaml", _loaded, exceptions=(yaml.YAMLError, ValueError))

T = TypeVar("T")

CHOICES = {"data.name": "dataset", "model.name": "model", "loss.name": "loss", "data.transform": "transform"}
"""Options that name a registered component of some kind."""

PLUGINS = (
    "--plugin MODULE (before or after any of these, as often as needed) imports a module or Python file first: what it "
    "registers can be chosen by its name."
)

SEVERAL: dict[str, dict[str, Any]] = {"images": {"nargs": "*", "default": []}, "runs": {"nargs": "+"}}
"""Arguments without a name that may be many."""


class Parser(ArgumentParser):
    """An `ArgumentParser` that says what is wrong in words, not in Python's types.

    Args:
        config: The dataclass of the options; None where there are none but subcommands.
        options: Those of `ArgumentParser`.
    """

    def __init__(self, *args: Any, config: type | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.config = config
        self.chosen: Parser | None = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the process with the usage of the chosen command, and what is wrong."""
        if self.chosen is not None:
            self.chosen.error(message, ex)
        super().error(in_words(message, self.config), ex)


def build_parser(complete: Mapping[str, Parser]) -> Parser:
    """The parser of all commands.

    Args:
        complete: Parsers of those whose options are asked for; the others are only named, since all the options of all
            commands take a second to collect.
    """
    parser = Parser(prog="rmiseg", description="Semantic segmentation with losses that see regions, not lone pixels.")
    parser.add_argument(
        "--version",
        action="version",
        version=f"rmiseg {_version()}",
        help="Versions of rmiseg and PyTorch, and the implementations of the RMI loss that are here.",
    )
    parser.chosen = next(iter(complete.values()), None)
    commands = parser.add_subcommands(dest="command")
    groups = {"": commands}
    available = available_commands()
    for name, help_text in GROUPS.items():
        actions = [action for group, _, action in (each.rpartition(" ") for each in available) if group == name]
        if not actions:
            continue
        group = Parser(
            usage=f"rmiseg {name} {'|'.join(actions)} [--option value ...]", description=f"{help_text.capitalize()}."
        )
        commands.add_subcommand(name, group, help=f"{help_text}: {', '.join(f'{name} {a}' for a in actions)}")
        groups[name] = group.add_subcommands(dest="action", prog=f"rmiseg {name}")
    for name in available:
        group_name, _, action = name.rpartition(" ")
        groups[group_name].add_subcommand(action, complete.get(name) or Parser(), help=COMMANDS[name].help)
    return parser


def available_commands() -> list[str]:
    """The commands that are here: the benchmarks come with the source alone."""
    with_benchmarks = importlib.util.find_spec("rmiseg.benchmarks") is not None
    return [name for name in COMMANDS if with_benchmarks or not name.startswith("bench ")]


def command_parser(name: str) -> Parser:
    """The parser of one command."""
    config, _, positional = COMMANDS[name]
    shown = {"images": "[IMAGES...]", "runs": "RUN [RUN...]"}
    usage = ["rmiseg", name, *(shown.get(each, each.upper()) for each in positional)]
    if name in WITH_RECIPE:
        usage.append("[RECIPE.yaml]")
    parser = Parser(usage=" ".join([*usage, "[--option value ...]"]), epilog=PLUGINS, config=config)
    if name in WITH_RECIPE:
        parser.add_argument(
            "--recipe", action="config", help="YAML file of options; those on the command line override it."
        )
    described = documented(config)
    for each in positional:
        parser.add_argument(each, type=str, help=described[each], **SEVERAL.get(each, {}))
    fields = dataclasses.fields(config)
    switches = [each.name for each in fields if each.type == "bool" and not each.default]
    skip = {*positional, *switches, *({"given", "on_command_line"} if issubclass(config, OpenConfig) else ())}
    parser.add_class_arguments(config, skip=skip)
    for each in switches:  # --flip, and --flip true
        parser.add_argument(f"--{each}", action=ActionYesNo, nargs="?", default=False, help=described[each])
    for action in parser._actions:
        if kind := CHOICES.get(action.dest):
            known = ", ".join(f"{each}NAME" if each.endswith(":") else each for each in names(kind))
            action.help = f"{action.help} Known here: {known}."
    return parser


def documented(config: type) -> dict[str, str]:
    """The docstring of every field of a dataclass, those of its parents too."""
    described: dict[str, str] = {}
    for each in reversed(config.__mro__[:-1]):
        described |= {field.arg_name: field.description or "" for field in parse_from_object(each).params}
    return described


def _checked_numbers(arguments: list[str], config: Any) -> list[str]:
    """Arguments as they are, unless one for a number is such as 1:30, which YAML takes for 90, or 1_000.

    Raises:
        ValueError: One is.
    """
    kinds = option_kinds(config)
    for option, value in itertools.pairwise([part for each in arguments for part in each.split("=", 1)]):
        kind = kinds.get(option.removeprefix("--"))
        if {int, float} & {kind, *get_args(kind)} and re.fullmatch("[-+]?[0-9][0-9.]*[_:b][0-9_:.]*", value):
            raise ValueError(f"{option.removeprefix('--')}: {value} is not a decimal number, such as 90 or 1.5")
    return arguments


def parse_command(arguments: Sequence[str]) -> tuple[str, Any]:
    """The name of the command and its options, of what stands on the command line behind `rmiseg`.

    Ends the process with status 2 where something is wrong with them, and with 0 after --help and the like.

    Raises:
        ValueError, FileNotFoundError: Something is wrong with a recipe.
    """
    given = _with_recipe([renamed(each) for each in bracketed(completed(arguments))])
    complete = {name: command_parser(name) for name in [command_of(given)] if name in available_commands()}
    for each in complete:
        _checked_numbers(given, COMMANDS[each].config)
    try:
        parsed = build_parser(complete).parse_args(given)
    except OverflowError as error:  # which jsonargparse leaves as it is
        raise ValueError("a number among the options has hundreds of digits") from error
    name, options = parsed.command, parsed[parsed.command]
    if name in GROUPS:
        name, options = f"{name} {options.action}", options[options.action]
    config: Any = _instance(COMMANDS[name].config, complete[name].instantiate(options))
    if name in WITH_RECIPE:
        has_recipe = any(each.partition("=")[0] == "--recipe" for each in arguments) or is_recipe(arguments)
        config = _opened(config, not has_recipe, _named(given[1:], TrainConfig))
    else:
        check_ranges(config, COMMAND_RANGES)
    named = _named([renamed(each) for each in completed(arguments)[1:]], type(config))  # without those of the recipe
    own = tuple(each for each in named if each != "recipe")
    check_effects(config, own)
    return name, dataclasses.replace(config, on_command_line=own) if isinstance(config, OpenConfig) else config


def train_config(source: TrainConfig | Mapping[str, Any] | str | Path) -> TrainConfig:
    """The options of a recipe, with the defaults of those that it does not name.

    Args:
        source: The path of a recipe, or its content as nested dictionaries; options that are complete already are
            returned as they are.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It names an option that does not exist, or gives one a value that it does not take.
    """
    if isinstance(source, TrainConfig):
        return source
    if isinstance(source, Mapping):
        options = checked_names(source)
        return _opened(_typed(options), False, flat(options))
    try:
        options = read_recipe(Path(source))
        return _opened(_typed(options), False, flat(options))
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(source)) else f"{source}: {error}") from error


def with_its_recipe(message: str, arguments: Sequence[str]) -> str:
    """An error of a command, beginning with the recipe where that names the option which the error begins with.

    Args:
        message: The error.
        arguments: What stood on the command line behind `rmiseg`.
    """
    try:
        given = completed(arguments)
        path = next(value for option, value in itertools.pairwise(given) if option == "--recipe")
        option = re.match(r"[a-z_0-9.]*[a-z_0-9]", message)
        named = flat(read_recipe(Path(path)))
    except (StopIteration, ValueError, OSError):
        return message
    overridden = {each.partition("=")[0].removeprefix("--") for each in given}
    of_recipe = [name for name in named if option and f"{option[0]}.".startswith(f"{name}.") and name not in overridden]
    return f"{path}: {message}" if of_recipe and path not in message else message


def check_choices(config: TrainConfig) -> None:
    """See that every component that a training names is there, without importing it.

    Raises:
        ValueError: One is not; the message lists those that there are.
    """
    for option, kind, name in _chosen(config):
        if not is_known(kind, name):
            raise ValueError(f"{option}: {none_of(kind, name, config.made_with)}")


def chosen_components(config: TrainConfig) -> list[Component]:
    """The components that a training names."""
    return [find(kind, name, config.made_with) for _, kind, name in _chosen(config)]


def _chosen(config: TrainConfig) -> list[tuple[str, str, str]]:
    """Option, kind and name of every component that a training names, but for those that were given in Python."""
    chosen = [(option, kind, str(value_of(config, option))) for option, kind in CHOICES.items()]
    chosen += [(f"loss.plus {name}", "loss", name) for name in config.loss.plus]
    chosen += [(f"data.augment {name}", "augmentation", name) for name in config.data.augment]
    for option in ("metrics", "callbacks", "loggers"):
        chosen += [(f"train.{option}", option.removesuffix("s"), name) for name in getattr(config.train, option)]
    return [(option, kind, name) for option, kind, name in chosen if not name.startswith(GIVEN)]


def checked_options(component: Component, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All own options of a component by name, those given and the defaults of the others, with values of their types.

    Args:
        component: The component.
        given: Its own options.
        where: What they are called in a recipe, such as loss.options, for messages.

    Raises:
        ValueError: It has no such option, lacks one without a default, or does not take a value.
    """
    known = [each.name for each in dataclasses.fields(component.options)] if component.options else []
    if wrong := [name for name in given if name not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{where}.{wrong[0]}: the {component.kind} {component.name} has no option of that name; {has}")
    if component.options is None:
        return {}
    parser = _own_parser(component.options)
    try:
        arguments = _checked_numbers(_as_arguments(given), component.options)
        made: Any = _instance(component.options, parser.instantiate(parser.parse_args(arguments)))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{where}: {in_words(str(error), component.options)}") from error
    return {name: getattr(made, name) for name in known}


@cache  # an experiment checks the options of each run
def _own_parser(options: type) -> Parser:
    parser = Parser(config=options, exit_on_error=False)
    parser.add_class_arguments(options)
    return parser


def _named(arguments: Sequence[str], config: type) -> list[str]:
    """Dotted names of the options that arguments give, those inside of a whole section too (--loss '{name: ce}')."""
    known, found = option_kinds(config), list[str]()
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            continue
        name = option.removeprefix("--").removesuffix("+")  # which appends to a list
        if not any(each.startswith(f"{name}.") for each in known):
            found.append(next((each for each in known if name.startswith(f"{each}.")), name))
            continue
        section = yaml.load(value if equals else arguments[index + 1], StrictLoader)
        found += flat(nested(name, section))
    return found


def _opened(config: TrainConfig, without_recipe: bool, given: Iterable[str]) -> TrainConfig:
    """The options with all that were not given left open, if that is asked for, or usual without a recipe."""
    planned = without_recipe if config.plan is None else config.plan
    if isinstance(config, OpenConfig):  # of the command plan
        names = given if planned else option_kinds(TrainConfig)
        return dataclasses.replace(config, given=tuple(names))
    return OpenConfig(**vars(config), given=tuple(given)) if planned else config


def _typed(options: Mapping[str, Any]) -> TrainConfig:
    parser = _recipe_parser()
    try:
        parsed = parser.parse_args(_checked_numbers(_as_arguments(flat(options)), TrainConfig))
    except ArgumentError as error:
        raise ValueError(in_words(str(error), TrainConfig)) from error
    return _instance(TrainConfig, parser.instantiate(parsed))


@cache  # an experiment reads a recipe for each run
def _recipe_parser() -> Parser:
    parser = command_parser("train")
    parser.exit_on_error = False
    return parser


def _instance(config: type[T], options: Namespace) -> T:
    fields = dataclasses.fields(config)  # type: ignore[arg-type]  # all of them are dataclasses
    return config(**{each.name: options[each.name] for each in fields if each.name in options})


def _as_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options by their dotted names as they would stand on the command line."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value, default=_plain)}"
        for name, value in options.items()
    ]


def _plain(value: Any) -> Any:
    """A number or an array of NumPy as Python has them; anything else, such as a path, as a string."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _with_recipe(arguments: list[str]) -> list[str]:
    """Put the options of a recipe in front of the others, which override it wherever it stands."""
    if not arguments or arguments[0] not in WITH_RECIPE:
        return arguments
    others, paths = arguments[1:], []
    while "--recipe" in others[:-1]:
        at = others.index("--recipe")
        paths.append(Path(others[at + 1]))
        del others[at : at + 2]
    for at, each in reversed(list(enumerate(others))):
        if each.startswith("--recipe="):
            paths.append(Path(each.partition("=")[2]))
            del others[at]
    if len(paths) > 1:
        raise ValueError(f"one recipe at a time, not {' and '.join(map(str, paths))}; a recipe may name a base")
    for path in paths:
        train_config(path)  # says what is wrong with it under its name
        others = [*_as_arguments(flat(read_recipe(path))), *others]
    return [arguments[0], *others]


def _version() -> str:
    from rmiseg import __version__

    return __version__
