"""Pages of the documentation that are made when it is built: from options' docstrings, and from files outside of docs/.

MkDocs calls `on_config`, `on_files` and `on_page_content`, see `hooks` in mkdocs.yml.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[2]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT / "docs" / "site")]

from notebook import page_of_notebook  # noqa: E402

from rmiseg.config.commands import COMMANDS  # noqa: E402
from rmiseg.config.parser import documented  # noqa: E402
from rmiseg.config.wording import described_type  # noqa: E402


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the page of each command below that of all, in the navigation."""
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    entry = next(entry for entry in reference if "Commands and options" in entry)
    pages = [{f"rmiseg {name}": f"reference/commands/{page_name(name)}"} for name in COMMANDS]
    entry["Commands and options"] = [entry["Commands and options"], *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {
        "reference/commands/index.md": "".join(commands_page()),
        **{f"reference/commands/{page_name(name)}": "".join(command_page(name)) for name in COMMANDS},
        "recipes/index.md": outside_page(PROJECT / "recipes" / "README.md", {"../docs/": "../"}),
        "recipes/plans.md": "".join(plans_page()),
        "contributing.md": outside_page(PROJECT / "CONTRIBUTING.md", {"docs/": "", "CHANGELOG.md": "changelog.md"}),
        "changelog.md": outside_page(PROJECT / "CHANGELOG.md", {}),
        "notebook.md": page_of_notebook(PROJECT / "examples" / "quickstart.ipynb"),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for folder in ("recipes", "experiments"):
        for path in sorted((PROJECT / folder).glob("*.yaml")):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Make heads of tables without text plain cells: a head says something."""
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)


def outside_page(path: Path, folders: dict[str, str]) -> str:
    """A page from outside of docs/, whose links begin with other folders there."""
    text = path.read_text(encoding="utf-8")
    for before, after in folders.items():
        text = text.replace(f"]({before}", f"]({after}")
    return text


def plans_page() -> Iterator[str]:
    """The plans of experiments/, each with its first comment."""
    yield "# Plans\n\nThose of `experiments/`, for [`rmiseg experiment`](../experiments.md), and what each is for.\n\n"
    for path in sorted((PROJECT / "experiments").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        lines = re.findall(r"^# ?(.*)", re.split(r"^[^#]", text, maxsplit=1, flags=re.M)[0], flags=re.M)
        about = " ".join(line for line in lines if not line.startswith("rmiseg "))
        commands = "\n".join(line for line in lines if line.startswith("rmiseg "))
        yield f"## {path.stem}\n\n{about}\n\n```text\n{commands}\n```\n\n"
        yield f"[{path.name}](../experiments/{path.name})\n\n"


def commands_page() -> Iterator[str]:
    """The list of the commands."""
    yield (
        "# Commands and options\n\nEach page says what `rmiseg COMMAND --help` says, from the same texts. A recipe "
        "is a YAML file with the options of [`rmiseg train`](train.md) in the same nesting. `--plugin MODULE`, as "
        "often as needed, imports [parts of your own](../../extending.md) first. `rmiseg --version` says what is "
        "installed.\n\n"
        "| Command | |\n|---|---|\n"
    )
    for name, command in COMMANDS.items():
        yield f"| [`rmiseg {name}`]({page_name(name)}) | {command.help} |\n"


def command_page(name: str) -> Iterator[str]:
    """A command with every option: its name, type, default and docstring."""
    command = COMMANDS[name]
    shown = " ".join(["rmiseg", name, *(each.upper() for each in command.positional), "[--option value ...]"])
    yield f"# rmiseg {name}\n\n{_summary(command.config)}\n\n```text\n{shown}\n```\n\n"
    yield from options(command.config, "", command.positional)


def page_name(command: str) -> str:
    """The file of a command's page."""
    return f"{command.replace(' ', '-')}.md"


def options(config: type, prefix: str, positional: tuple[str, ...]) -> Iterator[str]:
    """The options of a dataclass as a definition list, and then those of its sections."""
    described, kinds = documented(config), get_type_hints(config)
    sections: list[tuple[str, type]] = []
    for field in dataclasses.fields(config):
        default = _default(field)
        if dataclasses.is_dataclass(default):
            sections.append((f"{prefix}{field.name}", type(default)))
            continue
        given = field.name.upper() if field.name in positional else f"--{prefix}{field.name}"
        about = "required" if default is dataclasses.MISSING else f"<code>{_plain(_shown(default))}</code>"
        kind = _plain(described_type(kinds[field.name]))
        yield f'<a id="{prefix}{field.name}"></a>`{given}` <span class="kind">{kind}; {about}</span>\n'
        yield f":   {described[field.name].strip()}\n\n".replace("\n", "\n    ").rstrip(" ") + "\n"
    for name, kind in sections:
        yield f"## {name}\n\n{_summary(kind)}\n\n"
        yield from options(kind, f"{name}.", ())


def _summary(config: type) -> str:
    return re.sub(r"\n +", "\n", config.__doc__ or "").strip()


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return '""' if value == "" else str(value)


def _plain(text: str) -> str:
    return re.sub(r"[<*_|]", lambda found: f"&#{ord(found[0])};", text)
