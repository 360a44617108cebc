"""Run what a plan asks for, and nothing twice: the folders of the runs are all the memory there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rmiseg.config import CRFConfig, EvaluateConfig, ExperimentConfig, PredictConfig, TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.config.recipes import checked_names, merged, read_recipe
from rmiseg.evaluation.scoring import find_or_score
from rmiseg.experiment.partial import write_partial_report
from rmiseg.experiment.plan import Plan, Run, TestFiles, read_plan, slug
from rmiseg.experiment.report import PICTURE_FILE, REPORT_FILE, ROWS_FILE, Outcome, write_report
from rmiseg.experiment.summary import write_summary
from rmiseg.experiment.timing import find_or_time
from rmiseg.experiment.trainings import CLAIM_FILE, RUN_FOLDER, alone, train_all
from rmiseg.inference.checkpoint import CHECKPOINTS, LAST, digest
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.predict import predict_files
from rmiseg.runtime.files import remove_leftovers, write_text
from rmiseg.runtime.places import check_places, writable_folder
from rmiseg.training.assembly import complete
from rmiseg.training.run_folder import DIVERGED_FILE, RESULT_FILE, RunResult
from rmiseg.training.stored_options import CONFIG_FILE, stored_options

RECIPE_FILE, SECONDS_FILE, REPORT_LOCK = "recipe.yaml", "seconds.json", ".report"

Table = dict[tuple[str, str], list[Outcome]]
"""Outcomes by data set and method."""


def run_experiment(config: ExperimentConfig, console: Console) -> None:
    """Train and score every run of a plan, those that are finished excepted, and write the report.

    Raises:
        ValueError, FileNotFoundError: Anything wrong with the plan, found before the first run.
        OSError: A training run failed; those before it are kept.
        FloatingPointError: All values of a method's sweep diverged, or the chosen ones with another seed.
        Preempted: SIGTERM arrived during a training; it was saved.
    """
    if config.jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {config.jobs}")
    plan, out = read_plan(Path(config.plan)), Path(config.out)
    _check_places(plan, out)
    _check(plan, plan.all_runs(), out, config)
    for counts in plan.crf.values():
        DenseCRF(counts, CRFConfig())  # is it installed?
    sweep = [run for part in plan.parts().values() for method in plan.methods for run in part.sweep_runs(method)]
    total = len(sweep) + len(plan.methods) * len(plan.datasets) * (len(plan.seeds) - 1)

    def outcomes_of(runs: Sequence[Run], first: int) -> list[Outcome]:
        titles = {run: f"run {number} of {total}: {run.name}" for number, run in enumerate(runs, first)}
        recipes = {out / run.name / RECIPE_FILE: run for run in titles}
        for recipe in recipes:
            recipe.parent.mkdir(parents=True, exist_ok=True)
        missing = {recipe: titles[run] for recipe, run in recipes.items() if _result(recipe) is None}
        write = partial(_write_recipe, plan, recipes, out, config)
        report = partial(_report_so_far, plan, out, total)
        train_all(missing, config.jobs, config.device, console, _result, report, write)
        return [_scored(plan, run, out, config, console) for run in runs if not _diverged(run, out)]

    sweeps: Table = {(dataset, method): [] for dataset in plan.datasets for method in plan.methods}
    for outcome in outcomes_of(sweep, 1):
        sweeps[outcome.run.dataset, outcome.run.method].append(outcome)
    if diverged := [_title(*cell) for cell, found in sweeps.items() if not found]:
        raise FloatingPointError(f"every run of {', '.join(diverged)} diverged; the plan should have them learn slower")
    outcomes = {cell: [max(found, key=lambda o: o.scores["mean_iou"])] for cell, found in sweeps.items()}
    # All methods with one seed before the next: then what there is can be compared.
    repeats = [replace(found[0].run, seed=seed) for seed in plan.seeds[1:] for found in outcomes.values()]
    for outcome in outcomes_of(repeats, len(sweep) + 1):
        outcomes[outcome.run.dataset, outcome.run.method].append(outcome)
    if names := [run.name for run in repeats if _diverged(run, out)]:
        raise FloatingPointError(
            f"{', '.join(names)} diverged, unlike with seed {plan.seeds[0]}; the plan should have "
            "them learn slower, and not sweep these values"
        )
    with alone(out / REPORT_LOCK, console):
        _report(plan, sweeps, outcomes, out, config, console)
    if plan.predict is not None:
        _write_test_files(
            plan.predict, {method: found[0].folder for (_, method), found in outcomes.items()}, config, console
        )


def _title(dataset: str, method: str) -> str:
    return f"{method} on {dataset}" if dataset else method


def _report_so_far(plan: Plan, out: Path, total: int) -> None:
    """Write a report of the runs that are over, of other machines too."""
    results = {run.name: out / run.name / RUN_FOLDER / RESULT_FILE for run in plan.all_runs()}
    write_partial_report(plan, out, total, {name: path for name, path in results.items() if path.is_file()})


def _report(plan: Plan, sweeps: Table, outcomes: Table, out: Path, config: ExperimentConfig, console: Console) -> None:
    """Write a report of each data set, and one over all of them if there are several."""
    results: dict[str, dict[str, list[Outcome]]] = {}
    for dataset, part in plan.parts().items():
        own = {method: outcomes[dataset, method] for method in plan.methods}
        folder = out / slug(dataset)
        recipes = {method: train_config(out / found[0].run.name / RECIPE_FILE) for method, found in own.items()}
        seconds = find_or_time(recipes, folder / SECONDS_FILE, console)
        shown = results[dataset] = {}
        for method, found in own.items():
            shown[method] = found
            for count in plan.crf.get(method, ()):
                refined = [_scored(plan, each.run, out, config, console, count) for each in found]
                shown[f"{method} + CRF-{count}"] = refined
        write_report(part, {method: sweeps[dataset, method] for method in own}, shown, seconds, folder, console)
    if len(results) > 1:
        write_summary(plan, results, out, console)


def _write_test_files(files: TestFiles, folders: dict[str, Path], config: ExperimentConfig, console: Console) -> None:
    """Write the predictions that a test server takes, once, beside the run with the first seed."""
    for method, counts in files.methods.items():
        checkpoint = folders[method] / CHECKPOINTS / LAST
        for count in counts:
            title = f"{method} + CRF-{count}" if count else method
            out = folders[method].parent / f"{files.split}{f'-crf{count}' if count else ''}"
            mark, sign = out.with_name(f"{out.name}.complete"), digest(checkpoint)
            if mark.is_file() and mark.read_bytes() == sign.encode():
                continue
            options = PredictConfig(
                checkpoint=str(checkpoint),
                split=files.split,
                root=config.root,
                out=str(out),
                write=[files.write],
                crf=[count] if count else [],
                overwrite=True,
                device=config.device,
            )
            try:
                predict_files(options, console)
            except (ValueError, OSError) as error:  # such as a split that must be fetched apart
                console.print(f"warning: no files for the test server of {title}: {error}", markup=False)
                continue
            remove_leftovers(mark.parent, [mark.name])
            write_text(mark, sign)


def _recipe(plan: Plan, run: Run, out: Path, config: ExperimentConfig) -> dict[str, Any]:
    """The recipe of a run, as nested options."""
    # A run that broke off goes on where it was.
    overrides: dict[str, Any] = {"out": str(out / run.name / RUN_FOLDER), "resume": "auto", "device": config.device}
    recipe = plan.recipe(run)
    if config.root is not None:
        own = plan.datasets[run.dataset].get("data", {}).get("root", "")
        overrides["data"] = {"root": str(Path(config.root) / own) if own else config.root}
    return merged(recipe, overrides)


def _check_places(plan: Plan, out: Path) -> None:
    """See whether anything is in the way of what is written at the end, before hours are spent."""
    folders = {out, *(out / slug(dataset) for dataset in plan.datasets)}
    names = (ROWS_FILE, REPORT_FILE, PICTURE_FILE, SECONDS_FILE, REPORT_LOCK)
    runs = [out / run.name for run in plan.all_runs()]
    check_places(
        [*folders, *(run / RUN_FOLDER for run in runs)], [folder / name for folder in folders for name in names]
    )
    check_places(files=[run / name for run in runs for name in (RECIPE_FILE, CLAIM_FILE)])
    writable_folder(out)


def _check(plan: Plan, runs: list[Run], out: Path, config: ExperimentConfig) -> None:
    """See that all options exist, and that finished runs were trained with them, before hours are spent."""
    for run in runs:
        recipe, known = _recipe(plan, run, out, config), out / run.name / RECIPE_FILE
        try:
            config_now = complete(train_config(recipe))
        except ValueError as error:
            raise ValueError(f"{config.plan}, {run.name}: {error}") from error
        if known.is_file() and (
            _training(read_recipe(known)) != _training(checked_names(recipe)) or _warmed_otherwise(known, config_now)
        ):
            raise ValueError(
                f"{known.parent} was trained with other options than the plan has now. Its recipe: {known}. Remove "
                "the folder to train it again, or choose another --out"
            )


def _warmed_otherwise(recipe: Path, config: TrainConfig) -> bool:
    """Tell whether a run has other rates than its recipe gives now: a recipe may leave them to a default."""
    folder = recipe.parent / RUN_FOLDER
    if not config.optim.warmup_steps or not (folder / CONFIG_FILE).is_file():
        return False
    return bool(stored_options(folder).get("optim.warmup_to") != config.optim.warmup_to)


def _training(recipe: dict[str, Any]) -> dict[str, Any]:
    """The options of a recipe that make a difference to the training, and not only to where it happens."""
    data = {name: value for name, value in recipe.get("data", {}).items() if name != "root"}
    optim = {name: value for name, value in recipe.get("optim", {}).items() if name != "warmup_to"}  # checked apart
    others = {name: recipe[name] for name in recipe if name not in ("out", "resume", "device")}
    return others | {"data": data, "optim": optim}


def _write_recipe(plan: Plan, runs: Mapping[Path, Run], out: Path, config: ExperimentConfig, recipe: Path) -> None:
    remove_leftovers(recipe.parent, [recipe.name])
    write_text(recipe, yaml.safe_dump(_recipe(plan, runs[recipe], out, config), sort_keys=False))


def _diverged(run: Run, out: Path) -> bool:
    return (out / run.name / RUN_FOLDER / DIVERGED_FILE).is_file()


def _result(recipe: Path) -> str | None:
    """The outcome of a run, in a line; None if it is not over."""
    folder = recipe.parent / RUN_FOLDER
    if (folder / DIVERGED_FILE).is_file():
        return "diverged"
    if not (folder / RESULT_FILE).is_file():
        return None
    result = RunResult.read(folder / RESULT_FILE)
    minutes = result.seconds_per_step * result.steps / 60
    score = f"{100 * result.last.get('mean_iou', math.nan):.2f}%{result.scope}"
    return f"mIoU {score}, {minutes:.1f} min of training"


def _scored(plan: Plan, run: Run, out: Path, config: ExperimentConfig, console: Console, crf: int = 0) -> Outcome:
    """The scores of a finished run's last checkpoint, alone or refined by so many iterations of a dense CRF."""
    folder = out / run.name / RUN_FOLDER
    options = EvaluateConfig(
        checkpoint=str(folder / CHECKPOINTS / LAST),
        device=config.device,
        crf=[crf] if crf else [],
    )
    root = _recipe(plan, run, out, config).get("data", {}).get("root")
    with alone(folder.with_name(CLAIM_FILE), console):
        return Outcome.of(run, folder, find_or_score(options, console, moved_to=root), refined=crf > 0)
