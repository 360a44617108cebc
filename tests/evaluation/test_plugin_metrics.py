"""Metrics that somebody else registers: counted, scored, saved, compared like the package's own."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from miniatures import write_shapes
from rmiseg.config import DataConfig, EvaluateConfig, ReportConfig, registry
from rmiseg.config.registry import register
from rmiseg.data import load_split
from rmiseg.evaluation.bootstrap import resampled_scores
from rmiseg.evaluation.compare import compare_evaluations, print_comparison
from rmiseg.evaluation.metrics import IoU, load_metrics
from rmiseg.evaluation.results import load_evaluation
from rmiseg.evaluation.scoring import evaluate, find_or_score, print_scores, score_checkpoint
from rmiseg.reports.page import write_report
from support.checkpoints import save_untrained
from support.plugins import forget_plugins

QUIET = Console(quiet=True)


class CountError:
    """Difference of the numbers of pixels of each class, over those of the truth: counts of another shape and type."""

    def count(self, prediction, target, num_classes):
        valid = target < num_classes
        true, predicted = (np.bincount(ids[valid], minlength=num_classes)[:num_classes] for ids in (target, prediction))
        return np.stack([abs(true - predicted), true + predicted]).astype(np.float64)

    def scores(self, counts):
        off, pixels = counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1)
        with np.errstate(invalid="ignore"):
            return {"agreement": 1 - off / pixels, "half_agreement": 0.5 - 0.5 * off / pixels}


@pytest.fixture
def metric():
    register("metric", "agreement")(CountError)
    yield "agreement"
    forget_plugins()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    root = write_shapes(folder / "data")
    classes, data = load_split("folder", root, "val").classes, DataConfig(root=str(root), workers=0)
    for seed in (0, 1):
        save_untrained(folder / f"run{seed}" / "checkpoints" / "best.pt", classes, data=data, seed=seed)
    return folder / "run0", folder / "run1"


def test_a_metric_from_counting_to_comparing(metric, runs, tmp_path):
    names = ["agreement", "half_agreement"]
    a, b = (
        score_checkpoint(
            EvaluateConfig(checkpoint=str(run), metrics=[metric], device="cpu", out=str(tmp_path / run.name)), QUIET
        )[0]
        for run in runs
    )
    again = load_evaluation(a.folder)
    assert again.evaluation.counts[metric].dtype == np.float64
    assert np.array_equal(again.evaluation.counts[metric], a.evaluation.counts[metric])
    summary = again.evaluation.summary()
    assert list(summary)[-2:] == names
    assert summary["half_agreement"] == pytest.approx(summary["agreement"] / 2)
    assert json.loads((a.folder / "scores.json").read_text())["agreement"] == summary["agreement"]
    low, high = a.report["intervals"]["agreement"]
    assert low <= summary["agreement"] <= high

    with open(a.folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    total = a.evaluation.counts[metric]
    expected = 1 - total[:, 0].sum(axis=1) / total[:, 1].sum(axis=1)
    assert [float(row["agreement"]) for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)

    comparison = compare_evaluations(a, b, resamples=30, seed=0)
    row = comparison["scores"]["agreement"]
    assert row["difference"] == b.evaluation.summary()["agreement"] - a.evaluation.summary()["agreement"]
    draws = resampled_scores([a.evaluation, b.evaluation], 30, 0)
    difference = draws[1]["agreement"] - draws[0]["agreement"]
    assert row["interval"] == pytest.approx(tuple(np.quantile(difference, [0.025, 0.975])))
    console = Console(record=True, width=200, file=io.StringIO())
    print_scores([a], console)
    print_comparison(comparison, console, images=1)
    assert "half agreement" in console.export_text(clear=False)
    assert "agreement " in console.export_text()


def test_a_saved_evaluation_is_used_if_it_has_the_metrics(metric, runs, capsys):
    console = Console(width=200)
    options = {"checkpoint": str(runs[0]), "device": "cpu"}
    first = find_or_score(EvaluateConfig(**options), console)
    assert list(first.evaluation.counts) == ["iou"]
    with pytest.raises(ValueError, match="lacks the metric agreement"):
        find_or_score(EvaluateConfig(checkpoint=str(first.folder), metrics=[metric]), console)
    second = find_or_score(EvaluateConfig(**options, metrics=[metric]), console)
    assert list(second.evaluation.counts) == ["iou", metric]
    assert "lacks the metric agreement: evaluating again" in capsys.readouterr().out
    for metrics in ([metric], []):
        third = find_or_score(EvaluateConfig(**options, metrics=metrics), console)
        assert third.report == json.loads((second.folder / "scores.json").read_text())
    fourth = find_or_score(EvaluateConfig(**options, metrics=["cldice"]), console)
    assert list(fourth.evaluation.counts) == ["iou", metric, "cldice"]  # what was counted before is not lost
    assert fourth.report["agreement"] == second.report["agreement"]
    # One has a metric that the other lacks: what both have is compared.
    assert "agreement" not in compare_evaluations(first, second, resamples=10, seed=0)["scores"]


def test_a_metric_that_is_not_known_any_more(metric, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_plugins", ["agreements"])
    options = EvaluateConfig(checkpoint=str(runs[0]), metrics=[metric], device="cpu", out=str(tmp_path / "out"))
    before = score_checkpoint(options, QUIET)[0].evaluation.summary()["mean_iou"]
    monkeypatch.setattr(registry, "_plugins", [])
    registry._components.pop(("metric", metric))
    console = Console(record=True, width=400, file=io.StringIO())
    saved = find_or_score(EvaluateConfig(checkpoint=str(tmp_path / "out"), device="cpu"), console)
    text = console.export_text()
    assert f"{tmp_path / 'out'} is read without the metric {metric}" in text
    assert "made with the plugin agreements: give --plugin agreements" in text
    assert list(saved.evaluation.counts) == ["iou"]
    assert saved.evaluation.summary()["mean_iou"] == before
    with pytest.raises(ValueError, match="lacks the metric agreement"):
        find_or_score(EvaluateConfig(checkpoint=str(tmp_path / "out"), metrics=[metric]), QUIET)
    with pytest.raises(ValueError, match="metric agreement is none of"):  # of a run, which would be scored again
        find_or_score(EvaluateConfig(checkpoint=str(runs[0]), metrics=[metric]), QUIET)


def test_metrics_are_looked_at_before_anything_is_scored(metric, runs):
    with pytest.raises(ValueError, match=r"metric agrement is none of iou, cldice, agreement; did you mean"):
        score_checkpoint(EvaluateConfig(checkpoint=str(runs[0]), metrics=["agrement"]), QUIET)

    def registered(name, **methods):
        register("metric", name)(type("Other", (CountError,), {"__module__": __name__, **methods}))
        return name

    for name, message in (
        (registered("taken", scores=IoU.scores, count=IoU.count), "its score 'mean_iou' has a name that is taken"),
        (registered("own", scores=lambda self, counts: {"images": counts[..., 0, 0]}), "by the files of an evaluation"),
        (
            registered("flat", scores=lambda self, counts: {"flat": counts.sum()}),
            r"must have the shape \(2,\), not",
        ),
        (registered("small", count=lambda self, *_: np.zeros(2, np.int32)), "must be int64 or float64, not int32"),
    ):
        with pytest.raises(ValueError, match=message):
            load_metrics([name], 3)


@pytest.mark.slow
def test_on_the_page_of_a_report(metric, runs, tmp_path):
    for run in runs:
        evaluate(run, metrics=[metric], device="cpu")
    write_report(ReportConfig(runs=[str(run) for run in runs], out=str(tmp_path / "page.html"), device="cpu", images=1))
    assert '"further":["agreement","half_agreement"]' in (tmp_path / "page.html").read_text()
