"""The plan of an experiment: read from a YAML file, checked before anything is trained."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rmiseg.config.commands import PREDICTION_FORMATS
from rmiseg.config.ranges import COMMAND_RANGES
from rmiseg.config.recipes import is_file, merged, nested, read_recipe, read_yaml, shortened

KEYS = {"title", "recipe", "train", "datasets", "methods", "baseline", "seeds", "sweep", "crf", "published", "predict"}

FIXED = {"out", "seed"}
"""Options that the experiment sets."""

MOST_ITERATIONS = int(COMMAND_RANGES["crf"][1])
"""Iterations of a dense CRF, as for the commands."""

MOST_RUNS = 1000
"""Runs of a plan beyond which it is a slip of the keyboard."""

EXAMPLE = """
title: my data, cross entropy and RMI
recipe: my.yaml         # what every run has in common, relative to this file
train:                  # and more of that, as in a recipe
  data: {root: my/data, crop_size: [256, 256]}
  train: {steps: 2000}
#datasets:              # several data sets, and what each needs; data.root of one is relative to --root
#  cracks: {recipe: cracks.yaml, data: {root: cracks}}
#  nuclei: {data: {root: nuclei}, train: {steps: 4000}}
methods:                # what each does differently
  CE: {loss: {name: ce}}
  RMI: {loss: {name: rmi}}
baseline: CE            # what the others are compared with
seeds: [0, 1, 2]
sweep:                  # tried by every method with the first seed; the value with the best mIoU goes on
  optim.lr: [0.005, 0.01, 0.02]
crf:                    # methods that are also scored with a dense CRF, and with how many iterations
  CE: [1, 10]
published:              # mIoU in percent that somebody else reports, to be shown beside
  RMI: 78.71
  CE + CRF-10: 78.28
predict:                # files that a test server takes, of methods with so many iterations of a dense CRF; 0 for none
  split: test
  write: voc
  methods: {CE: [0, 10], RMI: [0]}
"""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        method: Name of the method.
        swept: The values of the options that are swept.
        seed: The seed.
        dataset: Name of the data set; empty if the plan has but one.
    """

    method: str
    swept: tuple[tuple[str, Any], ...]
    seed: int
    dataset: str = ""

    @property
    def name(self) -> str:
        """Path of its folder below that of the experiment."""
        values = [f"{option.rpartition('.')[2]}{_in_name(value)}" for option, value in self.swept]
        own = f"{slug(self.method)}/{'-'.join([*values, f'seed{self.seed}'])}"
        return f"{slug(self.dataset)}/{own}" if self.dataset else own


@dataclass(frozen=True)
class TestFiles:
    """Predictions to write, for a server that scores them.

    Attributes:
        split: The split to predict.
        write: Format, as for `rmiseg predict`.
        methods: Numbers of iterations of a dense CRF by method; 0 for none.
    """

    split: str
    write: str
    methods: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        title: Headline of the report.
        base: Nested options of every run.
        datasets: Nested options of each data set, by its name; a single one without a name where the plan names none.
        methods: Nested options of each method, by its name.
        baseline: The method that others are compared with.
        seeds: Seeds of the runs; sweeps use the first.
        sweep: Values to try of some options, by their dotted names.
        crf: Numbers of iterations of a dense CRF to score some methods with, besides without.
        published: Mean IoU in percent by row of the report, as somebody else reports it.
        predict: Files for a test server; None for none.
    """

    title: str
    base: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: tuple[int, ...]
    sweep: Mapping[str, tuple[Any, ...]]
    crf: Mapping[str, tuple[int, ...]]
    published: Mapping[str, float]
    predict: TestFiles | None

    @property
    def rows(self) -> dict[str, tuple[str, int]]:
        """Method and number of CRF iterations of each row of the report, by its title."""
        return {
            f"{method} + CRF-{count}" if count else method: (method, count)
            for method in self.methods
            for count in (0, *self.crf.get(method, ()))
        }

    def parts(self) -> dict[str, Plan]:
        """The same plan for each data set alone, by its name."""
        several = len(self.datasets) > 1
        return {
            name: replace(self, datasets={name: options}, title=f"{self.title}: {name}" if several else self.title)
            for name, options in self.datasets.items()
        }

    def all_runs(self) -> list[Run]:
        """Every run that may come to be trained, whatever a sweep decides."""
        return [
            run
            for part in self.parts().values()
            for method in self.methods
            for swept in part.sweep_runs(method)
            for run in part.seed_runs(swept)
        ]

    def sweep_runs(self, method: str) -> list[Run]:
        """The runs among which the best values of a method are chosen, on each data set."""
        values = list(product(*self.sweep.values()))
        return [
            Run(method, tuple(zip(self.sweep, combination)), self.seeds[0], dataset)
            for dataset in self.datasets
            for combination in values
        ]

    def seed_runs(self, chosen: Run) -> list[Run]:
        """The chosen run with every seed."""
        return [replace(chosen, seed=seed) for seed in self.seeds]

    def recipe(self, run: Run) -> dict[str, Any]:
        """The options of a run, nested as in a recipe."""
        options = merged(merged(self.base, self.datasets[run.dataset]), self.methods[run.method])
        for option, value in run.swept:
            options = merged(options, nested(option, value))
        return merged(options, {"seed": run.seed})


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not YAML, or says something that is not allowed; the message shows an example.
    """
    if not is_file(path):
        raise FileNotFoundError(f"plan {shortened(str(path))} does not exist. An example:\n{EXAMPLE}")
    try:
        return _parse(read_yaml(path), path.parent)
    except (ValueError, FileNotFoundError) as error:
        named = "" if str(error).startswith(f"{path}: ") else f"{path}: "
        raise ValueError(f"{named}{shortened(str(error), 600)}\nAn example:\n{EXAMPLE}") from error


