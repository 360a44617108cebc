"""Run what a plan asks for, and nothing twice: the folders of the runs are all the memory there is."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rmiseg.config import EvaluateConfig, ExperimentConfig
from rmiseg.engine.checkpoint import CHECKPOINTS, LAST
from rmiseg.engine.scoring import find_or_score
from rmiseg.engine.train import RESULT_FILE
from rmiseg.experiment.plan import Plan, Run, merged, read_plan
from rmiseg.experiment.report import Outcome, write_report
from rmiseg.files import replacing

RECIPE_FILE = "recipe.yaml"


def run_experiment(config: ExperimentConfig, console: Console) -> None:
    """Train and score every run of a plan, those that are finished excepted, and write the report.

    Raises:
        ValueError, FileNotFoundError: Anything wrong with the plan, found before the first run.
        OSError: A training run failed; those before it are kept.
    """
    plan, out = read_plan(Path(config.plan)), Path(config.out)
    everything = [run for method in plan.methods for swept in plan.sweep_runs(method) for run in plan.seed_runs(swept)]
    for run in everything:
        _write_recipe(plan, run, out, config)
    for run in everything:
        _check_recipe(out / run.name / RECIPE_FILE)

    total = sum(len(plan.sweep_runs(method)) + len(plan.seeds) - 1 for method in plan.methods)
    numbers = itertools.count(1)

    def outcome(run: Run) -> Outcome:
        return _outcome(run, out, config, console, f"{next(numbers)} of {total}")

    sweeps = {method: [outcome(run) for run in plan.sweep_runs(method)] for method in plan.methods}
    outcomes = {method: [max(found, key=lambda o: o.scores["mean_iou"])] for method, found in sweeps.items()}
    for seed in plan.seeds[1:]:  # all methods with one seed before the next: then what there is can be compared
        for method, found in outcomes.items():
            found.append(outcome(Run(method, found[0].run.swept, seed)))
    write_report(plan, sweeps, outcomes, out, console)


def _write_recipe(plan: Plan, run: Run, out: Path, config: ExperimentConfig) -> None:
    # A run that broke off goes on where it was.
    overrides: dict[str, Any] = {"out": str(out / run.name / "run"), "resume": "auto", "device": config.device}
    if config.root is not None:
        overrides["data"] = {"root": config.root}
    recipe = merged(plan.recipe(run), overrides)
    path = out / run.name / RECIPE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(recipe, sort_keys=False)
    if path.is_file() and path.read_text() != text and (path.parent / "run" / RESULT_FILE).is_file():
        raise ValueError(
            f"{path.parent} was trained with other options than the plan has now. Its recipe: {path}. Remove the "
            "folder to train it again, or choose another --out"
        )
    with replacing(path) as temporary:
        temporary.write_text(text)


def _check_recipe(path: Path) -> None:
    """See that the options exist, before hours are spent."""
    from rmiseg.cli import build_parser

    build_parser().parse_args(["train", "--recipe", str(path)])


def _outcome(run: Run, out: Path, config: ExperimentConfig, console: Console, count: str) -> Outcome:
    folder = out / run.name / "run"
    if not (folder / RESULT_FILE).is_file():
        console.rule(f"run {count}: {run.name}")
        status = _train(folder.parent / RECIPE_FILE)
        if status == 130:
            raise KeyboardInterrupt
        if status:
            raise OSError(f"run {run.name} failed (status {status}); start the experiment again to go on from here")
    saved = find_or_score(EvaluateConfig(str(folder / CHECKPOINTS / LAST), device=config.device), console)
    return Outcome.read(run, folder, saved)


def _train(recipe: Path) -> int:
    """Train in a process of its own, so that peak memory is its own; returns its exit status."""
    return subprocess.run([sys.executable, "-m", "rmiseg", "train", "--recipe", str(recipe)], check=False).returncode
