"""Two evaluations of the same images, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rmiseg.config import EvaluateConfig
from rmiseg.data.fingerprint import changes
from rmiseg.evaluation.bootstrap import Interval, paired_intervals
from rmiseg.evaluation.results import SavedEvaluation
from rmiseg.evaluation.scoring import find_or_score
from rmiseg.runtime.terminal import numbers_table
from rmiseg.runtime.words import counted, percent, scope_of_mean, some


def compare(
    a: str | Path | SavedEvaluation,
    b: str | Path | SavedEvaluation,
    *,
    split: str | None = None,
    root: str | Path | None = None,
    metrics: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Compare two models on the same images, as `rmiseg compare` does.

    Args:
        a: The first: the folder of a run, a checkpoint, the folder of an evaluation, or what `evaluate` returned, as
            for a run whose network or data were given in Python. What is not evaluated yet is.
        b: The second.
        split: Split to compare on; by default the validation split of the run.
        root: Folder of the data set, if it is no longer where the run found it.
        metrics: Names of further metrics. Others that both evaluations have are compared too.
        resamples: Random samples of the images by which the intervals are estimated (bootstrap).
        seed: Seed of these samples.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        console: Where to show progress; by default nowhere.

    Returns:
        As `compare_evaluations`.

    Raises:
        ValueError, OSError: Anything wrong with the checkpoints or the data; evaluations of other classes or images.
    """
    options: dict[str, Any] = {
        "split": split,
        "root": None if root is None else str(root),
        "metrics": list(metrics),
        "device": device,
    }
    first, second = (
        each
        if isinstance(each, SavedEvaluation)
        else find_or_score(EvaluateConfig(checkpoint=str(each), **options), console)
        for each in (a, b)
    )
    return compare_evaluations(first, second, resamples=resamples, seed=seed)


def compare_evaluations(a: SavedEvaluation, b: SavedEvaluation, *, resamples: int, seed: int) -> dict[str, Any]:
    """The scores of both, and the differences (b less a) with 95 % intervals: overall, per class and per image.

    Raises:
        ValueError: The evaluations are of other classes, splits, images or masks.
    """
    for what, first, second in (
        ("classes", a.class_names, b.class_names),
        ("data sets", a.report["data"], b.report["data"]),
        ("splits", a.report["split"], b.report["split"]),
    ):
        if first != second:
            raise ValueError(f"{a.folder} and {b.folder} cannot be compared: their {what} are {first} and {second}")
    if a.evaluation.names != b.evaluation.names:
        only = sorted(set(a.evaluation.names) ^ set(b.evaluation.names))
        raise ValueError(
            f"{a.folder} and {b.folder} are of different images ({len(a.evaluation.names)} and "
            f"{len(b.evaluation.names)}; in one alone: {some(only, 5) or 'none, the order differs'})"
        )
    check_same_masks((a, b))
    interval = paired_intervals(a.evaluation, b.evaluation, resamples, seed)
    summaries = a.evaluation.summary(), b.evaluation.summary()
    images = [each.evaluation.image_scores["mean_iou"] for each in (a, b)]
    order = np.argsort(images[1] - images[0], kind="stable")  # NaN, images without a valid pixel, come last
    return {
        "a": _identity(a),
        "b": _identity(b),
        "split": a.report["split"],
        "images_changed": changes(_fingerprints(a), _fingerprints(b)),
        "scores": {name: _row(summaries[0][name], summaries[1][name], ends) for name, ends in interval.summary.items()},
        "classes": {
            name: _row(a.evaluation.everywhere.iou[index], b.evaluation.everywhere.iou[index], interval.iou[index])
            for index, name in enumerate(a.class_names)
        },
        "images": [
            {"name": a.evaluation.names[index], **_difference(float(images[0][index]), float(images[1][index]))}
            for index in order.tolist()
        ],
    }


