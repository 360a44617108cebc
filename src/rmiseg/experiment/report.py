"""Results of an experiment: a row a run (CSV), tables (Markdown), and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown

from rmiseg.evaluation.bootstrap import resampled_scores
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.results import SavedEvaluation
from rmiseg.experiment.plan import Plan, Run
from rmiseg.experiment.timing import Seconds
from rmiseg.runtime.files import cell, remove_leftovers, replacing, write_rows, write_text
from rmiseg.runtime.words import counted

ROWS_FILE, REPORT_FILE, PICTURE_FILE = "results.csv", "results.md", "results.png"
COLUMNS = {
    "mean_iou": "mIoU",
    "boundary_mean_iou": "boundary IoU",
    "trimap_3_mean_iou": "mIoU within 3 px of boundaries",
    "pixel_accuracy": "pixel accuracy",
}
RESAMPLES, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        run: The run.
        folder: Its folder.
        scores: Scores of the last checkpoint on the validation split, by name.
        class_iou: IoU of each class, by its name.
        evaluation: What was counted in every image.
        crf_seconds: Mean time that a dense CRF takes for an image; 0 without.
    """

    run: Run
    folder: Path
    scores: dict[str, float]
    class_iou: dict[str, float]
    evaluation: Evaluation
    crf_seconds: float

    @classmethod
    def of(cls, run: Run, folder: Path, saved: SavedEvaluation, refined: bool) -> Outcome:
        """The outcome of a finished run, from an evaluation of its last checkpoint."""
        evaluation = saved.evaluation
        class_iou = dict(zip(saved.class_names, evaluation.everywhere.iou))
        crf_seconds = evaluation.seconds["crf"] if refined else 0.0
        return cls(run, folder, evaluation.summary(), class_iou, evaluation, crf_seconds)


@dataclass(frozen=True)
class Difference:
    """Points that one method scores above another.

    Attributes:
        by_seed: Of the two runs with each seed.
        draws: Their mean in each random draw of the images.
    """

    by_seed: list[float]
    draws: NDArray[np.float64]

    @property
    def low(self) -> float:
        """Lower end of the interval over images."""
        return float(np.nanquantile(self.draws, (1 - LEVEL) / 2))

    @property
    def high(self) -> float:
        """Upper end of the interval over images."""
        return float(np.nanquantile(self.draws, (1 + LEVEL) / 2))


def write_report(
    plan: Plan,
    sweeps: dict[str, list[Outcome]],
    outcomes: dict[str, list[Outcome]],
    seconds: dict[str, Seconds],
    out: Path,
    console: Console,
) -> None:
    """Write results.csv, results.md and results.png into the folder `out`, and show the tables.

    Args:
        plan: The plan.
        sweeps: The outcomes among which the options of each method were chosen, without the runs that diverged.
        outcomes: The outcomes of each method with the options that were chosen, in the order of the seeds; and of those
            that were also refined by a dense CRF.
        seconds: Times of each method; those that are refined have them from the one that they refine.
        out: Folder of the experiment.
        console: Where to show the tables.
    """
    remove_leftovers(out, (ROWS_FILE, REPORT_FILE, PICTURE_FILE))
    _write_rows(sweeps, outcomes, out / ROWS_FILE)
    text = markdown(plan, sweeps, outcomes, seconds)
    write_text(out / REPORT_FILE, text)
    _draw(plan, outcomes, out / PICTURE_FILE)
    console.print(Markdown(text))
    console.print(
        f"Tables, rows and picture: {', '.join(str(out / f) for f in (REPORT_FILE, ROWS_FILE, PICTURE_FILE))}"
    )


def markdown(
    plan: Plan,
    sweeps: dict[str, list[Outcome]],
    outcomes: dict[str, list[Outcome]],
    seconds: dict[str, Seconds],
) -> str:
    """The report as Markdown."""
    parts = _means(plan, outcomes, seconds)
    if len(outcomes) > 1:
        parts += _less_baseline(plan, outcomes)
    parts += _class_table(outcomes, plan.baseline)
    if plan.sweep:
        parts += _sweep(plan, sweeps, outcomes)
    return "\n".join(parts) + "\n"


