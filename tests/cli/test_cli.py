"""The commands as a user runs them, on a small data set: train, evaluate, predict, data check."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rmiseg.cli import main
from rmiseg.config import TrainConfig
from rmiseg.config.parser import _bracketed
from rmiseg.data import load_split, read_image, read_mask

RECIPE = {
    "data": {"crop_size": [48, 48], "scale_range": [0.75, 1.25], "batch_size": 4, "workers": 0},
    "model": {"backbone": "mobilenetv3_small_050", "weights": "none"},
    "optim": {"lr": 0.02},
    "train": {"epochs": 3, "norm_momentum": 0.3},
}


def recipe(folder: Path, root: Path, **sections) -> str:
    content = {name: dict(options) for name, options in RECIPE.items()}
    content["data"]["root"] = str(root)
    for name, options in sections.items():
        content.setdefault(name, {}).update(options)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shapes):
    """A finished training run."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", recipe(folder, shapes), "--optim.lr", "0.03", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_run_folder_holds_everything(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optim"]["lr"] == 0.03  # the command line overrides the recipe
    assert config["data"]["crop_size"] == [48, 48]
    assert config["loss"]["rmi"]["pool_size"] == 4  # defaults are written too
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.pt", "last.pt", "step-000006.pt"}
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 6
    assert 0 < result["best"]["mean_iou"] <= 1
    assert not list(run.rglob("*.tmp"))


def test_tensorboard_has_curves_and_pictures(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"val/mIoU", "val/pixel_accuracy"} <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("val/mIoU")] == [2, 4, 6]
    pictures = [tag for tag in tags["images"] if tag.startswith("image, truth, prediction/")]
    assert len(pictures) == 2  # the validation split has two images
    picture = events.Images(pictures[0])[0]
    assert (picture.width, picture.height) == (3 * 64, 48)
    iou = [events.Scalars(f"val IoU/{name}")[-1].value for name in ("ground", "square", "disc")]
    assert np.mean(iou) == pytest.approx(events.Scalars("val/mIoU")[-1].value, rel=1e-5)
    (matrix,) = set(tags["images"]) - set(pictures)
    assert matrix.startswith("val/confusion")
    assert [e.step for e in events.Images(matrix)] == [2, 4, 6]


def test_same_seed_same_run_and_saved_config_is_a_recipe(run, tmp_path):
    """config.yaml trains the same model again, bit for bit; another seed does not."""
    from rmiseg.inference.checkpoint import load_checkpoint

    for name, options in (("again", []), ("other", ["--seed", "1"])):
        assert main(["train", str(run / "config.yaml"), "--out", str(tmp_path / name), *options]) == 0
    weights = {
        name: load_checkpoint(path / "checkpoints" / "last.pt").weights
        for name, path in (("first", run), ("again", tmp_path / "again"), ("other", tmp_path / "other"))
    }
    same = {
        name: all(bool((tensor == weights["first"][key]).all()) for key, tensor in state.items())
        for name, state in weights.items()
    }
    assert same == {"first": True, "again": True, "other": False}


