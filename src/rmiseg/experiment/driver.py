"""Run what a plan asks for, and nothing twice: the folders of the runs are all the memory there is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rmiseg.config import CRFConfig, EvaluateConfig, ExperimentConfig, PredictConfig, TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.config.recipes import checked_names, merged, read_recipe
from rmiseg.evaluation.scoring import find_or_score
from rmiseg.experiment.plan import Plan, Run, TestFiles, read_plan
from rmiseg.experiment.report import Outcome, write_report
from rmiseg.experiment.timing import find_or_time
from rmiseg.experiment.trainings import train_all
from rmiseg.inference.checkpoint import CHECKPOINTS, LAST, digest
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.predict import predict_files
from rmiseg.runtime.files import replacing
from rmiseg.training.assembly import complete
from rmiseg.training.run_folder import CONFIG_FILE, DIVERGED_FILE, RESULT_FILE, stored_options

RECIPE_FILE, RUN_FOLDER, SECONDS_FILE = "recipe.yaml", "run", "seconds.json"


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
    everything = [run for method in plan.methods for swept in plan.sweep_runs(method) for run in plan.seed_runs(swept)]
    _check(plan, everything, out, config)
    for counts in plan.crf.values():
        DenseCRF(counts, CRFConfig())  # is it installed?
    sweep = [run for method in plan.methods for run in plan.sweep_runs(method)]
    total = len(sweep) + len(plan.methods) * (len(plan.seeds) - 1)

    def outcomes_of(runs: Sequence[Run], first: int) -> list[Outcome]:
        titles = {run: f"run {number} of {total}: {run.name}" for number, run in enumerate(runs, first)}
        missing = {run: title for run, title in titles.items() if _result(out / run.name / RECIPE_FILE) is None}
        recipes = {_write_recipe(plan, run, out, config): title for run, title in missing.items()}
        train_all(recipes, config.jobs, config.device, console, _result)
        return [_scored(run, out, config, console) for run in runs if not _diverged(run, out)]

    sweeps: dict[str, list[Outcome]] = {method: [] for method in plan.methods}
    for outcome in outcomes_of(sweep, 1):
        sweeps[outcome.run.method].append(outcome)
    if diverged := [method for method, found in sweeps.items() if not found]:
        raise FloatingPointError(f"every run of {', '.join(diverged)} diverged; the plan should have them learn slower")
    outcomes = {method: [max(found, key=lambda o: o.scores["mean_iou"])] for method, found in sweeps.items()}
    # All methods with one seed before the next: then what there is can be compared.
    repeats = [Run(method, found[0].run.swept, seed) for seed in plan.seeds[1:] for method, found in outcomes.items()]
    for outcome in outcomes_of(repeats, len(sweep) + 1):
        outcomes[outcome.run.method].append(outcome)
    if names := [run.name for run in repeats if _diverged(run, out)]:
        raise FloatingPointError(
            f"{', '.join(names)} diverged, unlike with seed {plan.seeds[0]}; the plan should have "
            "them learn slower, and not sweep these values"
        )
    recipes = {method: train_config(out / found[0].run.name / RECIPE_FILE) for method, found in outcomes.items()}
    seconds = find_or_time(recipes, out / SECONDS_FILE, console)
    shown: dict[str, list[Outcome]] = {}
    for method, found in outcomes.items():
        shown[method] = found
        for count in plan.crf.get(method, ()):
            shown[f"{method} + CRF-{count}"] = [_scored(each.run, out, config, console, count) for each in found]
    write_report(plan, sweeps, shown, seconds, out, console)
    if plan.predict is not None:
        _write_test_files(
            plan.predict, {method: found[0].folder for method, found in outcomes.items()}, config, console
        )


def _write_test_files(files: TestFiles, folders: dict[str, Path], config: ExperimentConfig, console: Console) -> None:
    """Write the predictions that a test server takes, once, beside the run with the first seed."""
    for method, counts in files.methods.items():
        checkpoint = folders[method] / CHECKPOINTS / LAST
        for count in counts:
            title = f"{method} + CRF-{count}" if count else method
            out = folders[method].parent / f"{files.split}{f'-crf{count}' if count else ''}"
            mark, sign = out.with_name(f"{out.name}.complete"), digest(checkpoint)
            if mark.is_file() and mark.read_text() == sign:
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
            with replacing(mark) as temporary:
                temporary.write_text(sign)


def _recipe(plan: Plan, run: Run, out: Path, config: ExperimentConfig) -> dict[str, Any]:
    """The recipe of a run, as nested options."""
    # A run that broke off goes on where it was.
    overrides: dict[str, Any] = {"out": str(out / run.name / RUN_FOLDER), "resume": "auto", "device": config.device}
    if config.root is not None:
        overrides["data"] = {"root": config.root}
    return merged(plan.recipe(run), overrides)


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
    """Tell whether a run has other rates than its recipe gives now: the meaning of a recipe was once another."""
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


def _write_recipe(plan: Plan, run: Run, out: Path, config: ExperimentConfig) -> Path:
    recipe = out / run.name / RECIPE_FILE
    recipe.parent.mkdir(parents=True, exist_ok=True)
    with replacing(recipe) as temporary:
        temporary.write_text(yaml.safe_dump(_recipe(plan, run, out, config), sort_keys=False))
    return recipe


def _diverged(run: Run, out: Path) -> bool:
    return (out / run.name / RUN_FOLDER / DIVERGED_FILE).is_file()


def _result(recipe: Path) -> str | None:
    """The outcome of a run, in a line; None if it is not over."""
    folder = recipe.parent / RUN_FOLDER
    if (folder / DIVERGED_FILE).is_file():
        return "diverged"
    if not (folder / RESULT_FILE).is_file():
        return None
    result = json.loads((folder / RESULT_FILE).read_text())
    minutes = result["seconds_per_step"] * result["steps"] / 60
    return f"mIoU {100 * result['last']['mean_iou']:.2f}%, {minutes:.1f} min of training"


def _scored(run: Run, out: Path, config: ExperimentConfig, console: Console, crf: int = 0) -> Outcome:
    """The scores of a finished run's last checkpoint, alone or refined by so many iterations of a dense CRF."""
    folder = out / run.name / RUN_FOLDER
    checkpoint = str(folder / CHECKPOINTS / LAST)
    options = EvaluateConfig(checkpoint=checkpoint, device=config.device, crf=[crf] if crf else [])
    return Outcome.of(run, folder, find_or_score(options, console), refined=crf > 0)
