"""The command line from its arguments to an exit status.

torch and all that follows come with the command that is run, so that --help answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 (failed), 2 (usage), 130 (interrupted)."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")  # names of files that the terminal cannot show
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if list(given) == ["--version"]:  # which answers where only the losses are installed, too
        from rmiseg.cli.version import version_text

        print(version_text())
        return 0
    try:
        from rmiseg.config.parser import parse_command, with_its_recipe
    except ModuleNotFoundError as error:
        from rmiseg.runtime.extras import remedy

        print(
            f"error: {error}: only the losses are installed; for the commands, {remedy('train')}",
            file=sys.stderr,
        )
        return 1
    rest: list[str] = []
    try:
        from rmiseg.config.registry import load_plugins

        rest, plugins = without_plugins(given)
        load_plugins(plugins)
        name, config = parse_command(rest)

        from rmiseg.cli import commands
        from rmiseg.cli.needs import check_needs

        check_needs(config)
        return int(getattr(commands, name.replace(" ", "_").replace("-", "_"))(config))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        # What a user can mend. Anything else is a mistake of ours and keeps its traceback.
        if os.environ.get("RMISEG_TRACEBACK"):
            raise
        from rmiseg.runtime.files import visible
        from rmiseg.runtime.places import said_of

        print(f"error: {visible(with_its_recipe(said_of(error), rest))}", file=sys.stderr)
        return 1


def without_plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments but for every `--plugin MODULE`, and those modules.

    Raises:
        ValueError: The last argument is --plugin.
    """
    rest: list[str] = []
    plugins: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if option != "--plugin":
            rest.append(argument)
            continue
        module = value if equals else next(waiting, "")
        if not module:
            raise ValueError("--plugin needs the name of a module, or the path of a Python file")
        plugins.append(module)
    return rest, plugins
