"""`rmiseg evaluate` and `compare` as a user runs them, on a small data set."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rmiseg.cli import main
from rmiseg.data import load_split, read_image, read_mask
from support.commands import error_of, small_recipe


@pytest.mark.slow
def test_run_can_be_evaluated_from_any_folder(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(shapes.parent)
    arguments = ["--data.root", shapes.name, "--train.steps", "1", "--out", str(tmp_path / "run")]
    assert main(["train", small_recipe(tmp_path, shapes), *arguments]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "run"]) == 0


@pytest.mark.slow
def test_evaluate_prints_and_writes_scores(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    assert "square" in printed
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean_iou"] == json.loads((run / "result.json").read_text())["best"]["mean_iou"]
    assert f"{100 * scores['mean_iou']:.2f}" in printed
    assert set(scores["classes"]) == {"ground", "square", "disc"}
    assert scores["images"] == 2
    assert scores["pixels"] == 2 * 48 * 63  # one column is ignored


@pytest.mark.slow
def test_evaluate_scores_what_predict_writes(run, shapes, tmp_path):
    """The two commands agree: scoring predict's files by hand gives evaluate's accuracy."""
    split = load_split("folder", str(shapes), "val")
    out = tmp_path / "out"
    assert main(["predict", str(run), *(str(s.image) for s in split.samples), "--out", str(out)]) == 0
    hits = total = 0
    for sample in split.samples:
        with Image.open(out / "index" / f"{sample.image.stem}.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[:9] == [channel for color in split.classes.palette for channel in color]
            ids = np.array(image)
        truth = read_mask(sample.mask, split.classes)
        hits += (ids == truth)[truth != 255].sum()
        total += (truth != 255).sum()
        overlay = read_image(out / "overlay" / f"{sample.image.stem}.png")
        expected = (read_image(sample.image).astype(float) + np.array(split.classes.palette)[ids]) / 2
        assert abs(overlay - expected).max() <= 0.5
    assert main(["evaluate", str(run), "--json", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["pixel_accuracy"] == pytest.approx(hits / total)


def test_json_goes_to_standard_output_alone(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "val"


@pytest.mark.slow
def test_evaluations_lie_in_the_folder_of_the_run(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--flip", "--scales", "1,2"]) == 0
    assert main(["evaluate", str(run / "checkpoints" / "last.pt"), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((run / "evaluation" / "val-scales1,2-flip" / "scores.json").read_text())
    assert report["settings"] == {"scales": [1.0, 2.0], "flip": True, "window": None, "overlap": 0.25, "crf": None}
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["checkpoint"].endswith("last.pt")


@pytest.mark.slow
def test_training_leaves_the_evaluations_of_its_checkpoints(run, tmp_path):
    """What it counted last, and where it was best: the same as scoring those files again."""
    for name, folder in (("best", "val"), ("last", "val-last")):
        left = json.loads((run / "evaluation" / folder / "scores.json").read_text())
        assert main(["evaluate", str(run / "checkpoints" / f"{name}.pt"), "--out", str(tmp_path / name)]) == 0
        again = json.loads((tmp_path / name / "scores.json").read_text())
        assert {key: left[key] for key in left if key != "seconds"} == {
            key: again[key] for key in again if key != "seconds"
        }
        assert left["seconds"].keys() == again["seconds"].keys()
        for file in ("images.npz", "images.csv"):
            assert (tmp_path / name / file).read_bytes() == (run / "evaluation" / folder / file).read_bytes()


def test_evaluate_looks_where_it_writes_before_it_scores(run, tmp_path, capsys):
    for path in (tmp_path / "no" / "scores.json", tmp_path):
        assert str(path) in error_of(["evaluate", str(run), "--json", str(path)], capsys)
        assert "evaluating" not in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert "--out" in error_of(["evaluate", str(run), "--out", str(tmp_path / "file" / "x")], capsys)


@pytest.mark.slow
def test_compare_scores_what_is_not_scored_yet(run, shapes, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["train", small_recipe(tmp_path, shapes), "--train.steps", "1", "--out", str(other)]) == 0
    shutil.rmtree(other / "evaluation")
    capsys.readouterr()
    assert main(["compare", str(run), str(other), "--json", str(tmp_path / "c.json"), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "evaluating val" in printed
    assert "B is better in" in printed
    comparison = json.loads((tmp_path / "c.json").read_text())
    best = [json.loads((path / "result.json").read_text())["best"]["mean_iou"] for path in (run, other)]
    assert comparison["scores"]["mean_iou"]["difference"] == pytest.approx(best[1] - best[0])
    # Again, from the folders, without the runs' data
    folders = [str(path / "evaluation" / "val") for path in (run, other)]
    assert main(["compare", *folders]) == 0
    assert "evaluating" not in capsys.readouterr().out
    # Another checkpoint of the same name is scored again
    shutil.copy(run / "checkpoints" / "best.pt", other / "checkpoints" / "best.pt")
    assert main(["compare", str(run), str(other)]) == 0
    assert "is of another checkpoint" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_masks_that_were_changed_after_an_evaluation(run, shapes, tmp_path, capsys):
    """Neither a comparison nor a report shows scores by the masks of before."""
    data, a, b = tmp_path / "data", tmp_path / "a", tmp_path / "b"
    shutil.copytree(shapes, data)
    for folder in (a, b):
        shutil.copytree(run, folder)
        capsys.readouterr()
        assert main(["compare", str(folder), str(folder), "--root", str(data)]) == 0
        assert "is of the data in" in " ".join(capsys.readouterr().out.split())
    names = json.loads((a / "evaluation" / "val" / "scores.json").read_text())
    assert names["root"] == str(data)
    for path in (data / "masks").rglob("*.png"):
        mask = np.array(Image.open(path))
        mask[:4] = 1
        Image.fromarray(mask).save(path)
    page = ["--out", str(tmp_path / "page.html"), "--root", str(data), "--image_size", "64"]
    assert main(["evaluate", str(a), "--root", str(data)]) == 0
    evaluations = [str(each / "evaluation" / "val") for each in (a, b)]
    assert "by different masks" in error_of(["compare", *evaluations], capsys)
    assert main(["report", str(a), str(b), *page]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "is not of these images: images or masks of split val have another content" in printed
    assert main(["compare", *evaluations]) == 0
    assert main(["compare", str(a), str(b)]) == 0
    assert "evaluating again" not in capsys.readouterr().out


def test_what_an_evaluation_is_not_of(run, tmp_path, capsys):
    folder = str(run / "evaluation" / "val")
    for option, value in (("--split", "train"), ("--root", str(tmp_path))):
        assert "name its run instead" in error_of(["compare", folder, folder, option, value], capsys)


def test_evaluate_refuses_other_classes(run, shapes, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    (root / "dataset.yaml").write_text("classes: [ground, square, disc, star]\n")
    message = error_of(["evaluate", str(run), "--root", str(root)], capsys)
    assert "trained on 3 classes (ground, square, disc)" in message
    assert "has 4 (ground, square, disc, star)" in message


@pytest.mark.slow
def test_dense_crf_in_every_command(run, shapes, tmp_path, capsys):
    pytest.importorskip("pydensecrf")
    workers = ["--dense_crf.workers", "1"]
    out = tmp_path / "scores"
    assert main(["evaluate", str(run), "--crf", "1,2", "--out", str(out), *workers]) == 0
    plain, one, two = (json.loads((out / name / "scores.json").read_text()) for name in (".", "crf1", "crf2"))
    assert plain["settings"]["crf"] is None
    assert two["settings"]["crf"]["iterations"] == 2
    assert one["seconds"]["crf"] > 0
    assert one["confusion"] != plain["confusion"]
    arguments = ["predict", str(run), "--split", "val", "--write", "index", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--crf", "1,2", *workers]) == 0
    split, hits = load_split("folder", shapes, "val"), 0
    for sample in split.samples:
        truth = read_mask(sample.mask, split.classes)
        with Image.open(tmp_path / "out" / "crf2" / "index" / f"{sample.name}.png") as image:
            hits += (np.array(image) == truth).sum()
    assert hits == np.trace(two["confusion"])  # what is written is what was scored
    capsys.readouterr()
    workers = ["--workers", "1"]
    assert (
        main(["crf-search", str(run), "--trials", "2", "--iterations", "2", "--images", "9", *workers, "--json", "-"])
        == 0
    )
    trials = json.loads(capsys.readouterr().out)
    assert len(trials) == 3
    usual = next(trial for trial in trials if trial["kernels"] and trial["kernels"]["bilateral_srgb"] == 13)
    assert usual["mean_iou"] == pytest.approx(two["mean_iou"], abs=2e-3)  # probabilities are rounded to 16 bits
    assert [trial["mean_iou"] for trial in trials] == sorted((trial["mean_iou"] for trial in trials), reverse=True)
