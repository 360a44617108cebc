"""A plan over several data sets: one report each and one over all, also from two machines that share the folder."""

from __future__ import annotations

import csv
import json
import statistics
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from miniatures import write_shapes
from rmiseg.cli import main
from rmiseg.config import ExperimentConfig
from rmiseg.config.parser import train_config
from rmiseg.experiment import driver, trainings
from rmiseg.experiment.plan import read_plan
from rmiseg.experiment.report import Difference
from rmiseg.experiment.summary import average, mean_ranks
from rmiseg.experiment.trainings import alone, train_all
from rmiseg.runtime.files import locked

BASE = {
    "data": {"crop_size": [32, 32], "batch_size": 2, "workers": 0},
    "model": {"name": "unet", "weights": "none"},
    "train": {"steps": 1, "panels": 0, "loggers": []},
}
METHODS = {"CE": {"loss": {"name": "ce"}}, "RMI": {"loss": {"name": "rmi", "rmi": {"pool_size": 2}}}}
DATASETS = {"first": {"data": {"root": "a"}}, "Second one": {"data": {"root": "b"}, "train": {"steps": 2}}}


def write_plan(folder: Path, **entries) -> Path:
    content = {"train": BASE, "datasets": DATASETS, "methods": METHODS, "seeds": [0, 1], **entries}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_runs_and_recipes(tmp_path):
    plan = read_plan(write_plan(tmp_path, sweep={"optim.lr": [0.1, 0.2]}))
    assert list(plan.parts()) == ["first", "Second one"]
    names = [run.name for run in plan.all_runs()]
    assert len(set(names)) == 2 * 2 * 2 * 2
    assert names[0] == "first/ce/lr0.1-seed0"
    run = plan.parts()["Second one"].sweep_runs("RMI")[1]
    assert run.name == "second-one/rmi/lr0.2-seed0"
    recipe = plan.recipe(run)
    assert (recipe["train"]["steps"], recipe["data"]["root"], recipe["loss"]["name"]) == (2, "b", "rmi")


def test_a_sweep_over_what_does_nothing_in_a_method_is_refused(tmp_path, capsys):
    plan = write_plan(tmp_path, sweep={"loss.rmi.pool_size": [2, 4]})
    assert main(["experiment", str(plan), "--out", str(tmp_path / "out")]) == 1
    said = f"{plan}, first/ce/pool_size2-seed0: loss.rmi.pool_size has no effect, since loss.name is ce"
    assert said in capsys.readouterr().err


