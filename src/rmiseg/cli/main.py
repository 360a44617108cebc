"""The command line: which command takes which options, and nothing of what it does.

Only `rmiseg.config` is imported at the top. torch and all that follows come with the command that is run, so that
--help answers at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from rmiseg.config import (
    BenchDataConfig,
    BenchLossConfig,
    CompareConfig,
    CRFSearchConfig,
    DataCheckConfig,
    DemoConfig,
    EvaluateConfig,
    ExperimentConfig,
    ExportConfig,
    ModelsConfig,
    PredictConfig,
    ReportConfig,
    TrainConfig,
)


class Command(NamedTuple):
    """One command: its options, and which of them are given without their name, the last perhaps several times."""

    config: type
    help: str
    positional: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(TrainConfig, "train a model"),
    "evaluate": Command(EvaluateConfig, "score a checkpoint on a data set", ("checkpoint",)),
    "compare": Command(CompareConfig, "compare two checkpoints on the same images", ("a", "b")),
    "crf-search": Command(CRFSearchConfig, "search for the kernels of a dense CRF", ("checkpoint",)),
    "predict": Command(PredictConfig, "segment images with a checkpoint", ("checkpoint", "images")),
    "report": Command(ReportConfig, "show and compare runs on one HTML page", ("runs",)),
    "export": Command(
        ExportConfig, "write a trained model as ONNX, torch.export program or safetensors", ("checkpoint",)
    ),
    "demo": Command(DemoConfig, "train a small model with cross entropy and with RMI, and compare"),
    "experiment": Command(ExperimentConfig, "train and compare a grid of runs", ("plan",)),
    "models": Command(ModelsConfig, "list the models, and the backbones that they can have"),
    "data check": Command(DataCheckConfig, "read a whole data set and report what is wrong with it"),
    "bench data": Command(BenchDataConfig, "speed of loading images, and of training", ("recipe",)),
    "bench loss": Command(BenchLossConfig, "time and memory of the losses, beside those of cross entropy"),
}
GROUPS = {"data": "look after data sets", "bench": "measure time and memory"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 (failed), 2 (usage), 130 (interrupted)."""
    try:
        parser = build_parser()
    except ModuleNotFoundError as error:
        print(
            f'error: {error}: only the losses are installed; for the commands, pip install "rmiseg[train]"',
            file=sys.stderr,
        )
        return 1
    completed = _bracketed(_completed(sys.argv[1:] if arguments is None else arguments))
    parsed = parser.instantiate(parser.parse_args(completed))
    name, options = parsed.command, parsed[parsed.command]
    if name in GROUPS:
        name, options = f"{name} {options.action}", options[options.action]
    config_type = COMMANDS[name].config
    config = config_type(**{field.name: options[field.name] for field in dataclasses.fields(config_type)})

    from rmiseg.cli import commands

    try:
        return getattr(commands, name.replace(" ", "_").replace("-", "_"))(config)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        # What a user can mend. Anything else is a mistake of ours and keeps its traceback.
        if os.environ.get("RMISEG_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def build_parser() -> Any:
    """The parser of all commands, with the options of their dataclasses."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="rmiseg", description="Semantic segmentation with losses that see regions, not lone pixels."
    )
    parser.add_argument("--version", action="version", version=f"rmiseg {_version()}")
    commands = parser.add_subcommands(dest="command")
    groups = {"": commands}
    for name, help_text in GROUPS.items():
        actions = [action for group, _, action in (command.rpartition(" ") for command in COMMANDS) if group == name]
        group = ArgumentParser(
            usage=f"rmiseg {name} {'|'.join(actions)} [--option value ...]", description=f"{help_text.capitalize()}."
        )
        commands.add_subcommand(name, group, help=f"{help_text}: {', '.join(f'{name} {a}' for a in actions)}")
        groups[name] = group.add_subcommands(dest="action")
    for name, command in COMMANDS.items():
        group_name, _, action = name.rpartition(" ")
        groups[group_name].add_subcommand(action, _command_parser(name), help=command.help)
    return parser


def _command_parser(name: str) -> Any:
    from docstring_parser import parse
    from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser

    config, _, positional = COMMANDS[name]
    several = {"images": {"nargs": "*", "default": []}, "runs": {"nargs": "+"}}
    shown = {"images": "[IMAGES...]", "runs": "RUN [RUN...]"}
    names = [shown.get(field, field.upper()) for field in positional]
    if name == "train":
        names.append("[RECIPE.yaml]")
    docstring = parse(config.__doc__ or "")
    parser = ArgumentParser(usage=" ".join(["rmiseg", name, *names, "[--option value ...]"]))
    if name == "train":
        parser.add_argument(
            "--recipe", action=ActionConfigFile, help="YAML file of options; those on the command line override it."
        )
    described = {param.arg_name: param.description for param in docstring.params}
    for field in positional:
        parser.add_argument(field, type=str, help=described[field], **several.get(field, {}))
    switches = [field.name for field in dataclasses.fields(config) if field.type == "bool" and not field.default]
    parser.add_class_arguments(config, skip={*positional, *switches})
    for field in switches:  # --flip, and --flip true
        parser.add_argument(f"--{field}", action=ActionYesNo, nargs="?", default=False, help=described[field])
    return parser


def _completed(arguments: Sequence[str]) -> list[str]:
    """Let `train recipe.yaml` mean `train --recipe recipe.yaml`, and `bench` mean `bench loss`."""
    arguments = list(arguments)
    option = len(arguments) < 2 or arguments[1].startswith("-")
    if arguments[:1] == ["train"] and not option:
        arguments.insert(1, "--recipe")
    if arguments[:1] == ["train"] and "--recipe" in arguments[:-1]:
        # First, so that options override it wherever it stands.
        at = arguments.index("--recipe")
        recipe = arguments[at : at + 2]
        arguments = ["train", *recipe, *arguments[1:at], *arguments[at + 2 :]]
    if arguments[:1] == ["bench"] and option and arguments[1:2] not in (["-h"], ["--help"]):
        arguments.insert(1, "loss")
    return arguments


def _bracketed(arguments: list[str]) -> list[str]:
    """Let `--data.crop_size 513,513` mean `--data.crop_size [513,513]`, and so for every list."""
    name = next((name for name in COMMANDS if arguments[: len(name.split())] == name.split()), None)
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


def _list_options(config: Any, prefix: str = "") -> dict[str, bool]:
    """Dotted names of the options that take lists, and whether they also take something else, other than null."""
    options = {}
    for name, kind in get_type_hints(config).items():
        if dataclasses.is_dataclass(kind):
            options |= _list_options(kind, f"{prefix}{name}.")
        choices = [kind] if get_origin(kind) in (list, tuple) else get_args(kind)
        if any(get_origin(choice) in (list, tuple) for choice in choices):
            others = [
                choice for choice in choices if choice is not type(None) and get_origin(choice) not in (list, tuple)
            ]
            options[prefix + name] = bool(others)
    return options


def read_recipe(path: str) -> TrainConfig:
    """The options of a recipe, with the defaults of those that it does not name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It names an option that does not exist, or gives one a value that it does not take.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"recipe {path} does not exist")
    parser = _recipe_parser()
    try:
        options = parser.instantiate(parser.parse_args(["--recipe", path]))
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    return TrainConfig(**{field.name: options[field.name] for field in dataclasses.fields(TrainConfig)})


@cache  # an experiment reads a recipe for each run
def _recipe_parser() -> Any:
    parser = _command_parser("train")
    parser.exit_on_error = False
    return parser


def _version() -> str:
    from rmiseg import __version__

    return __version__
