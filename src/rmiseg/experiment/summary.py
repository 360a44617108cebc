"""Results of an experiment over several data sets: means, ranks, and differences with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markdown import Markdown

from rmiseg.experiment.plan import Plan
from rmiseg.experiment.report import (
    LEVEL,
    PICTURE_FILE,
    REPORT_FILE,
    RESAMPLES,
    ROWS_FILE,
    Difference,
    Outcome,
    differences_between,
    mean_of,
    panels,
    points,
    table,
)
from rmiseg.runtime.files import cell, remove_leftovers, write_rows, write_text
from rmiseg.runtime.words import counted

Results = Mapping[str, Mapping[str, Sequence[Outcome]]]
"""Outcomes by data set and row of the report, in the order of the seeds."""

RAREST = "rarest_class_iou"
COLUMNS = {
    "mean_iou": "mIoU",
    "boundary_mean_iou": "Boundary IoU",
    RAREST: "IoU of the rarest class",
}
COMPARED = {"mean_iou": "mIoU", "boundary_mean_iou": "boundary IoU"}


def write_summary(plan: Plan, results: Results, out: Path, console: Console) -> None:
    """Write results.md, results.csv and results.png of all data sets into the folder `out`, and show the tables."""
    remove_leftovers(out, (ROWS_FILE, REPORT_FILE, PICTURE_FILE))
    differences = _differences(plan, results)
    text = summary_markdown(plan, results, differences)
    write_text(out / REPORT_FILE, text)
    _write_rows(results, out / ROWS_FILE)
    _draw(plan, differences, out / PICTURE_FILE)
    console.print(Markdown(text))
    console.print(f"Over all data sets: {', '.join(str(out / f) for f in (REPORT_FILE, ROWS_FILE, PICTURE_FILE))}")


def summary_markdown(
    plan: Plan, results: Results, differences: Mapping[str, Mapping[str, Mapping[str, Difference]]]
) -> str:
    """The summary as Markdown: a table a score, differences to the baseline, and wins."""
    methods, seeds = list(next(iter(results.values()))), len(plan.seeds)
    parts = [
        f"# {plan.title}\n",
        f"{len(results)} data sets. Last checkpoint of each run on the validation images; percent, mean over "
        f"{counted(seeds, 'seed')}{' and standard deviation' * (seeds > 1)}. The rank is 1 for the best method of a "
        "data set; methods that are equal share theirs. Each data set has a folder with a report of its own.\n",
    ]
    for score, title in COLUMNS.items():
        scores = {
            method: {dataset: [_score(o, score) for o in found[method]] for dataset, found in results.items()}
            for method in methods
        }
        rank = mean_ranks({m: [statistics.fmean(v) for v in by_set.values()] for m, by_set in scores.items()})
        rows = [
            [
                method,
                *map(mean_of, by_set.values()),
                mean_of([statistics.fmean(map(statistics.fmean, by_set.values()))]),
                f"{rank[method]:.1f}",
            ]
            for method, by_set in scores.items()
        ]
        parts += [f"\n## {title}\n", table(["", *results, "mean", "mean rank"], rows)]
    rarest = ", ".join(f"{_rarest(next(iter(found.values()))[0])} of {name}" for name, found in results.items())
    parts.append(f"\nThe rarest classes, by the pixels of the validation images: {rarest}.\n")
    if len(methods) > 1:
        parts += _compared(plan, differences)
    return "\n".join(parts) + "\n"


def _compared(plan: Plan, differences: Mapping[str, Mapping[str, Mapping[str, Difference]]]) -> list[str]:
    parts = [
        f"\n## Less {plan.baseline}\n",
        f"Difference of the means in points{', its standard deviation over the seeds' * (len(plan.seeds) > 1)}, and in "
        f"brackets its {LEVEL:.0%} interval: the images of each data set drawn again {RESAMPLES} times, the same for "
        "both (paired bootstrap). The interval is about the images, not about the seeds nor the choice of data sets. "
        "Wins: data sets on which the method is ahead, and data sets on which the whole interval is.\n",
    ]
    for score, title in COMPARED.items():
        rows = []
        for method, by_set in differences.items():
            found = {dataset: each[score] for dataset, each in by_set.items()}
            ahead = sum(statistics.fmean(each.by_seed) > 0 for each in found.values())
            surely = sum(each.low > 0 for each in found.values())
            rows.append(
                [method, *map(points, found.values()), points(average(list(found.values()))), f"{ahead}, {surely}"]
            )
        sets = list(next(iter(differences.values())))
        parts += [f"\n{title}:\n", table(["", *sets, "mean over data sets", "wins"], rows)]
    return parts


def mean_ranks(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean over data sets of the rank of each method's score; NaN comes last.

    Args:
        scores: Scores on each data set, by method; the higher the better.
    """
    columns = np.nan_to_num(np.array(list(scores.values()), np.float64), nan=-np.inf)
    better = (columns[None] > columns[:, None]).sum(axis=1)
    equal = (columns[None] == columns[:, None]).sum(axis=1)
    return dict(zip(scores, (better + (equal + 1) / 2).mean(axis=1).tolist()))