def _parse(content: Any, folder: Path) -> Plan:
    if not isinstance(content, dict) or (unknown := set(content) - KEYS):
        what = f"unknown entry {', '.join(map(repr, unknown))}" if isinstance(content, dict) else "it is no mapping"
        raise ValueError(f"{what}; valid: {', '.join(sorted(KEYS))}")
    methods, datasets = _methods(content), _datasets(content, folder)
    for what, names in (("methods", methods), ("datasets", datasets)):
        slugs = [slug(name) for name in names]
        if len(set(slugs)) < len(slugs) or (not all(slugs) and names != {"": {}}):
            raise ValueError(f"the {what} {', '.join(names)} need names that differ in letters or digits")
    baseline = content.get("baseline", next(iter(methods)))
    if not isinstance(baseline, str) or baseline not in methods:
        raise ValueError(f"baseline {shortened(repr(baseline))} is none of the methods {', '.join(methods)}")
    seeds = _seeds(content)
    plan = Plan(
        title=str(content.get("title", "Experiment")),
        datasets=datasets,
        methods=methods,
        baseline=baseline,
        seeds=seeds,
        sweep=_sweep(content.get("sweep") or {}, len(datasets) * len(methods) * len(seeds)),
        crf=_iterations(content.get("crf") or {}, methods),
        base=_with_recipe("train", content.get("train") or {}, content, folder),
        published=content.get("published") or {},
        predict=_test_files(content.get("predict"), methods),
    )
    for name, options in methods.items():
        _check_options(name, options)
    _check_published(plan)
    folders = [run.name for run in plan.all_runs()]
    if len(set(folders)) < len(folders):
        twice = next(name for name in folders if folders.count(name) > 1)
        raise ValueError(f"several runs would be {twice}: is a value given twice in `sweep`?")
    return plan


def _methods(content: Mapping[str, Any]) -> dict[str, Any]:
    """The methods of a plan."""
    methods = content.get("methods")
    if not isinstance(methods, dict) or not methods:
        raise ValueError("`methods` must map the name of each method to its options")
    return {str(name): options or {} for name, options in methods.items()}


