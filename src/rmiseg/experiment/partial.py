"""Report of an experiment that is under way: the scores that there are, and how many runs are missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rmiseg.experiment.plan import Plan
from rmiseg.experiment.report import COLUMNS, REPORT_FILE, mean_of, table
from rmiseg.runtime.files import write_text
from rmiseg.training.run_folder import read_result

Scores = Mapping[str, float]


def write_partial_report(plan: Plan, out: Path, total: int, results: Mapping[str, Path]) -> None:
    """Write results.md of the runs that are over, which is replaced when all are.

    Args:
        plan: The plan.
        out: Folder of the experiment.
        total: Number of runs that the experiment comes to.
        results: The result.json of each run that is over, by the name of the run.
    """
    scores = {name: read_result(path)[0].last for name, path in results.items()}
    write_text(out / REPORT_FILE, partial_markdown(plan, total, scores))


def partial_markdown(plan: Plan, total: int, scores: Mapping[str, Scores]) -> str:
    """The report as Markdown: a table a data set, a row for each method and each value of the sweep.

    Args:
        plan: The plan.
        total: Number of runs that the experiment comes to.
        scores: Scores of each run that is over, by the name of the run.
    """
    missing = total - len(scores)
    parts = [
        f"# {plan.title}\n",
        f"**Not finished: {len(scores)} of {total} runs are over, {missing} are missing.** Scores of the last "
        "validation of each training; percent, mean and standard deviation over the seeds that there are.\n",
    ]
    for dataset, part in plan.parts().items():
        found: dict[str, list[Scores]] = {}
        for run in part.all_runs():
            if run.name in scores:
                title = ", ".join([run.method, *(f"{option} {value}" for option, value in run.swept)])
                found.setdefault(title, []).append(scores[run.name])
        rows = [
            [title, str(len(each)), *(mean_of([score[name] for score in each]) for name in COLUMNS)]
            for title, each in found.items()
        ]
        parts += [f"\n## {dataset}\n"] if dataset else []
        parts.append(table(["", "seeds", *COLUMNS.values()], rows) if rows else "No run is over.\n")
    return "\n".join(parts) + "\n"