def _means(plan: Plan, outcomes: dict[str, list[Outcome]], seconds: dict[str, Seconds]) -> list[str]:
    baseline, seeds = outcomes[plan.baseline], len(plan.seeds)
    return [
        f"# {plan.title}\n",
        f"Last checkpoint of each run on {len(baseline[0].evaluation.names)} validation images; percent, mean over "
        f"{counted(seeds, 'seed')}{' and standard deviation' * (seeds > 1)}.\n",
        table(
            ["", *(["published mIoU"] if plan.published else []), *COLUMNS.values(), "training step", "inference"],
            [
                [
                    method,
                    *([_published(plan, method)] if plan.published else []),
                    *(mean_of([o.scores[name] for o in found]) for name in COLUMNS),
                    _ratio(seconds.get(method), seconds[plan.baseline]),
                    _milliseconds(seconds[found[0].run.method], found),
                ]
                for method, found in outcomes.items()
            ],
        ),
        *_scope(outcomes),
        f"\nTraining step: {seconds[plan.baseline].step:.2f} s with {plan.baseline}, and the others in turn with it. "
        "Inference: the network, likewise, and the dense CRF.\n",
    ]


def _less_baseline(plan: Plan, outcomes: dict[str, list[Outcome]]) -> list[str]:
    baseline = outcomes[plan.baseline]
    rows = [
        [method, *map(points, differences_between(baseline, found).values())]
        for method, found in outcomes.items()
        if method != plan.baseline
    ]
    deviation = ", standard deviation of the difference between two runs with the same seed" * (len(plan.seeds) > 1)
    return [
        f"\n## Less {plan.baseline}\n",
        f"Difference of the means in points{deviation}, and in brackets its {LEVEL:.0%} interval: images drawn again "
        f"{RESAMPLES} times, the same for both (paired bootstrap). The interval is about the images and not about the "
        "seeds.\n",
        table(["", *COLUMNS.values()], rows),
    ]


def _class_table(outcomes: dict[str, list[Outcome]], baseline: str) -> list[str]:
    rows = [
        [name, *(mean_of([o.class_iou[name] for o in found]) for found in outcomes.values())]
        for name in outcomes[baseline][0].class_iou
    ]
    return ["\n## IoU of each class\n", table(["", *outcomes], rows)]


def _sweep(plan: Plan, sweeps: dict[str, list[Outcome]], outcomes: dict[str, list[Outcome]]) -> list[str]:
    rows = []
    for method, found in sweeps.items():
        cells = {o.run: mean_of([o.scores["mean_iou"]]) for o in found}
        cells[outcomes[method][0].run] = f"**{cells[outcomes[method][0].run]}**"
        rows.append([method, *(cells.get(run, "diverged") for run in plan.sweep_runs(method))])
    swept = [run.swept for run in plan.sweep_runs(plan.baseline)]
    values = [", ".join(f"{option} {value}" for option, value in each) for each in swept]
    return [
        "\n## Sweep\n",
        f"mIoU with seed {plan.seeds[0]}; the best, in bold, went on to the other seeds.\n",
        table(["", *values], rows),
    ]


