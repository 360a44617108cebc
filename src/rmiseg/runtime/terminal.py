"""Consoles that cut nothing off, and that texts of others, such as names of files, can tell nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.measure import Measurement
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rmiseg.runtime.files import visible

WIDEST = 10**6
"""Columns of a line in a file or a pipe."""

RULE = 80
"""Columns of a rule, at most."""


class Console(RichConsole):
    """A console of rich that cuts nothing off.

    Tables are as wide as their words and numbers, which rich would end with dots where there is no room. In a file or a
    pipe lines are as long as what they hold, unless COLUMNS says how wide they are. Of all texts control characters
    become escapes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = WIDEST

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects as rich does."""
        tables = [each for each in objects if isinstance(each, Table)]
        for table in tables:
            needed = Measurement.get(self, self.options.update(max_width=WIDEST), table)
            if needed.minimum > self.width:
                table.width = needed.minimum
            for column in table.columns:
                column.overflow = "fold"
        if tables:
            options["crop"] = False
        super().print(*objects, **options)

    def rule(self, title: Any = "", **options: Any) -> None:
        """Print a title within a line."""
        self.print(Rule(title, **options), width=RULE)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of rich."""
        return super().render_str(visible(text), **options)


def numbers_table(first: str, *others: str, title: str | None = None) -> Table:
    """A table of texts in the first column, and numbers in the others."""
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


@contextmanager
def loading() -> Iterator[None]:
    """Show on a terminal that libraries are imported, which takes seconds: PyTorch, torchvision, timm."""
    if os.environ.get("RANK", "0") != "0":  # one of torchrun's processes shows it for all
        yield
        return
    with RichConsole(stderr=True).status("loading PyTorch"):
        yield