def _seeds(content: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = content.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"`seeds` must be a list of whole numbers, not {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"a seed is given twice in {seeds}")
    return tuple(seeds)


def _with_recipe(name: str, options: Any, content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options, over those of the recipe that `content` names, if it does."""
    _check_options(name, options)
    if "recipe" not in content:
        return dict(options)
    recipe = content["recipe"]
    if not isinstance(recipe, str):
        raise ValueError(f"`recipe` must be the name of a recipe, not {shortened(repr(recipe))}")
    common = {key: value for key, value in read_recipe(folder / recipe).items() if key not in FIXED}
    return merged(common, options)


def _check_options(name: str, options: Any) -> None:
    if not isinstance(options, dict):
        raise ValueError(f"the options of {name} must be a mapping, as in a recipe, not {options!r}")
    if fixed := FIXED & set(options):
        raise ValueError(f"{', '.join(fixed)} of {name} is for the experiment to set; leave it out")


def _sweep(sweep: Any, others: int) -> dict[str, tuple[Any, ...]]:
    """The values to try of options, of a plan that has so many runs without them."""
    if not isinstance(sweep, dict) or not all(
        isinstance(name, str) and isinstance(values, list) and values for name, values in sweep.items()
    ):
        raise ValueError("`sweep` must map names of options, such as optim.lr, to lists of values")
    if fixed := FIXED & set(sweep):
        raise ValueError(f"`sweep` cannot vary {min(fixed)}, which is for the experiment to set")
    runs = others * math.prod(map(len, sweep.values()))
    if runs > MOST_RUNS:
        raise ValueError(f"it is a plan of {runs} runs, and may be one of {MOST_RUNS}")
    return {name: tuple(values) for name, values in sweep.items()}


def _iterations(crf: Any, methods: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Numbers of iterations of a dense CRF, by method."""
    if not isinstance(crf, dict) or not all(
        isinstance(counts, list) and all(type(count) is int and 0 < count <= MOST_ITERATIONS for count in counts)
        for counts in crf.values()
    ):
        raise ValueError(
            f"`crf` must map names of methods to lists of numbers of iterations, each at most {MOST_ITERATIONS}"
        )
    if unknown := set(crf) - set(methods):
        raise ValueError(f"`crf` names {', '.join(map(repr, unknown))}, none of the methods {', '.join(methods)}")
    return {name: tuple(counts) for name, counts in crf.items()}


def _datasets(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The options of the data sets of a plan, with those of their recipes."""
    if "datasets" not in content:
        return {"": {}}
    datasets = content["datasets"]
    if not isinstance(datasets, dict) or not datasets:
        raise ValueError("`datasets` must map the name of each data set to the options that it needs")
    if unfit := {"published", "predict"} & set(content):
        raise ValueError(f"`{', '.join(sorted(unfit))}` is for a plan of a single data set; leave out `datasets`")
    found = {}
    for name, entry in datasets.items():
        _check_options(str(name), entry or {})
        options = {key: value for key, value in (entry or {}).items() if key != "recipe"}
        found[str(name)] = _with_recipe(str(name), options, entry or {}, folder)
    return found


def _check_published(plan: Plan) -> None:
    if not isinstance(plan.published, dict):
        raise ValueError(f"`published` must map rows of the report to percents, not {plan.published!r}")
    for row, value in plan.published.items():
        if row not in plan.rows:
            raise ValueError(f"`published` names {row!r}, none of the rows {', '.join(plan.rows)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise ValueError(f"`published` gives {row} {value!r}, which is no percent")


def _test_files(content: Any, methods: Mapping[str, Any]) -> TestFiles | None:
    if content is None:
        return None
    known = {"split", "write", "methods"}
    if not isinstance(content, dict) or set(content) != known or not isinstance(content["methods"], dict):
        raise ValueError(f"`predict` must have split, write and methods, not {content!r}")
    if content["write"] not in PREDICTION_FORMATS:
        raise ValueError(f"`predict` must write one of {', '.join(PREDICTION_FORMATS)}, not {content['write']!r}")
    if not re.fullmatch(r"[\w.-]*\w", str(content["split"])):
        raise ValueError(f"`predict` names {content['split']!r}, which is no split")
    for method, counts in content["methods"].items():
        if method not in methods:
            raise ValueError(f"`predict` names {method!r}, none of the methods {', '.join(methods)}")
        if not isinstance(counts, list) or not all(
            type(count) is int and 0 <= count <= MOST_ITERATIONS for count in counts
        ):
            raise ValueError(f"`predict` must give {method} a list of numbers of iterations, not {counts!r}")
    chosen = {method: tuple(counts) for method, counts in content["methods"].items()}
    return TestFiles(str(content["split"]), str(content["write"]), chosen)


def _in_name(value: Any) -> str:
    """A swept value as a part of the name of a folder, which it must not lead out of."""
    text = str(value)
    if re.fullmatch(r"[\w.,+\-\[\] ]{1,60}", text):
        return text
    return f"{slug(text)[:40]}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def slug(name: str) -> str:
    """A name for folders: lower case letters and digits, and dashes between them."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