@pytest.mark.parametrize("loss", ["ce", "bce", "pyramid", "affinity"])
def test_every_loss_trains(loss, shapes, tmp_path):
    arguments = ["--loss.name", loss, "--train.steps", "2", "--train.log_every", "1", "--out", str(tmp_path / "run")]
    assert main(["train", recipe(tmp_path, shapes), *arguments]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2


def test_pspnet_trains_with_its_auxiliary_head(shapes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = recipe(tmp_path, shapes, model={"name": "pspnet"}, train={"steps": 2, "log_every": 1})
    assert main(["train", path, "--out", str(tmp_path / "run")]) == 0
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    loss, pixel, rmi, auxiliary = (
        events.Scalars(f"train/{name}")[0].value for name in ("loss", "pixel", "rmi", "auxiliary")
    )
    assert auxiliary > 0
    assert rmi > 0
    without = loss - 0.4 * auxiliary
    assert without < 0.5 * pixel + 0.5 * 3 * rmi  # convex; absent classes only lower it


def test_training_learns(shapes, tmp_path):
    path = recipe(tmp_path, shapes, data={"scale_range": [1, 1]}, train={"steps": 60, "val_every": 30})
    assert main(["train", path, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best"]["mean_iou"] > 0.45


def test_run_can_be_evaluated_from_any_folder(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(shapes.parent)
    arguments = ["--data.root", shapes.name, "--train.steps", "1", "--out", str(tmp_path / "run")]
    assert main(["train", recipe(tmp_path, shapes), *arguments]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "run"]) == 0


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


def test_evaluations_lie_in_the_folder_of_the_run(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--flip", "--scales", "1,2"]) == 0
    assert main(["evaluate", str(run / "checkpoints" / "last.pt"), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((run / "evaluation" / "val-scales1,2-flip" / "scores.json").read_text())
    assert report["settings"] == {"scales": [1.0, 2.0], "flip": True, "window": None, "overlap": 0.25, "crf": None}
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["checkpoint"].endswith("last.pt")


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


def test_compare_scores_what_is_not_scored_yet(run, shapes, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["train", recipe(tmp_path, shapes), "--train.steps", "1", "--out", str(other)]) == 0
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


def test_predict_takes_folder_glob_and_file(run, shapes, tmp_path, capsys):
    nested = tmp_path / "photos"
    (nested / "a").mkdir(parents=True)
    image = Image.open(shapes / "images" / "shape00.png").resize((70, 50))
    image.save(nested / "one.jpg")
    image.save(nested / "a" / "two.png")
    (nested / "notes.txt").write_text("not an image")
    for patterns, names in (
        ([str(nested)], {"one", "a/two"}),
        ([str(nested / "*.jpg")], {"one"}),
        ([str(nested / "**" / "*.png")], {"two"}),
        ([str(nested / "one.jpg"), str(nested / "a")], {"one", "two"}),
    ):
        out = tmp_path / "out"
        assert main(["predict", str(run), *patterns, "--out", str(out)]) == 0
        for kind in ("index", "overlay"):
            found = {str(p.relative_to(out / kind).with_suffix("")) for p in (out / kind).rglob("*.png")}
            assert found == names
        assert Image.open(out / "index" / f"{names.pop()}.png").size == (70, 50)
        shutil.rmtree(out)


def test_predict_a_split(run, shapes, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(run), "--split", "val", "--out", str(out)]) == 0
    expected = [sample.name for sample in load_split("folder", shapes, "val").samples]
    assert sorted(path.stem for path in (out / "index").iterdir()) == sorted(expected)
    moved = tmp_path / "moved"
    shutil.copytree(shapes, moved)
    arguments = ["predict", str(run), "--split", "val", "--root", str(moved), "--out", str(tmp_path / "moved_out")]
    assert main(arguments) == 0
    for images in ([], [str(shapes / "images"), "--split", "val"]):
        assert "either files" in error_of(["predict", str(run), *images], capsys)
    assert "it has train, val" in error_of(["predict", str(run), "--split", "test"], capsys)


def error_of(arguments, capsys) -> str:
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_predict_refuses(run, shapes, tmp_path, capsys):
    image = str(shapes / "images" / "shape00.png")
    out = ["--out", str(tmp_path / "out")]
    assert "matches nothing*" in error_of(["predict", str(run), "nothing*", *out], capsys)
    assert main(["predict", str(run), image, *out]) == 0
    assert "use --overwrite" in error_of(["predict", str(run), image, *out], capsys)
    assert main(["predict", str(run), image, *out, "--overwrite"]) == 0
    assert main(["predict", str(run), image, *out, "--overwrite", "true"]) == 0
    twin = tmp_path / "shape00.jpg"
    Image.open(image).save(twin)
    assert "would both be named shape00" in error_of(["predict", str(run), image, str(twin), *out], capsys)
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(image).read_bytes()[:500])
    fresh = tmp_path / "fresh"
    message = error_of(["predict", str(run), str(broken), image, "--out", str(fresh)], capsys)
    assert str(broken) in message
    assert {p.name for p in fresh.rglob("*.png")} == {"shape00.png"}  # the good one is done all the same


def test_train_refuses(run, shapes, tmp_path, capsys):
    path = recipe(tmp_path, shapes)
    out = ["--out", str(tmp_path / "new")]
    assert "not empty" in error_of(["train", path, "--out", str(run)], capsys)
    assert str(tmp_path / "no") in error_of(["train", path, *out, "--data.root", str(tmp_path / "no")], capsys)
    assert "resnet50" in error_of(["train", path, *out, "--model.backbone", "resnet5"], capsys)
    assert "pspnet" in error_of(["train", path, *out, "--model.name", "unet"], capsys)
    assert "val" in error_of(["train", path, *out, "--data.val_split", "validation"], capsys)
    assert "batch_size" in error_of(["train", path, *out, "--data.batch_size", "100"], capsys)
    assert "train.epochs" in error_of(["train", path, *out, "--train.epochs", "0"], capsys)
    assert "regions of 14 x 14" in error_of(["train", path, *out, "--loss.rmi.region_size", "14"], capsys)
    assert (tmp_path / "new" / "config.yaml").exists()  # that run ended before its first checkpoint: use it again
    assert main(["train", path, *out, "--train.steps", "1"]) == 0
    assert "not empty" in error_of(["train", path, *out], capsys)
    assert "device 'cuda:9'" in error_of(["train", path, "--out", str(tmp_path / "g"), "--device", "cuda:9"], capsys)
    assert "device 'meta'" in error_of(["train", path, "--out", str(tmp_path / "g"), "--device", "meta"], capsys)
    assert "train.panels must be 0" in error_of(
        ["train", path, "--out", str(tmp_path / "g"), "--train.panels", "-1"], capsys
    )
    assert "seed must be 0" in error_of(
        ["train", path, "--out", str(tmp_path / "g"), "--seed", "99999999999999999999"], capsys
    )
    for usage in (["--model.output_stride", "5"], ["--optim.lrr", "1"], ["--optim.lr", "fast"]):
        with pytest.raises(SystemExit) as stop:
            main(["train", path, *out, *usage])
        assert stop.value.code == 2
        assert usage[0].removeprefix("--") in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_bad_mask_stops_training_with_its_name(shapes, tmp_path, capsys, workers):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    mask = root / "masks" / "shape03.png"
    values = np.array(Image.open(mask))
    values[5:7, 5] = 37
    Image.fromarray(values).save(mask)
    path = recipe(tmp_path, root)
    message = error_of(["train", path, "--out", str(tmp_path / "run"), "--data.workers", workers], capsys)
    assert "shape03.png" in message
    assert "37 (2 pixels)" in message
    assert "Traceback" not in message


def test_diverging_run_names_the_step(shapes, tmp_path, capsys):
    path = recipe(tmp_path, shapes)
    options = ["--optim.lr", "1e9", "--train.max_skipped", "2"]
    message = error_of(["train", path, "--out", str(tmp_path / "run"), *options], capsys)
    assert "step" in message
    assert "optim.lr" in message
    note = tmp_path / "run/diverged.txt"
    assert note.read_text().strip() in message
    again = ["train", path, "--out", str(tmp_path / "run"), *options[:2], "--resume", "auto"]
    assert main([*again, "--train.max_skipped", "1000"]) == 0  # it skips to the end
    assert not note.exists()


def test_evaluate_refuses_other_classes(run, shapes, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    (root / "dataset.yaml").write_text("classes: [ground, square, disc, star]\n")
    message = error_of(["evaluate", str(run), "--root", str(root)], capsys)
    assert "trained on 3 classes (ground, square, disc)" in message
    assert "has 4 (ground, square, disc, star)" in message


def test_data_check(shapes, tmp_path, capsys):
    assert main(["data", "check", "--root", str(shapes), "--workers", "0"]) == 0
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    (root / "masks" / "shape02.png").unlink()
    assert main(["data", "check", "--root", str(root), "--workers", "0"]) == 1
    assert "shape02" in capsys.readouterr().out


def test_print_config_is_a_recipe(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--optim.lr", "0.5", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["optim"]["lr"] == 0.5
    assert set(printed) == set(TrainConfig.__dataclass_fields__)


def test_help_is_quick_and_shows_defaults():
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rmiseg", "train", "--help"], capture_output=True, text=True
    )
    assert "default: 0.007" in result.stdout
    assert "Learning rate of the backbone" in result.stdout
    assert " torch\n" not in result.stderr  # the reason why it is quick
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("train --data.crop_size 64,48", ["train", "--data.crop_size", "[64,48]"]),
        ("train --data.crop_size=64,48", ["train", "--data.crop_size=[64,48]"]),
        ("train --data.crop_size [64,48]", ["train", "--data.crop_size", "[64,48]"]),
        ("train --loss.class_weights 1,2", ["train", "--loss.class_weights", "[1,2]"]),
        ("train --loss.class_weights balanced", ["train", "--loss.class_weights", "balanced"]),
        ("train --data.root a,b --train.steps 3", ["train", "--data.root", "a,b", "--train.steps", "3"]),
        ("data check --splits train", ["data", "check", "--splits", "[train]"]),
        ("data check --splits null", ["data", "check", "--splits", "null"]),
        ("bench loss --strides 1,4 --losses rmi", ["bench", "loss", "--strides", "[1,4]", "--losses", "[rmi]"]),
        ("predict a,b --images", ["predict", "a,b", "--images"]),
        ("train --help", ["train", "--help"]),
        ("", []),
    ],
)
def test_lists_without_brackets(written, meant):
    assert _bracketed(written.split()) == meant


def test_recipe_may_stand_behind_options(tmp_path, capsys):
    (tmp_path / "lr.yaml").write_text("optim: {lr: 0.02}\n")
    with pytest.raises(SystemExit):
        main(["train", "--optim.lr", "0.5", "--recipe", str(tmp_path / "lr.yaml"), "--print_config"])
    assert "lr: 0.5" in capsys.readouterr().out


def test_models(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for part in ("deeplabv3plus", "arXiv:1802.02611", "pspnet", "--backbones"):
        assert part in text
    assert main(["models", "--backbones", "mobilenetv3_small_0*"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"mobilenetv3_small_050 .* 0\.\d .* 8, 16, 32 .* all", text)
    assert "2 of 2 timm models" in text
    assert main(["models", "--backbones", "qqq"]) == 1
