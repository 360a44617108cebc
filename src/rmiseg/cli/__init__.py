"""The command line."""

from rmiseg.cli.program import main

__all__ = ["main"]
