"""Consoles of which names of files, and other texts of others, can tell the terminal nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from rmiseg.runtime.files import visible


class Console(RichConsole):
    """A console of rich; of texts that it prints, alone or in tables, control characters become escapes."""

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
