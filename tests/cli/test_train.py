"""`rmiseg train` as a user runs it, on a small data set."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from rmiseg.cli import main
from support.commands import error_of, small_recipe


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
    assert {"val/mIoU", "val/pixel_accuracy", "val/loss"} <= set(tags["scalars"])
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


@pytest.mark.slow
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
@pytest.mark.slow
def test_every_loss_trains(loss, shapes, tmp_path):
    arguments = ["--loss.name", loss, "--train.steps", "2", "--train.log_every", "1", "--out", str(tmp_path / "run")]
    assert main(["train", small_recipe(tmp_path, shapes), *arguments]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2


def test_pspnet_trains_with_its_auxiliary_head(shapes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = small_recipe(tmp_path, shapes, model={"name": "pspnet"}, train={"steps": 2, "log_every": 1})
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


@pytest.mark.slow
def test_training_learns(shapes, tmp_path):
    path = small_recipe(tmp_path, shapes, data={"scale_range": [1, 1]}, train={"steps": 30, "val_every": 15})
    assert main(["train", path, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best"]["mean_iou"] > 0.45


@pytest.mark.slow
def test_train_refuses(run, shapes, tmp_path, capsys):
    path = small_recipe(tmp_path, shapes)
    out = ["--out", str(tmp_path / "new")]
    assert "not empty" in error_of(["train", path, "--out", str(run)], capsys)
    assert str(tmp_path / "no") in error_of(["train", path, *out, "--data.root", str(tmp_path / "no")], capsys)
    assert "resnet50" in error_of(["train", path, *out, "--model.backbone", "resnet5"], capsys)
    assert "pspnet" in error_of(["train", path, *out, "--model.name", "segnet"], capsys)
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
    path = small_recipe(tmp_path, root)
    message = error_of(["train", path, "--out", str(tmp_path / "run"), "--data.workers", workers], capsys)
    assert "shape03.png" in message
    assert "37 (2 pixels)" in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_diverging_run_names_the_step(shapes, tmp_path, capsys):
    path = small_recipe(tmp_path, shapes)
    options = ["--optim.lr", "1000", "--optim.head_lr_factor", "1e6", "--train.max_skipped", "2"]
    message = error_of(["train", path, "--out", str(tmp_path / "run"), *options], capsys)
    assert "step" in message
    assert "optim.lr" in message
    note = tmp_path / "run/diverged.txt"
    assert note.read_text().strip() in message
    again = ["train", path, "--out", str(tmp_path / "run"), *options[:4], "--resume", "auto"]
    assert main([*again, "--train.max_skipped", "1000"]) == 0  # it skips to the end
    assert not note.exists()