def check_same_masks(evaluations: Sequence[SavedEvaluation]) -> None:
    """See whether evaluations of the same images had the same masks, by the pixels of each class in truth.

    Raises:
        ValueError: One had others than the first.
    """
    first, *others = evaluations
    true = [each.evaluation.counts["iou"][:, :, 1] for each in evaluations]
    for each, its in zip(others, true[1:]):
        differing = np.flatnonzero((its != true[0]).any(axis=(1, 2)))
        if differing.size:
            raise ValueError(
                f"{first.folder} and {each.folder} were scored by different masks in "
                f"{counted(differing.size, 'image')}, such as {first.evaluation.names[differing[0]]}: of "
                f"{first.report.get('root')} and {each.report.get('root')}, or changed in between. Score both again "
                f"with `rmiseg evaluate`, and one --root"
            )


def print_comparison(comparison: dict[str, Any], console: Console, images: int) -> None:
    """The comparison as tables; `images` of the best and of the worst are listed."""
    console.print(f"A: {comparison['a']['checkpoint']}\nB: {comparison['b']['checkpoint']}")
    if comparison["images_changed"]:
        console.print(
            "note: A and B were not scored on the same files, though on the same masks: images of the same names "
            "differ in their content"
        )
    scopes = [_scope(comparison, which) for which in ("a", "b")]
    for title, rows in (("score", comparison["scores"]), ("IoU of class", comparison["classes"])):
        mark = "* the interval does not hold 0" if title == "score" else None
        table = numbers_table(title, "A %", "B %", "B - A", "95 % interval", "", title=mark)
        for name, row in rows.items():
            low, high = row["interval"]
            sure = "*" if low > 0 or high < 0 else ""
            scope = scopes[0] if title == "score" and name == "mean_iou" and scopes[0] == scopes[1] else ""
            name = name.replace("_", " ").replace("iou", "IoU") + scope if title == "score" else name
            interval = "-" if math.isnan(low) else f"{100 * low:+.2f} to {100 * high:+.2f}"
            table.add_row(name, percent(row["a"]), percent(row["b"]), _points(row["difference"]), interval, sure)
        console.print(table)
    if scopes[0] != scopes[1]:
        a, b = (scope or f" over all {len(comparison['classes'])}" for scope in scopes)
        console.print(
            f"The mean IoU of A is{a}, that of B{b}: classes in neither truth nor prediction have none, so that the "
            f"two are means of different classes"
        )
    judged = [row for row in comparison["images"] if not math.isnan(row["difference"])]
    for title, rows in (
        ("B loses most", [row for row in judged if row["difference"] < 0][:images]),
        ("B gains most", [row for row in reversed(judged) if row["difference"] > 0][:images]),
    ):
        if rows:
            table = numbers_table("image", "mIoU of A %", "of B %", "B - A", title=title)
            for row in rows:
                table.add_row(row["name"], percent(row["a"]), percent(row["b"]), _points(row["difference"]))
            console.print(table)
    better = sum(row["difference"] > 0 for row in judged)
    worse = sum(row["difference"] < 0 for row in judged)
    console.print(f"B is better in {better} images and worse in {worse} of {len(judged)}, by the mIoU of each")


def _identity(saved: SavedEvaluation) -> dict[str, Any]:
    return {
        "evaluation": str(saved.folder),
        "classes_scored": saved.evaluation.everywhere.classes_scored,
        **{key: saved.report[key] for key in ("checkpoint", "sha256", "step", "settings")},
    }


def _fingerprints(saved: SavedEvaluation) -> dict[str, Any]:
    """The fingerprint of the images by their split; none of an evaluation of an older version."""
    return {saved.report["split"]: each} if (each := saved.report.get("fingerprint")) else {}


def _scope(comparison: dict[str, Any], which: str) -> str:
    """The classes that the mean IoU of one is the mean of, if they are not all; see `scope_of_mean`."""
    return scope_of_mean(comparison[which]["classes_scored"], len(comparison["classes"]))


def _difference(a: float, b: float) -> dict[str, float]:
    return {"a": a, "b": b, "difference": b - a}


def _row(a: float, b: float, interval: Interval) -> dict[str, Any]:
    return {**_difference(a, b), "interval": interval}


def _points(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:+.2f}"