def _scope(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """A sentence that says over how many classes means are taken, where they are not all."""
    scores = [outcome.evaluation.everywhere for found in outcomes.values() for outcome in found]
    scored = sorted({each.classes_scored for each in scores})
    total = len(scores[0].iou)
    if scored == [total]:
        return []
    span = " to ".join(map(str, dict.fromkeys((scored[0], scored[-1]))))
    return [f"\nmIoU is over {span} of {total} classes: the others are in neither truth nor prediction.\n"]


def differences_between(
    first: Sequence[Outcome], second: Sequence[Outcome], draw_seed: int = 0
) -> dict[str, Difference]:
    """Differences of the second to the first, seed by seed, under the name of each score."""
    scores = resampled_scores([outcome.evaluation for outcome in (*first, *second)], RESAMPLES, seed=draw_seed)
    found = {}
    for name in COLUMNS:
        by_seed = [b.scores[name] - a.scores[name] for a, b in zip(first, second, strict=True)]
        draws = [
            np.mean([each[name] for each in part], axis=0) for part in (scores[: len(first)], scores[len(first) :])
        ]
        found[name] = Difference(by_seed, draws[1] - draws[0])
    return found


def _write_rows(sweeps: dict[str, list[Outcome]], outcomes: dict[str, list[Outcome]], path: Path) -> None:
    named = ((method, o) for group in (sweeps, outcomes) for method, found in group.items() for o in found)
    rows = {(method, o.run): o for method, o in named}
    first = next(iter(rows.values()))
    header = ["method", *(option for option, _ in first.run.swept), "seed", *first.scores]
    header += [f"iou {name}" for name in first.class_iou] + ["crf_seconds", "folder"]
    lines: list[list[object]] = [[*header]]
    for (method, _), o in rows.items():
        swept = [value for _, value in o.run.swept]
        shares = [f"{value:.6f}" for value in (*o.scores.values(), *o.class_iou.values())]
        lines.append([cell(method), *swept, o.run.seed, *shares, f"{o.crf_seconds:.6f}", o.folder])
    write_rows(path, lines)


def _draw(plan: Plan, outcomes: dict[str, list[Outcome]], path: Path) -> None:
    """A panel a score: a dot a run, a bar at the mean of each method."""
    titles = [f"{title}, %" for title in COLUMNS.values()]
    size = 3.3 * len(COLUMNS), 0.42 * len(outcomes) + 1.4
    with panels(path, plan.title, titles, list(outcomes), size) as axes:
        for axis, name in zip(axes, COLUMNS):
            for row, (method, found) in enumerate(outcomes.items()):
                values = [100 * outcome.scores[name] for outcome in found]
                color = "#868e96" if method == plan.baseline else "#0b7285"
                axis.plot(values, [row] * len(values), "o", color=color, alpha=0.5, markeredgewidth=0)
                axis.plot([statistics.fmean(values)] * 2, [row - 0.28, row + 0.28], color=color, linewidth=2.5)
            baseline = statistics.fmean(100 * outcome.scores[name] for outcome in outcomes[plan.baseline])
            axis.axvline(baseline, color="#adb5bd", linewidth=1, linestyle=":", zorder=0)
            axis.margins(x=0.12)


@contextmanager
def panels(
    path: Path, title: str, titles: Sequence[str], rows: Sequence[str], size: tuple[float, float]
) -> Iterator[Sequence[Any]]:
    """Draw a picture: panels side by side which share rows that have names.

    Args:
        path: The file.
        title: Title of the picture.
        titles: Title of each panel.
        rows: Names of the rows, from above.
        size: Width and height.

    Yields:
        The axes of the panels, to draw in. A row is one high, and its number is its middle.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained")
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axis, panel_title in zip(axes, titles):
        axis.set_title(panel_title, fontsize=10)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(title, fontsize=11)
    yield axes
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def mean_of(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares, in percent."""
    values = [100 * value for value in values]
    if any(map(math.isnan, values)):
        return "-"
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def _published(plan: Plan, row: str) -> str:
    return f"{plan.published[row]:.2f}" if row in plan.published else "-"


def _ratio(seconds: Seconds | None, baseline: Seconds) -> str:
    return "" if seconds is None else f"{seconds.step / baseline.step:.2f} x"


def _milliseconds(seconds: Seconds, found: Sequence[Outcome]) -> str:
    return f"{1000 * (seconds.image + statistics.median(o.crf_seconds for o in found)):.0f} ms"


def points(difference: Difference) -> str:
    """A difference in points: mean, standard deviation over the seeds, and in brackets its interval."""
    values = [100 * value for value in difference.by_seed]
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.2f}{deviation} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
