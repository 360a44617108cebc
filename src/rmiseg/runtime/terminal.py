"""Consoles of which names of files, and other texts of others, can tell the terminal nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.text import Text

from rmiseg.runtime.files import visible


class Console(RichConsole):
    """A console of rich; of texts that it prints, alone or in tables, control characters become escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of rich."""
        return super().render_str(visible(text), **options)


@contextmanager
def loading() -> Iterator[None]:
    """Show on a terminal that libraries are imported, which takes seconds: PyTorch, torchvision, timm."""
    if os.environ.get("RANK", "0") != "0":  # one of torchrun's processes shows it for all
        yield
        return
    with RichConsole(stderr=True).status("loading PyTorch"):
        yield
