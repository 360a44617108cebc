"""An experiment: what a plan may say, which runs it means, that nothing is trained twice, and the tables."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from rmiseg.cli import main
from rmiseg.config import ExperimentConfig
from rmiseg.experiment import driver, trainings
from rmiseg.experiment.plan import EXAMPLE, Run, merged, read_plan, slug
from rmiseg.experiment.trainings import environment
from support.launch import Forked, popen, start_training

pytestmark = pytest.mark.slow


@pytest.fixture
def forked(monkeypatch):
    """Trainings in processes that need not import everything first."""
    monkeypatch.setattr(trainings, "_start", start_training)


BASE = {
    "data": {"crop_size": [48, 48], "batch_size": 4, "workers": 0},
    "model": {"name": "unet", "weights": "none"},
    "train": {"steps": 2, "panels": 0},
}
METHODS = {"CE": {"loss": {"name": "ce"}}, "RMI, pool 2": {"loss": {"name": "rmi", "rmi": {"pool_size": 2}}}}


def write_plan(folder: Path, **entries) -> Path:
    content = {"train": BASE, "methods": METHODS, "seeds": [0, 1], "sweep": {"optim.lr": [0.01, 0.02]}, **entries}
    path = folder / "plan.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)
    )
    return path


def nothing(titles: dict[Path, str], *options: object) -> None:
    """In place of `train_all` where all is trained."""
    assert not titles


def test_runs_of_a_plan(tmp_path):
    plan = read_plan(write_plan(tmp_path))
    assert plan.baseline == "CE"
    runs = plan.sweep_runs("RMI, pool 2")
    assert [run.name for run in runs] == ["rmi-pool-2/lr0.01-seed0", "rmi-pool-2/lr0.02-seed0"]
    assert [run.name for run in plan.seed_runs(runs[1])] == ["rmi-pool-2/lr0.02-seed0", "rmi-pool-2/lr0.02-seed1"]
    recipe = plan.recipe(Run("RMI, pool 2", (("optim.lr", 0.02),), 1))
    assert recipe == {
        **BASE,
        "loss": {"name": "rmi", "rmi": {"pool_size": 2}},
        "optim": {"lr": 0.02},
        "seed": 1,
    }
    alone = read_plan(write_plan(tmp_path, sweep=None, seeds=None))
    assert [run.name for run in alone.sweep_runs("CE")] == ["ce/seed0"]


def test_recipe_of_a_plan_is_found_beside_it(tmp_path):
    (tmp_path / "base.yaml").write_text("out: runs/x\ndata: {batch_size: 2, crop_size: [32, 32]}\n")
    plan = read_plan(write_plan(tmp_path, recipe="base.yaml"))
    assert plan.base["data"] == {"batch_size": 4, "crop_size": [48, 48], "workers": 0}
    plan = read_plan(write_plan(tmp_path, recipe="base.yaml", train=None))
    assert plan.base == {"data": {"batch_size": 2, "crop_size": [32, 32]}}


def test_merged_and_slug():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }
    assert slug("CE + CRF-10 (x)") == "ce-crf-10-x"


def test_example_is_a_plan(tmp_path):
    (tmp_path / "plan.yaml").write_text(EXAMPLE)
    (tmp_path / "my.yaml").write_text("model: {backbone: resnet18}")
    assert list(read_plan(tmp_path / "plan.yaml").methods) == ["CE", "RMI"]


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("experiments/*.yaml")), ids=lambda path: path.stem
)
def test_published_plans(path, tmp_path):
    plan = read_plan(path)
    runs = plan.all_runs()
    assert len({run.name for run in runs}) == len(set(runs))
    some = [run for run in runs if run.seed == plan.seeds[0]]  # the others have the same options
    experiment = driver.Experiment(ExperimentConfig(plan=str(path), out=str(tmp_path)), Console(quiet=True))
    experiment.check(some)  # every option exists


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"method": {}}, "unknown entry 'method'; valid: baseline, crf, datasets, methods"),
        ({"methods": []}, "`methods` must map"),
        ({"methods": {"a b": {}, "A-B": {}}}, "need names that differ"),
        ({"methods": {"a": 3}}, "the options of a must be a mapping"),
        ({"methods": {"a": {"seed": 3}}}, "seed of a is for the experiment to set"),
        ({"baseline": "BCE"}, "baseline 'BCE' is none of the methods CE, RMI, pool 2"),
        ({"seeds": 3}, "`seeds` must be a list"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"sweep": {"optim.lr": 0.1}}, "`sweep` must map"),
        ({"crf": {"CE": 5}}, "`crf` must map"),
        ({"crf": {"CE": [0]}}, "`crf` must map"),
        ({"crf": {"BCE": [1]}}, "`crf` names 'BCE', none of the methods CE, RMI, pool 2"),
        ({"published": {"CE + CRF-5": 1}}, "`published` names 'CE \\+ CRF-5', none of the rows CE, RMI, pool 2"),
        ({"published": {"CE": 781}}, "`published` gives CE 781, which is no percent"),
        ({"predict": {"split": "test"}}, "`predict` must have split, write and methods"),
        ({"predict": {"split": "test", "write": "voc", "methods": {"BCE": [0]}}}, "`predict` names 'BCE', none of"),
        ({"recipe": "nowhere.yaml"}, "nowhere.yaml does not exist"),
    ],
)
def test_plans_that_are_none(tmp_path, entries, message):
    path = write_plan(tmp_path, **entries)
    with pytest.raises(ValueError, match=message) as error:
        read_plan(path)
    assert str(path) in str(error.value)
    assert "An example:" in str(error.value)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, shapes):
    """A finished experiment, and the recipes that were trained for it."""
    folder = tmp_path_factory.mktemp("experiment")
    trained = []

    def train_all(titles: dict[Path, str], *options: object) -> None:
        for recipe, title in titles.items():
            options[-1](recipe)
            name = recipe.parent.relative_to(folder / "out").as_posix()
            assert title == f"run {len(trained) + 1} of 6: {name}"
            assert main(["train", "--recipe", str(recipe)]) == 0
            trained.append(name)

    with pytest.MonkeyPatch.context() as patch:  # a process for each takes its time; see test_trainings_at_a_time
        patch.setattr(driver, "train_all", train_all)
        plan = write_plan(folder, title="Shapes")
        arguments = ["experiment", str(plan), "--out", str(folder / "out"), "--root", str(shapes), "--device", "cpu"]
        assert main(arguments) == 0
    return folder, arguments, trained


def test_every_run_once(experiment, monkeypatch, capsys):
    folder, arguments, trained = experiment
    swept = {f"{method}/lr{lr}-seed0" for method in ("ce", "rmi-pool-2") for lr in (0.01, 0.02)}
    assert set(trained[:4]) == swept
    assert [name.split("/")[0] for name in trained[4:]] == ["ce", "rmi-pool-2"]
    assert all(name.endswith("seed1") for name in trained[4:])
    monkeypatch.setattr(driver, "train_all", nothing)
    before = (folder / "out" / "results.csv").read_bytes()
    assert main(arguments) == 0
    assert (folder / "out" / "results.csv").read_bytes() == before


def test_tables(experiment):
    folder, _, _ = experiment
    with open(folder / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        result = json.loads((Path(row["folder"]) / "result.json").read_text())
        assert float(row["mean_iou"]) == pytest.approx(result["last"]["mean_iou"], abs=1e-6)
    text = (folder / "out" / "results.md").read_text()
    best, chosen = {}, {}
    for method in METHODS:
        found = {
            row["optim.lr"]: float(row["mean_iou"]) for row in rows if row["method"] == method and row["seed"] == "0"
        }
        best[method] = max(found, key=found.get)
        values = [float(r["mean_iou"]) for r in rows if r["method"] == method and r["optim.lr"] == best[method]]
        assert f"| {method} | {50 * sum(values):.2f} ± " in text
        assert f"**{100 * found[best[method]]:.2f}**" in text
        chosen[method] = values
    first, second = (100 * (b - a) for a, b in zip(*chosen.values(), strict=True))
    less = text.split("## Less CE")[1].split("##")[0]
    assert f"| RMI, pool 2 | {(first + second) / 2:+.2f} ± {abs(first - second) / 2**0.5:.2f} (" in less
    assert (folder / "out" / "results.png").stat().st_size > 10_000


def test_every_method_is_timed(experiment):
    folder, _, _ = experiment
    seconds = json.loads((folder / "out" / "seconds.json").read_text())
    assert set(seconds) == set(METHODS)
    text = (folder / "out" / "results.md").read_text()
    ratio = seconds["RMI, pool 2"]["step"] / seconds["CE"]["step"]
    assert "| 1.00 x | " in text
    assert f"| {ratio:.2f} x | {1000 * seconds['RMI, pool 2']['image']:.0f} ms |" in text


def test_dense_crf(experiment, monkeypatch, tmp_path):
    pytest.importorskip("pydensecrf")
    folder, arguments, _ = experiment
    shutil.copytree(folder / "out", tmp_path / "out")
    plan = write_plan(tmp_path, crf={"CE": [1, 2]})
    monkeypatch.setattr(driver, "train_all", nothing)
    assert main(["experiment", str(plan), "--out", str(tmp_path / "out"), *arguments[4:]]) == 0
    rows = {line.split(" | ")[0].strip("| "): line for line in (tmp_path / "out/results.md").read_text().splitlines()}
    assert {"CE", "CE + CRF-1", "CE + CRF-2", "RMI, pool 2"} <= set(rows)
    with open(tmp_path / "out/results.csv", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["method"] == "CE + CRF-2"]
    assert [row["seed"] for row in found] == ["0", "1"]
    for row in found:
        saved = json.loads((Path(row["folder"]) / "evaluation/val-last-crf2/scores.json").read_text())
        assert float(row["mean_iou"]) == pytest.approx(saved["mean_iou"], abs=1e-6)
        assert float(row["crf_seconds"]) == pytest.approx(saved["seconds"]["crf"], abs=1e-6)
        assert float(row["crf_seconds"]) > 0


def test_dense_crf_that_is_not_installed(tmp_path, shapes, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setattr(driver, "train_all", nothing)
    plan = write_plan(tmp_path, crf={"CE": [1]})
    assert main(["experiment", str(plan), "--out", str(tmp_path / "out"), "--root", str(shapes)]) == 1
    assert "[crf]" in capsys.readouterr().err


def test_what_broke_off_goes_on(experiment, monkeypatch, tmp_path, shapes):
    folder, arguments, _ = experiment
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    lost = next(out.glob("rmi-pool-2/*-seed1"))
    shutil.rmtree(lost / "run")
    trained = []

    def train_all(titles: dict[Path, str], *options: object) -> None:
        for recipe in titles:
            options[-1](recipe)
            assert main(["train", "--recipe", str(recipe)]) == 0
            trained.append(recipe.parent)

    monkeypatch.setattr(driver, "train_all", train_all)
    arguments = [*arguments[:2], "--out", str(out), *arguments[4:]]
    assert main(arguments) == 0
    assert trained == [lost]


def test_changed_options_are_noticed(experiment, monkeypatch, capsys):
    folder, arguments, _ = experiment
    monkeypatch.setattr(driver, "train_all", nothing)
    changed = write_plan(folder, train={**BASE, "train": {"steps": 3}})
    assert main(arguments) == 1
    assert "was trained with other options than the plan has now" in capsys.readouterr().err
    write_plan(folder, title="Shapes")
    assert changed.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": {"naem": "rmi"}}, "loss.naem"),
        ({"loss": {"name": "dise"}}, "loss.name: dise is none of rmi, ce, bce, pyramid, affinity"),
        ({"train": {"val_every": 0}}, "train.val_every must be 1 or more"),
    ],
)
def test_bad_options_are_found_before_the_first_run(tmp_path, shapes, monkeypatch, capsys, options, message):
    monkeypatch.setattr(driver, "train_all", nothing)
    plan = write_plan(tmp_path, methods={"CE": {"loss": {"name": "ce"}}, "X": options}, sweep=None)
    assert main(["experiment", str(plan), "--out", str(tmp_path / "out"), "--root", str(shapes)]) == 1
    error = capsys.readouterr().err
    assert f"{plan}, x/seed0: " in error
    assert message in error


@pytest.mark.parametrize("jobs", [1, 2])
def test_failed_run(forked, tmp_path, shapes, capfd, jobs):
    broken = {"CE": {"loss": {"name": "ce"}, "init": "nowhere.safetensors"}}
    plan = write_plan(tmp_path, methods=broken, seeds=[0], sweep=None)
    arguments = ["experiment", str(plan), "--out", str(tmp_path / "out"), "--root", str(shapes), "--jobs", str(jobs)]
    assert main(arguments) == 1
    error = capfd.readouterr().err
    assert "run 1 of 1: ce/seed0: failed (status 1); start the experiment again" in error
    assert "nowhere.safetensors does not exist" in error  # the training's own words, from the terminal or from its log
    assert main([*arguments[:-1], "0"]) == 1
    assert "jobs must be at least 1, not 0" in capfd.readouterr().err


DIVERGING = {
    **BASE,
    "model": {"name": "deeplabv3plus", "backbone": "test_efficientnet", "weights": "none"},
    "train": {**BASE["train"], "steps": 6, "max_skipped": 2},
}


@pytest.mark.parametrize("jobs", [pytest.param("1", marks=pytest.mark.nightly), "2"])
def test_value_that_diverges_has_lost(forked, tmp_path, shapes, capfd, monkeypatch, jobs):
    plan = write_plan(tmp_path, train=DIVERGING, seeds=[0], sweep={"optim.lr": [0.01, 1000]})
    arguments = ["experiment", str(plan), "--out", str(tmp_path / "out"), "--root", str(shapes), "--jobs", jobs]
    assert main(arguments) == 0
    printed = capfd.readouterr()
    if jobs == "2":
        assert "run 2 of 4: ce/lr1000-seed0: diverged" in " ".join(printed.out.split())
    else:
        assert printed.err.count("the training has diverged") == 2
    text = (tmp_path / "out/results.md").read_text()
    sweep = text.split("## Sweep")[1]
    for method in METHODS:
        (line,) = (line for line in sweep.splitlines() if line.startswith(f"| {method} |"))
        assert line.startswith(f"| {method} | **")
        assert line.endswith("** | diverged |")
    monkeypatch.setattr(driver, "train_all", nothing)  # it is not tried again
    assert main(arguments) == 0
    assert (tmp_path / "out/results.md").read_text() == text


def test_all_values_diverge(forked, tmp_path, shapes, capfd):
    methods = {"CE": METHODS["CE"], "too fast": {"optim": {"lr": 1000}}}
    plan = write_plan(tmp_path, train=DIVERGING, methods=methods, seeds=[0], sweep=None)
    assert main(["experiment", str(plan), "--out", str(tmp_path / "out"), "--root", str(shapes)]) == 1
    assert "every run of too fast diverged" in capfd.readouterr().err


def test_seed_that_diverges(experiment, tmp_path, capsys, monkeypatch):
    folder, arguments, _ = experiment
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    (lost,) = out.glob("rmi-pool-2/*-seed1")
    (lost / "run/diverged.txt").write_text("the training has diverged")
    monkeypatch.setattr(driver, "train_all", nothing)
    assert main([*arguments[:2], "--out", str(out), *arguments[4:]]) == 1
    assert f"rmi-pool-2/{lost.name} diverged, unlike with seed 0" in capsys.readouterr().err


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("start", ["forked", pytest.param("alone", marks=pytest.mark.nightly)])
def test_trainings_at_a_time(tmp_path, shapes, monkeypatch, number, status, start):
    """Two at a time; what is asked to end, by a scheduler or by Ctrl-C, saves both.

    All three processes are forked, so that they need not import everything; or begin alone, as a user's.
    """
    plan = write_plan(tmp_path, train={**BASE, "train": {"steps": 100_000, "panels": 0}}, seeds=[0], sweep=None)
    out = tmp_path / "out"
    arguments = ["experiment", str(plan), "--out", str(out), "--root", str(shapes), "--jobs", "2", "--device", "cpu"]
    if start == "forked":
        monkeypatch.setattr(trainings, "subprocess", SimpleNamespace(Popen=popen, STDOUT=subprocess.STDOUT))
        process = Forked(arguments, group=True)
    else:
        process = subprocess.Popen([sys.executable, "-m", "rmiseg", *arguments], start_new_session=True)
    runs = [out / "ce/seed0", out / "rmi-pool-2/seed0"]
    try:
        deadline = time.monotonic() + 120
        while not all((run / "log.txt").is_file() and "epoch" in (run / "log.txt").read_text() for run in runs):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        assert process.wait(60) == status
        assert all(list((run / "run/checkpoints/resume").glob("step-*.pt")) for run in runs)
        with pytest.raises(ProcessLookupError):  # nobody of its process group is left
            os.killpg(process.pid, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_results_are_told_as_they_come(forked, tmp_path, shapes, capfd):
    plan = write_plan(tmp_path, seeds=[0], sweep=None)
    arguments = ["--out", str(tmp_path / "out"), "--root", str(shapes), "--device", "cpu", "--jobs", "2"]
    assert main(["experiment", str(plan), *arguments]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    for number, name in enumerate(("ce/seed0", "rmi-pool-2/seed0"), start=1):
        result = json.loads((tmp_path / "out" / name / "run/result.json").read_text())
        assert f"run {number} of 2: {name}: mIoU {100 * result['last']['mean_iou']:.2f}%, 0." in printed


def test_shares_of_the_machine(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment(0, 1, "auto") == {}
    assert [environment(slot, 3, "auto") for slot in range(3)] == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")
    ]
    assert environment(1, 16, "cpu") == {"OMP_NUM_THREADS": "1"}
    assert environment(1, 2, "cuda:1") == {"OMP_NUM_THREADS": "4"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(1, 2, "cuda") == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "7"}
