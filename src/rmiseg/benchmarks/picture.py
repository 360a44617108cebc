"""Measurements as a picture: bars of time and marks of memory, relative to cross entropy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rmiseg.benchmarks.candidates import CANDIDATES, REFERENCE
from rmiseg.benchmarks.measure import Passes
from rmiseg.benchmarks.report import Case, Measurement, digits, shape_text
from rmiseg.runtime.files import replacing
from rmiseg.runtime.words import counted

_INK, _GRID = "#212529", "#dee2e6"
_OWN_COLOR, _FAMILY_COLOR, _OTHERS_COLOR, _MEMORY_COLOR = "#0b7285", "#74b8c4", "#ced4da", "#d9480f"


def draw(path: Path, cases: list[Case], environment: dict[str, str]) -> None:
    """A picture with a panel for each case and pool size: a row for each shape, a column for each way to measure it."""
    shapes = list(dict.fromkeys(case.shape for case in cases))
    columns = list(dict.fromkeys((case.stride, pool) for case in cases for pool in _pool_sizes(case)))
    names = list(dict.fromkeys(m.job.name for case in cases for m in case.measurements))
    row_height = 0.24 * len(names) + 0.5
    figure = Figure(
        figsize=(max(3.1 * len(columns) + 1.5, 6), row_height * len(shapes) + 1.6),
        dpi=130,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
    )
    axes = figure.subplots(len(shapes), len(columns), squeeze=False, sharex=True, sharey=True)
    for case in cases:
        for pool in _pool_sizes(case):
            row, column = shapes.index(case.shape), columns.index((case.stride, pool))
            measured = {m.job.name: m for m in case.measurements if m.job.pool_size == pool or not _pools(m)}
            _draw_panel(axes[row][column], case, names, measured)
            where = "full-size logits" if case.stride == 1 else f"logits at stride {case.stride}"
            title = f"{where}, pool {pool}" if pool else where
            axes[row][column].set_title(f"{title}\n" if row == 0 else "", fontsize=10.5, color=_INK)
    for row, shape in enumerate(shapes):
        axes[row][0].annotate(
            shape_text(shape),
            (0, 1.02),
            xycoords="axes fraction",
            ha="right",
            fontsize=10.5,
            fontweight="bold",
            color=_INK,
        )
    figure.suptitle(
        "Forward and backward, relative to cross entropy",
        fontsize=14,
        fontweight="bold",
        color=_INK,
    )
    figure.legend(
        handles=[
            Patch(color=_OWN_COLOR, label="time"),
            Line2D([], [], marker="D", color=_MEMORY_COLOR, linestyle="", markersize=5, label="peak memory"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        title=f"{environment['hardware']}, {counted(int(environment['threads']), 'thread')}, "
        f"torch {environment['torch']}, {environment['dtype']}",
        title_fontproperties={"size": 8.5},
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _pools(m: Measurement) -> bool:
    return CANDIDATES[m.job.name].pools


def _pool_sizes(case: Case) -> list[int]:
    """The pool sizes of a case; [0] if none of its losses has one."""
    return list(dict.fromkeys(m.job.pool_size for m in case.measurements if _pools(m))) or [0]


def _draw_panel(axes: Axes, case: Case, names: list[str], measured: dict[str, Measurement]) -> None:
    for y, name in enumerate(names):
        if name not in measured:
            continue
        m = measured[name]
        times, memory = case.time_ratio(m), case.memory_ratio(m)
        if times is not None:
            axes.barh(y, times.both - 1, left=1, height=0.66, color=_color(name), zorder=2)
        if memory is not None:
            axes.plot(memory.both, y, "D", color=_MEMORY_COLOR, markersize=5.5, markeredgecolor="white", zorder=4)
        _write_figures(axes, y, m, times, memory)
    axes.axvline(1, color=_INK, linewidth=0.8, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.23)  # room for the figures
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [CANDIDATES[name].title for name in names], fontsize=9, color=_INK)
    axes.xaxis.set_major_locator(LogLocator(10, (1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _write_figures(axes: Axes, y: int, m: Measurement, times: Passes | None, memory: Passes | None) -> None:
    """The time of every loss at the right of its bar, and the memory of our own at the left."""
    own = m.job.name == "rmi"
    ratios = [1.0, *(ratio.both for ratio in (times, memory) if ratio is not None)]
    if m.seconds is None:
        text = "does not run"
    elif m.job.name == REFERENCE:
        text = f"{digits(1e3 * m.seconds.both)} ms"
        if m.memory is not None:
            text += f", {digits(m.memory.both / 1e6)} MB"
    else:
        text = "" if times is None else f"{digits(times.both)}x"
    style: dict[str, Any] = {
        "textcoords": "offset points",
        "va": "center",
        "fontsize": 8,
        "fontweight": "bold" if own else "normal",
    }
    axes.annotate(text, (max(ratios), y), (7, 0), color=_INK, **style)
    if own and memory is not None:
        axes.annotate(f"{digits(memory.both)}x", (min(ratios), y), (-7, 0), ha="right", color=_MEMORY_COLOR, **style)


def _color(name: str) -> str:
    if name == "rmi":
        return _OWN_COLOR
    return _FAMILY_COLOR if CANDIDATES[name].package is None else _OTHERS_COLOR