def test_recipe_of_a_data_set(tmp_path):
    """Over what is common, and under what the data set and the method say besides."""
    own = {"out": "runs/own", "train": {"steps": 7}, "data": {"batch_size": 3, "flip": 0.0}, "loss": {"name": "bce"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    datasets = {**DATASETS, "third": {"recipe": "own.yaml", "data": {"root": "c", "batch_size": 4}}}
    plan = read_plan(write_plan(tmp_path, datasets=datasets))
    steps = {name: plan.recipe(part.sweep_runs("CE")[0])["train"]["steps"] for name, part in plan.parts().items()}
    assert steps == {"first": 1, "Second one": 2, "third": 7}
    recipe = plan.recipe(plan.parts()["third"].sweep_runs("CE")[0])
    assert recipe["data"] == {"crop_size": [32, 32], "batch_size": 4, "workers": 0, "flip": 0.0, "root": "c"}
    assert recipe["loss"] == {"name": "ce"}
    assert "out" not in recipe


def test_the_best_recipes():
    """Each as it is but for the loss; the other loss has no option that is of no use to it."""
    path = Path(__file__).parents[2] / "experiments" / "best.yaml"
    plan = read_plan(path)
    assert len(plan.all_runs()) == 5 * 3 * 3
    for run in plan.all_runs():
        recipe = train_config(plan.recipe(run))
        best = train_config(str(path.parents[1] / "recipes" / f"{run.dataset.lower()}-best.yaml"))
        assert (recipe.model, recipe.optim, recipe.train.steps) == (best.model, best.optim, best.train.steps)
        assert recipe.data == replace(best.data, root=run.dataset)
        assert recipe.loss.plus == {"dice": 1.0}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"datasets": []}, "`datasets` must map"),
        ({"datasets": {"a": {"recipe": 3}}}, "`recipe` must be the name of a recipe, not 3"),
        ({"datasets": {"a": {"recipe": "none.yaml"}}}, "none.yaml"),
        ({"datasets": {"a b": {}, "A-B": {}}}, "the datasets a b, A-B need names that differ"),
        ({"datasets": {"a": {"seed": 1}}}, "seed of a is for the experiment to set"),
        ({"published": {"CE": 70}}, "`published` is for a plan of a single data set"),
    ],
)
def test_plans_that_are_none(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        read_plan(write_plan(tmp_path, **entries))


def test_report_of_what_is_over_so_far(tmp_path):
    plan = write_plan(tmp_path, title="Mine", sweep={"optim.lr": [0.1, 0.2]})
    scores = {"mean_iou": 0.5, "boundary_mean_iou": 0.4, "trimap_3_mean_iou": 0.3, "pixel_accuracy": 0.9}
    for seed, value in enumerate((0.5, 0.6)):
        file = tmp_path / f"first/ce/lr0.1-seed{seed}/run/result.json"
        file.parent.mkdir(parents=True)
        found = {**scores, "mean_iou": value}
        file.write_text(
            json.dumps({"last": found, "best": found, "steps": 1, "peak_memory": 0, "seconds_per_step": 1.0})
        )
    driver.Experiment(ExperimentConfig(plan=str(plan), out=str(tmp_path)), Console(quiet=True)).report_so_far(12)
    text = (tmp_path / "results.md").read_text()
    assert "**Not finished: 2 of 12 runs are over, 10 are missing.**" in text
    assert "| CE, optim.lr 0.1 | 2 | 55.00 ± 7.07 | 40.00 ± 0.00 | 30.00 ± 0.00 | 90.00 ± 0.00 |" in text
    assert text.endswith("## Second one\n\nNo run is over.\n\n")


def test_ranks():
    ranks = mean_ranks({"a": [0.5, 0.7], "b": [0.5, 0.9], "c": [0.4, float("nan")]})
    assert ranks == {"a": (1.5 + 2) / 2, "b": (1.5 + 1) / 2, "c": 3}


def test_average_over_data_sets():
    first = Difference([0.1, 0.3], np.array([0.0, 0.2, 0.4]))
    second = Difference([0.3, 0.3], np.array([0.2, 0.2, 0.2]))
    mean = average([first, second])
    assert mean.by_seed == pytest.approx([0.2, 0.3])
    assert (mean.low, mean.high) == pytest.approx((0.1 + 0.2 * 0.025, 0.3 - 0.2 * 0.025))


@pytest.mark.slow
def test_from_end_to_end(tmp_path, monkeypatch, capsys):
    for seed, name in enumerate("ab"):
        write_shapes(tmp_path / "data" / name, count=8, seed=seed)
    trained = []

    def train(titles: dict[Path, str], *options: object) -> None:
        for recipe in titles:
            options[-1](recipe)
            assert main(["train", str(recipe)]) == 0
            trained.append(recipe.parent)

    monkeypatch.setattr(driver, "train_all", train)
    out = tmp_path / "out"
    arguments = ["experiment", str(write_plan(tmp_path)), "--root", str(tmp_path / "data"), "--out", str(out)]
    assert main([*arguments, "--device", "cpu"]) == 0, capsys.readouterr().err
    assert len(trained) == 8
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["method"], row["seed"]) for row in rows[:3]] == [
        *(("first", "CE", "0"), ("first", "CE", "1"), ("first", "RMI", "0"))
    ]
    assert len(rows) == 8
    text = (out / "results.md").read_text()
    means = {}
    for method in METHODS:
        values = [[float(r["mean_iou"]) for r in rows if (r["dataset"], r["method"]) == (d, method)] for d in DATASETS]
        means[method] = statistics.fmean(map(statistics.fmean, values))
        assert f" | {100 * means[method]:.2f} | " in text.split("## mIoU")[1].split("##")[0]
    difference = 100 * (means["RMI"] - means["CE"])
    assert f" | {difference:+.2f} ± " in text.split("## Less CE")[1]
    for each in ("first", "second-one"):
        assert (out / each / "results.md").is_file()
        assert (out / each / "seconds.json").is_file()
    assert (out / "results.png").stat().st_size > 10_000
    monkeypatch.setattr(driver, "train_all", lambda titles, *_: pytest.fail("trained again") if titles else None)
    assert main([*arguments, "--device", "cpu"]) == 0


def test_recipes_that_another_machine_trains_are_left_to_it(tmp_path, monkeypatch):
    """They come last; when the other is done with one, its result is taken; when it gives one up, it is trained."""
    monkeypatch.setattr(trainings, "CLAIM_SECONDS", 0.05)
    monkeypatch.setattr(trainings, "POLL_SECONDS", 0.01)
    recipes = {tmp_path / name / "recipe.yaml": name for name in ("done", "given up", "free")}
    for recipe in recipes:
        recipe.parent.mkdir()
    started, held = [], {"done", "given up"}

    class Ended:
        returncode = 0

        def poll(self) -> int:
            return 0

        def wait(self) -> int:
            return 0

        def terminate(self) -> None:
            pass

    def start(recipe: Path, *_: object) -> Ended:
        started.append(recipe.parent.name)
        recipe.with_name("result").write_text("")
        if started == ["free"]:
            recipe.parents[1].joinpath("done", "result").write_text("")
            held.clear()
        return Ended()

    def claimed(path: Path):
        if path.parent.name in held:
            raise BlockingIOError("in use")
        return locked(path)

    def result(recipe: Path) -> str | None:
        return "done" if recipe.with_name("result").exists() else None

    monkeypatch.setattr(trainings, "_start", start)
    monkeypatch.setattr(trainings, "locked", claimed)
    written, reports = [], []
    train_all(recipes, 1, "cpu", Console(quiet=True), result, lambda: reports.append(len(started)), written.append)
    assert reports == [1, 2]
    assert started == ["free", "given up"]
    assert [recipe.parent.name for recipe in written] == started


def test_one_machine_at_a_time_writes_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "CLAIM_SECONDS", 0.01)
    free = threading.Event()

    def claimed(path: Path):
        if not free.wait(0.05):
            free.set()
            raise BlockingIOError("out is in use by process 7 on another")
        return locked(path)

    monkeypatch.setattr(trainings, "locked", claimed)
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    with alone(tmp_path / "out" / ".report", console):
        assert free.is_set()
    assert "waiting: out is in use by process 7 on another" in console.export_text()
