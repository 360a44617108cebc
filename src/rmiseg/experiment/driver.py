"""Run what a plan asks for, and nothing twice: the folders of the runs are all the memory there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rmiseg.config import CRFConfig, EvaluateConfig, ExperimentConfig, PredictConfig, TrainConfig
from rmiseg.config.effects import check_effects
from rmiseg.config.parser import train_config
from rmiseg.config.recipes import CONFIG_FILE, checked_names, merged, read_recipe
from rmiseg.evaluation.scoring import find_or_score
from rmiseg.experiment.partial import write_partial_report
from rmiseg.experiment.plan import Run, TestFiles, read_plan, slug
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
from rmiseg.training.stored_options import stored_options

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
    experiment = Experiment(config, console)
    experiment.check_places()
    experiment.check(experiment.plan.all_runs())
    for counts in experiment.plan.crf.values():
        DenseCRF(counts, CRFConfig())  # is it installed?
    experiment.run()


class Experiment:
    """A plan, and the folder of its runs.

    Args:
        config: The plan, the folder, and how to train.
        console: Where to show what is going on.

    Raises:
        ValueError, FileNotFoundError: The plan cannot be read.
    """

    def __init__(self, config: ExperimentConfig, console: Console) -> None:
        self.config, self.console = config, console
        self.plan, self.out = read_plan(Path(config.plan)), Path(config.out)

    def check_places(self) -> None:
        """See whether anything is in the way of what is written at the end, before hours are spent."""
        folders = {self.out, *(self.out / slug(dataset) for dataset in self.plan.datasets)}
        names = (ROWS_FILE, REPORT_FILE, PICTURE_FILE, SECONDS_FILE, REPORT_LOCK)
        runs = self.plan.all_runs()
        check_places([*folders, *map(self._folder, runs)], [folder / name for folder in folders for name in names])
        check_places(files=[self.out / run.name / name for run in runs for name in (RECIPE_FILE, CLAIM_FILE)])
        writable_folder(self.out)

    def check(self, runs: Sequence[Run]) -> None:
        """See that all options exist and do something, and that finished runs were trained with them."""
        for run in runs:
            recipe, known = self._recipe(run), self._recipe_file(run)
            try:
                config_now = complete(train_config(recipe))
                check_effects(config_now, [option for option, _ in run.swept])  # else runs would be the same
            except ValueError as error:
                raise ValueError(f"{self.config.plan}, {run.name}: {error}") from error
            if known.is_file() and (
                _training(read_recipe(known)) != _training(checked_names(recipe))
                or _warmed_otherwise(known, config_now)
            ):
                raise ValueError(
                    f"{known.parent} was trained with other options than the plan has now. Its recipe: {known}. Remove "
                    "the folder to train it again, or choose another --out"
                )

    def run(self) -> None:
        """Train, score and report; see `run_experiment`."""
        plan = self.plan
        sweep = [run for part in plan.parts().values() for method in plan.methods for run in part.sweep_runs(method)]
        total = len(sweep) + len(plan.methods) * len(plan.datasets) * (len(plan.seeds) - 1)
        sweeps: Table = {(dataset, method): [] for dataset in plan.datasets for method in plan.methods}
        for outcome in self._outcomes(sweep, 1, total):
            sweeps[outcome.run.dataset, outcome.run.method].append(outcome)
        if diverged := [_title(*cell) for cell, found in sweeps.items() if not found]:
            raise FloatingPointError(
                f"every run of {', '.join(diverged)} diverged; the plan should have them learn slower"
            )
        outcomes = {cell: [max(found, key=lambda o: o.scores["mean_iou"])] for cell, found in sweeps.items()}
        # All methods with one seed before the next: then what there is can be compared.
        repeats = [replace(found[0].run, seed=seed) for seed in plan.seeds[1:] for found in outcomes.values()]
        for outcome in self._outcomes(repeats, len(sweep) + 1, total):
            outcomes[outcome.run.dataset, outcome.run.method].append(outcome)
        if names := [run.name for run in repeats if self._diverged(run)]:
            raise FloatingPointError(
                f"{', '.join(names)} diverged, unlike with seed {plan.seeds[0]}; the plan should have "
                "them learn slower, and not sweep these values"
            )
        with alone(self.out / REPORT_LOCK, self.console):
            self._report(sweeps, outcomes)
        if plan.predict is not None:
            self._write_test_files(plan.predict, {method: found[0].folder for (_, method), found in outcomes.items()})

    def _outcomes(self, runs: Sequence[Run], first: int, total: int) -> list[Outcome]:
        """Train runs, of which the first has that number of `total`; the outcomes of those that did not diverge."""
        titles = {run: f"run {number} of {total}: {run.name}" for number, run in enumerate(runs, first)}
        recipes = {self._recipe_file(run): run for run in titles}
        for recipe in recipes:
            recipe.parent.mkdir(parents=True, exist_ok=True)
        missing = {recipe: titles[run] for recipe, run in recipes.items() if _result(recipe) is None}

        def write(recipe: Path) -> None:
            remove_leftovers(recipe.parent, [recipe.name])
            write_text(recipe, yaml.safe_dump(self._recipe(recipes[recipe]), sort_keys=False))

        report = partial(self.report_so_far, total)
        train_all(missing, self.config.jobs, self.config.device, self.console, _result, report, write)
        return [self._scored(run) for run in runs if not self._diverged(run)]

    def _recipe(self, run: Run) -> dict[str, Any]:
        """The recipe of a run, as nested options."""
        overrides: dict[str, Any] = {
            "out": str(self._folder(run)),
            "resume": "auto",  # a run that broke off goes on where it was
            "device": self.config.device,
        }
        if self.config.root is not None:
            own = self.plan.datasets[run.dataset].get("data", {}).get("root", "")
            overrides["data"] = {"root": str(Path(self.config.root) / own) if own else self.config.root}
        return merged(self.plan.recipe(run), overrides)

    def _folder(self, run: Run) -> Path:
        return self.out / run.name / RUN_FOLDER

    def _recipe_file(self, run: Run) -> Path:
        return self.out / run.name / RECIPE_FILE

    def _diverged(self, run: Run) -> bool:
        return (self._folder(run) / DIVERGED_FILE).is_file()

    def _scored(self, run: Run, crf: int = 0) -> Outcome:
        """The scores of a finished run's last checkpoint, alone or refined by so many iterations of a dense CRF."""
        folder = self._folder(run)
        options = EvaluateConfig(
            checkpoint=str(folder / CHECKPOINTS / LAST),
            device=self.config.device,
            crf=[crf] if crf else [],
        )
        root = self._recipe(run).get("data", {}).get("root")
        with alone(folder.with_name(CLAIM_FILE), self.console):
            return Outcome.of(run, folder, find_or_score(options, self.console, moved_to=root), refined=crf > 0)

    def report_so_far(self, total: int) -> None:
        """Write a report of the runs that are over, of other machines too."""
        results = {run.name: self._folder(run) / RESULT_FILE for run in self.plan.all_runs()}
        over = {name: path for name, path in results.items() if path.is_file()}
        write_partial_report(self.plan, self.out, total, over)

    def _report(self, sweeps: Table, outcomes: Table) -> None:
        """Write a report of each data set, and one over all of them if there are several."""
        results: dict[str, dict[str, list[Outcome]]] = {}
        for dataset, part in self.plan.parts().items():
            own = {method: outcomes[dataset, method] for method in self.plan.methods}
            folder = self.out / slug(dataset)
            recipes = {method: train_config(self._recipe_file(found[0].run)) for method, found in own.items()}
            seconds = find_or_time(recipes, folder / SECONDS_FILE, self.console)
            shown = results[dataset] = {}
            for method, found in own.items():
                shown[method] = found
                for count in self.plan.crf.get(method, ()):
                    shown[f"{method} + CRF-{count}"] = [self._scored(each.run, count) for each in found]
            swept = {method: sweeps[dataset, method] for method in own}
            write_report(part, swept, shown, seconds, folder, self.console)
        if len(results) > 1:
            write_summary(self.plan, results, self.out, self.console)

    def _write_test_files(self, files: TestFiles, folders: dict[str, Path]) -> None:
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
                    root=self.config.root,
                    out=str(out),
                    write=[files.write],
                    crf=[count] if count else [],
                    overwrite=True,
                    device=self.config.device,
                )
                try:
                    predict_files(options, self.console)
                except (ValueError, OSError) as error:  # such as a split that must be fetched apart
                    self.console.print(f"warning: no files for the test server of {title}: {error}", markup=False)
                    continue
                remove_leftovers(mark.parent, [mark.name])
                write_text(mark, sign)


def _title(dataset: str, method: str) -> str:
    return f"{method} on {dataset}" if dataset else method


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
