"""Curves as a table: `curves.csv` in the folder of every run."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rmiseg.config.registry import register
from rmiseg.runtime.files import write_rows
from rmiseg.training.loggers.base import Logger

COLUMNS = ("step", "curve", "value")
CURVES_FILE = "curves.csv"

Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values of each curve, by its name."""


@register("logger", "csv")
class TableLogger(Logger):
    """Writes one line for each value: its step, the name of its curve, and itself."""

    file: IO[str] | None = None

    def open(self, folder: Path, config: Mapping[str, Any], from_step: int | None) -> None:
        path = folder / CURVES_FILE
        kept = [row for row in read_rows(path) if from_step is not None and int(row[0]) < from_step]
        write_rows(path, [COLUMNS, *kept])
        self.file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115  # for as long as the run lasts

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self.file is not None:
            csv.writer(self.file).writerows((step, name, f"{value:.8g}") for name, value in values.items())

    def flush(self) -> None:
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def read_rows(path: Path) -> list[list[str]]:
    """Read the whole lines of a table, without its header; none where there is no file.

    A last line that was cut short when its process was killed is left out. The lines are in the order of steps, and of
    a value that is there twice the last counts, also where somebody edited the file.

    Raises:
        ValueError: The file is no such table.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
        if rows and tuple(rows[0]) != COLUMNS:
            raise ValueError(f"it does not begin with {','.join(COLUMNS)}")
        kept = [row for row in rows[1:] if len(row) == len(COLUMNS) and row[0].isdecimal()]
        for _, _, value in kept:
            float(value)
        kept = list({(int(step), name): [step, name, value] for step, name, value in kept}.values())
        kept.sort(key=lambda row: int(row[0]))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no table of curves ({error}): put a copy of it back, or move it away") from error
    return kept


def read_table(path: Path) -> Curves:
    """Read the curves in a table, in the order of their first values."""
    curves: Curves = {}
    for step, name, value in read_rows(path):
        steps, values = curves.setdefault(name, ([], []))
        steps.append(int(step))
        values.append(float(value))
    return curves
