"""Folders of evaluations, intervals, and comparisons."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from rmiseg.config import TilingConfig
from rmiseg.evaluation.bootstrap import intervals, paired_intervals, resampled_scores
from rmiseg.evaluation.compare import compare_evaluations, print_comparison
from rmiseg.evaluation.evaluate import Evaluation, evaluate_model
from rmiseg.evaluation.metrics import MEASURES, Scores, count_image
from rmiseg.evaluation.results import SavedEvaluation, load_evaluation, make_report, save_evaluation
from rmiseg.runtime.files import to_json

CLASSES = ("ground", "square", "disc")


def make_evaluation(seed=0, images=6, right=0.7, truth_seed=100):
    """Random truths and predictions; truths are those of `truth_seed`."""
    truths, rng = np.random.default_rng(truth_seed), np.random.default_rng(seed)
    counts = []
    for _ in range(images):
        target = truths.integers(0, 2, (12, 14)).astype(np.uint8)  # no pixel is a disc
        target[0, 0] = 255
        wrong = rng.random(target.shape) > right
        counts.append(count_image(np.where(wrong | (target == 255), 1, target).astype(np.uint8), target, 3))
    return Evaluation(
        tuple(f"image{index}" for index in range(images)),
        sum(each.confusion for each in counts),
        {"iou": np.stack([each.counts for each in counts])},
        {"total": 2.0, "model": 1.5},
    )


def save(folder, evaluation, **about):
    given = {"checkpoint": "a.pt", "sha256": "0", "step": 1, "data": "folder", "split": "val", "settings": {}}
    report = make_report(evaluation, CLASSES, given | about)
    save_evaluation(folder, evaluation, report)
    return SavedEvaluation(folder, report, CLASSES, evaluation)


class Threshold(nn.Module):
    """Class 1 where red is bright; logits at stride 1."""

    image_mean, image_std, align_corners = (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), False

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        red = self.scale * images[:, :1]
        return torch.cat([-red, red], dim=1)


def batches(count=3, size=(10, 12)):
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        image = torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8)
        mask = torch.randint(0, 2, (1, *size), generator=generator, dtype=torch.uint8)
        yield {"image": image, "mask": mask, "name": [f"n{index}"]}


@pytest.mark.parametrize("tiling", [None, TilingConfig(), TilingConfig(flip=True, window=6)])
def test_evaluate_counts_every_image_in_order(tiling):
    model, seen = Threshold().train(), []
    evaluation = evaluate_model(
        model,
        batches(),
        2,
        on_batch=lambda batch, ids: seen.append((batch["name"][0], ids)),
        tiling=tiling,
    )
    assert model.training  # as it was
    assert evaluation.names == ("n0", "n1", "n2") == tuple(name for name, _ in seen)
    for batch, (_, ids), found in zip(batches(), seen, evaluation.counts["iou"]):
        expected = (batch["image"][:, 0] >= 128).to(torch.uint8)
        assert torch.equal(ids, expected)
        counts = count_image(expected[0].numpy(), batch["mask"][0].numpy(), 2)
        assert np.array_equal(found, counts.counts)
    assert evaluation.confusion.sum() == 3 * 120
    assert 0 < evaluation.seconds["model"] < evaluation.seconds["total"]


def test_an_error_while_counting_reaches_the_caller():

    def fail(batch, ids):
        raise ValueError("what a user can mend")

    with pytest.raises(ValueError, match="what a user can mend"):
        evaluate_model(Threshold(), batches(), 2, on_batch=fail)


def test_saved_evaluation_is_read_back(tmp_path):
    evaluation = make_evaluation()
    folder = tmp_path / "evaluation" / "val"
    saved = save(folder, evaluation)
    again = load_evaluation(folder)
    assert {path.name for path in folder.iterdir()} == {"scores.json", "images.npz", "images.csv"}
    assert again.class_names == CLASSES
    assert again.evaluation.names == evaluation.names
    assert np.array_equal(again.evaluation.counts["iou"], evaluation.counts["iou"])
    assert np.array_equal(again.evaluation.confusion, evaluation.confusion)
    assert again.report["mean_iou"] == saved.report["mean_iou"] == evaluation.everywhere.mean_iou
    assert again.report["classes"]["disc"]["iou"] is None  # in neither truth nor prediction

    # As docs/evaluation.md says
    content = np.load(folder / "images.npz")
    hit, true, predicted = content["counts_iou"][:, 0].sum(axis=0)
    assert (hit / np.maximum(true + predicted - hit, 1))[:2].mean() == pytest.approx(saved.report["mean_iou"])
    with open(folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(evaluation.names)
    first = Scores.from_counts(evaluation.counts["iou"][0][0])
    assert float(rows[0]["mean_iou"]) == pytest.approx(first.mean_iou, abs=1e-6)
    assert float(rows[0]["iou square"]) == pytest.approx(first.iou[1], abs=1e-6)
    assert rows[0]["iou disc"] == ""


def test_evaluations_of_the_first_format_are_read_and_compared(tmp_path):
    evaluation = make_evaluation()
    new, old = save(tmp_path / "new", evaluation), tmp_path / "old"
    old.mkdir()
    report = {key: value for key, value in new.report.items() if key not in ("metrics", "made_with")}
    (old / "scores.json").write_text(to_json({**report, "format": "rmiseg evaluation 1"}))
    np.savez_compressed(
        old / "images.npz",
        names=np.array(evaluation.names),
        measures=np.array(MEASURES),
        regions=evaluation.counts["iou"],
    )
    again = load_evaluation(old)
    assert again.evaluation.summary() == evaluation.summary()
    assert np.array_equal(again.evaluation.counts["iou"], evaluation.counts["iou"])
    comparison = compare_evaluations(again, new, resamples=20, seed=0)
    assert set(comparison["scores"]) == set(evaluation.summary())
    assert {row["difference"] for row in comparison["scores"].values()} == {0}


@pytest.mark.parametrize("damage", ["scores.json", "images.npz"])
def test_damaged_evaluations_are_refused(tmp_path, damage):
    save(tmp_path, make_evaluation())
    path = tmp_path / damage
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="run `rmiseg evaluate` again"):
        load_evaluation(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_evaluation(tmp_path)


def test_intervals_against_draws_one_by_one():
    evaluation = make_evaluation()
    (scores,) = resampled_scores([evaluation], 50, seed=3)
    rng = np.random.default_rng(3)
    for index, drawn in enumerate(rng.integers(6, size=(50, 6))):
        counts = evaluation.counts["iou"][drawn].sum(axis=0)
        expected = Scores.from_counts(counts[0])
        assert scores["mean_iou"][index] == pytest.approx(expected.mean_iou)
        assert scores["pixel_accuracy"][index] == pytest.approx(expected.pixel_accuracy)
        assert scores["frequency_weighted_iou"][index] == pytest.approx(expected.frequency_weighted_iou)
        assert scores["mean_accuracy"][index] == pytest.approx(expected.mean_accuracy)
        boundary = Scores.from_counts(counts[MEASURES.index("boundary")])
        assert scores["boundary_mean_iou"][index] == pytest.approx(boundary.mean_iou)
    found = intervals(evaluation, 50, seed=3)
    assert set(found.summary) == set(evaluation.summary())
    assert found.summary["mean_iou"] == pytest.approx(tuple(np.quantile(scores["mean_iou"], [0.025, 0.975])))
    assert math.isnan(found.iou[2][0])


def test_interval_covers_the_truth_as_often_as_it_says():
    """Of accuracies of many small samples, about 95 % of the intervals hold the accuracy that they were drawn with."""
    covered = 0
    for seed in range(200):
        right = np.random.default_rng(seed).binomial(100, 0.7, 40)
        counts = np.zeros((40, len(MEASURES), 3, 2), np.int64)
        counts[:, :, 0, 0], counts[:, :, 1, 0], counts[:, :, 2, 0] = (
            each[:, None] for each in (right, 0 * right + 100, right)
        )
        evaluation = Evaluation(("",) * 40, np.zeros((2, 2)), {"iou": counts})
        low, high = intervals(evaluation, 200).summary["pixel_accuracy"]
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 198


def test_compare(tmp_path):
    a = save(tmp_path / "a", make_evaluation(seed=1, right=0.6))
    b = save(tmp_path / "b", make_evaluation(seed=2, right=0.9))
    comparison = compare_evaluations(a, b, resamples=200, seed=0)
    row = comparison["scores"]["mean_iou"]
    assert row["difference"] == b.evaluation.everywhere.mean_iou - a.evaluation.everywhere.mean_iou > 0
    assert 0 < row["interval"][0] < row["difference"] < row["interval"][1]
    assert set(comparison["classes"]) == set(CLASSES)
    differences = [image["difference"] for image in comparison["images"]]
    assert differences == sorted(differences)
    assert {image["name"] for image in comparison["images"]} == set(a.evaluation.names)

    same = compare_evaluations(a, a, resamples=50, seed=0)
    assert same["scores"]["mean_iou"] == {
        "a": a.evaluation.everywhere.mean_iou,
        "b": a.evaluation.everywhere.mean_iou,
        "difference": 0,
        "interval": (0, 0),
    }


def printed(comparison) -> str:
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=160), images=2)
    return " ".join(stream.getvalue().split())


def test_a_mean_over_fewer_classes_says_so_in_a_comparison(tmp_path):
    a = save(tmp_path / "a", make_evaluation(seed=1))
    b = save(tmp_path / "b", make_evaluation(seed=2))
    comparison = compare_evaluations(a, b, resamples=20, seed=0)
    assert comparison["a"]["classes_scored"] == comparison["b"]["classes_scored"] == 2  # no pixel is a disc
    assert "mean IoU over 2 of 3 classes" in printed(comparison)
    every = make_evaluation(seed=2)
    every.counts["iou"][0, :, 2, 2] += 1  # one prediction of a disc
    comparison = compare_evaluations(a, save(tmp_path / "c", every), resamples=20, seed=0)
    text = printed(comparison)
    assert "The mean IoU of A is over 2 of 3 classes, that of B over all 3" in text
    assert "means of different classes" in text
    assert "mean IoU over" not in text


def test_pairing_narrows_the_interval():
    """Models that fail on the same images differ by less than either varies."""
    a, b = make_evaluation(seed=1, right=0.70), make_evaluation(seed=1, right=0.72)
    low, high = paired_intervals(a, b).summary["mean_iou"]
    wide_low, wide_high = intervals(a).summary["mean_iou"]
    assert high - low < 0.5 * (wide_high - wide_low)


def test_compare_refuses_what_cannot_be_compared(tmp_path):
    a = save(tmp_path / "a", make_evaluation())
    for other, message in (
        (save(tmp_path / "b", make_evaluation(images=5)), "different images .6 and 5; in one alone: image5"),
        (save(tmp_path / "c", make_evaluation(), split="test"), "their splits are val and test"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_evaluations(a, other, resamples=10, seed=0)
    assert json.loads((tmp_path / "c" / "scores.json").read_text())["split"] == "test"


def test_compare_refuses_other_masks_of_the_same_names(tmp_path):
    a, changed = save(tmp_path / "a", make_evaluation()), make_evaluation()
    changed.counts["iou"][3, :, 1, :2] += (1, -1)  # a pixel of the truth is of another class
    b = save(tmp_path / "b", changed)
    with pytest.raises(ValueError, match="by different masks in 1 image, such as image3"):
        compare_evaluations(a, b, resamples=10, seed=0)


def test_no_cell_is_a_formula(tmp_path):
    names = ("=1+1", "+a", "-b", "@c", "\td", "e=f")
    evaluation = dataclasses.replace(make_evaluation(), names=names)
    save(tmp_path, evaluation)
    with open(tmp_path / "images.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["'=1+1", "'+a", "'-b", "'@c", "'\td", "e=f"]
    assert load_evaluation(tmp_path).evaluation.names == names


def test_a_mean_over_fewer_classes_says_so_in_tables_of_experiments():
    from types import SimpleNamespace

    from rmiseg.experiment.report import _scope

    outcomes = {"ce": [SimpleNamespace(evaluation=make_evaluation(seed=1))]}
    assert "mIoU is over 2 of 3 classes" in _scope(outcomes)[0]
    complete = make_evaluation(seed=2)
    complete.counts["iou"][0, :, 2, 2] += 1
    assert "over 2 to 3 of 3 classes" in _scope({**outcomes, "rmi": [SimpleNamespace(evaluation=complete)]})[0]
    assert _scope({"rmi": [SimpleNamespace(evaluation=complete)]}) == []