def average(differences: Sequence[Difference]) -> Difference:
    """The mean over data sets of differences on each, whose images are drawn independently."""
    by_seed = [statistics.fmean(values) for values in zip(*(each.by_seed for each in differences), strict=True)]
    return Difference(by_seed, np.mean([each.draws for each in differences], axis=0))


def _differences(plan: Plan, results: Results) -> dict[str, dict[str, dict[str, Difference]]]:
    """Differences to the baseline by row, data set and score."""
    return {
        method: {
            dataset: differences_between(found[plan.baseline], found[method], seed)
            for seed, (dataset, found) in enumerate(results.items())
        }
        for method in next(iter(results.values()))
        if method != plan.baseline
    }


def _rarest(outcome: Outcome) -> str:
    """The class with the fewest pixels in the validation images, of those that have any."""
    pixels = outcome.evaluation.confusion.sum(axis=1)
    present = {name: count for name, count in zip(outcome.class_iou, pixels.tolist()) if count}
    return min(present, key=present.__getitem__)


def _score(outcome: Outcome, name: str) -> float:
    return outcome.class_iou[_rarest(outcome)] if name == RAREST else outcome.scores[name]


def _write_rows(results: Results, path: Path) -> None:
    first = next(iter(next(iter(results.values())).values()))[0]
    swept = [option for option, _ in first.run.swept]
    rows: list[list[object]] = [["dataset", "method", *swept, "seed", *first.scores, "rarest class", RAREST, "folder"]]
    for dataset, found in results.items():
        for method, outcomes in found.items():
            for o in outcomes:
                shares = [f"{value:.6f}" for value in o.scores.values()]
                values = [value for _, value in o.run.swept]
                rarest = [cell(_rarest(o)), f"{_score(o, RAREST):.6f}"]
                rows.append([cell(dataset), cell(method), *values, o.run.seed, *shares, *rarest, o.folder])
    write_rows(path, rows)


def _draw(plan: Plan, differences: Mapping[str, Mapping[str, Mapping[str, Difference]]], path: Path) -> None:
    """A panel a score: the difference to the baseline, a line of points with intervals a method."""
    if not differences:
        return
    sets = [*next(iter(differences.values())), "all data sets"]
    titles = [f"{title} less that of {plan.baseline}, points" for title in COMPARED.values()]
    size = 4.6 * len(COMPARED), 0.26 * len(sets) * (len(differences) + 1) + 1.4
    with panels(path, plan.title, titles, sets, size) as axes:
        for axis, score in zip(axes, COMPARED):
            for number, (method, by_set) in enumerate(differences.items()):
                found = [each[score] for each in by_set.values()]
                for row, each in enumerate([*found, average(found)]):
                    y = row + (number + 1) / (len(differences) + 1) - 0.5
                    mean, ends = 100 * statistics.fmean(each.by_seed), [100 * each.low, 100 * each.high]
                    axis.plot(ends, [y, y], color=f"C{number}", linewidth=1.6)
                    axis.plot(mean, y, "o", color=f"C{number}", markersize=5, label=method if row == 0 else None)
            for row in range(len(sets) - 1):
                axis.axhline(row + 0.5, color="#dee2e6", linewidth=0.8)
            axis.axvline(0, color="#868e96", linewidth=1, zorder=0)
        legend = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*legend, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
