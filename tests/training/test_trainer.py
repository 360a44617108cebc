"""Data sets, networks, losses, augmentations, callbacks and loggers of somebody's own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from torchvision.transforms import v2

from rmiseg import Callback, Logger, Predictor, RMILoss, Trainer, evaluate, register, report, train
from rmiseg.cli import main
from rmiseg.config import LossConfig, registry
from rmiseg.data import OwnImages
from rmiseg.data.balance import balanced_weights
from rmiseg.data.transforms.rare import find_places
from rmiseg.training.criterion import Criterion
from rmiseg.training.curves import read_curves
from support.own_parts import CLASSES, Net, Squares, Watch, fit, soft_dice, trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "run"
    assert fit(out) == [0]
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoints" / "last.pt", weights_only=True)["weights"]


def curves(out: Path) -> dict:
    return {name: curve for name, curve in read_curves(out).items() if name != "train/data_wait"}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.slow
def test_killed_and_resumed_to_the_bit(run, tmp_path, workers):
    """Weights, curves, and what the callback remembers."""
    out = tmp_path / "run"
    for kill_at in (2, 5, 6):
        assert fit(out, kill_at, workers) == [-9]
    assert fit(out, None, workers) == [0]
    first, second = weights(run), weights(out)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert curves(out) == curves(run)
    heard = [(folder / "heard.txt").read_text().splitlines() for folder in (run, out)]
    assert [line for line in heard[1] if line != "fit"] == [line for line in heard[0] if line != "fit"]
    assert len([line for line in heard[0] if line.startswith("step")]) == 12
    assert len([line for line in heard[0] if line.startswith("validation")]) == 4


@pytest.mark.slow
def test_several_processes(run, tmp_path):
    assert fit(tmp_path / "run", processes=2) == [0, 0]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 12
    assert result["last"]["mean_iou"] > 0.6


def test_predictor_takes_the_network_again(run):
    predict = Predictor.from_run(run, "cpu", model=Net())
    image, mask = Squares(4, seed=1)[2]
    ids = predict(image)
    assert predict.classes.names == tuple(CLASSES)
    assert (ids == mask)[mask != 255].mean() > 0.8
    with pytest.raises(ValueError, match=r"given in Python as support\.own_parts\.Net; give it again"):
        Predictor.from_run(run, "cpu")
    saved = evaluate(run, data=trainer(run).val, model=Net(), device="cpu")
    assert saved.evaluation.summary() == json.loads((run / "result.json").read_text())["best"]


def test_a_finished_run_is_not_trained_again(run, capsys):
    result = trainer(run, console=Console()).fit()
    assert "is finished" in capsys.readouterr().out
    assert result.out == run
    assert result.scores["mean_iou"] == json.loads((run / "result.json").read_text())["best"]["mean_iou"]
    with pytest.raises(ValueError, match=r"loss\.name python:support\.own_parts\.soft_dice, not python:rmiseg"):
        trainer(run, loss=RMILoss(2)).fit()


def test_the_files_of_the_run_name_the_parts(run, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["name"] == "python:support.own_parts.Net"
    assert config["data"]["name"] == "python:support.own_parts.Squares"
    assert config["data"]["transform"] == "python:torchvision.transforms.v2._container.Compose"
    assert main(["train", str(run / "config.yaml"), "--out", str(run / "again")]) == 1
    assert "support.own_parts.Squares was given in Python when the run was made" in capsys.readouterr().err
    assert main(["evaluate", str(run)]) == 1
    assert "was given in Python" in capsys.readouterr().err


def test_report_of_own_parts(run, tmp_path):
    page = report(run, tmp_path / "report.html", model=Net(), data=trainer(run).val, device="cpu")
    assert "square" in page.read_text()


@pytest.mark.parametrize("form", ["pil", "array", "tensor", "float", "dictionary"])
def test_images_in_every_form(form, tmp_path):
    class Forms(Squares):
        def __getitem__(self, index):
            image, mask = super().__getitem__(index)
            if form == "pil":
                return Image.fromarray(image), Image.fromarray(mask.astype(np.uint8))
            if form == "array":
                return image, mask.astype(np.uint8)
            tensor = torch.from_numpy(image).permute(2, 0, 1)
            if form == "dictionary":
                return {"image": tensor, "mask": torch.from_numpy(mask)}
            return (tensor / 255 if form == "float" else tensor), torch.from_numpy(mask)

    trainer(tmp_path / form, train=Forms(12, 0), val=Forms(4, 1)).fit()
    trainer(tmp_path / "plain").fit()
    first, second = weights(tmp_path / form), weights(tmp_path / "plain")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_albumentations(tmp_path):
    albumentations = pytest.importorskip("albumentations")

    def augment():
        return albumentations.Compose(
            [albumentations.RandomCrop(32, 32), albumentations.HorizontalFlip(p=0.5), albumentations.GaussNoise(p=1)]
        )

    for name in "ab":
        trainer(tmp_path / name, transform=augment()).fit()
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_loss_of_ours_takes_logits_as_they_are(tmp_path):
    result = trainer(tmp_path / "run", loss=RMILoss(2, pool_size=2), callbacks=[]).fit()
    assert {"train/pixel", "train/rmi"} <= set(read_curves(result.out))


def test_stop(tmp_path):
    class Patience(Callback):
        def on_validation_end(self, run, evaluation):
            if run.state.epoch == 1:
                run.stop()

    result = trainer(tmp_path / "run", callbacks=[Patience()]).fit()
    assert result.steps == 6
    assert result.last["mean_iou"] > 0


def test_loggers(tmp_path):
    class Memory(Logger):
        def __init__(self):
            self.values, self.pictures, self.ended = [], [], False

        def open(self, folder, config, from_step):
            assert folder == tmp_path / "run"
            assert config["optim"]["lr"] == 0.05
            assert from_step is None

        def scalars(self, step, values):
            self.values += [(step, name) for name in values]

        def picture(self, step, name, pixels):
            self.pictures.append((step, name, pixels.shape))

        def close(self):
            self.ended = True

    memory = Memory()
    trainer(tmp_path / "run", loggers=[memory]).fit()
    assert {(3, "train/loss"), (3, "val/mIoU")} <= set(memory.values)
    assert (3, "image, truth, prediction/0", (40, 168, 3)) in memory.pictures
    assert memory.ended
    with open(tmp_path / "run" / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(int(row["step"]), row["curve"]) for row in rows} == set(memory.values)


@pytest.mark.slow
def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    own = trainer(tmp_path / "run")
    own.config.train.loggers[:] = ["wandb"]
    own.fit()
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))) == 1
    assert not list((tmp_path / "run").glob("events.*"))


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'store'}")
    own = trainer(tmp_path / "run")
    own.config.train.loggers[:] = ["mlflow"]
    own.fit()
    client = mlflow.MlflowClient()
    (logged,) = client.search_runs([client.get_experiment_by_name("rmiseg").experiment_id])
    history = client.get_metric_history(logged.info.run_id, "val/mIoU")
    assert [metric.step for metric in history] == [3, 6, 9, 12]
    assert logged.data.params["optim.lr"] == "0.05"
    assert logged.info.status == "FINISHED"


def test_further_losses_add_up():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 24, 24, generator=generator)
    target = torch.randint(0, 3, (2, 24, 24), generator=generator)

    def value(**options) -> float:
        criterion = Criterion(LossConfig(**options), 3, total_steps=10)
        return criterion(logits, None, target, criterion.counts(target), 0)[1]["loss"].item()

    rmi, ce, dice = value(name="rmi"), value(name="ce"), value(name="smp:Dice")
    assert value(name="rmi", plus={"ce": 2.0, "smp:Dice": 0.5}) == pytest.approx(rmi + 2 * ce + 0.5 * dice, rel=1e-5)


def test_parts_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="give both train and val"):
        Trainer({}, train=Squares(3, 0))
    with pytest.raises(ValueError, match="classes are for data sets that are given"):
        Trainer({}, classes=["a"])
    for parts, message in (
        ({"loss": "rmi"}, "loss must be callable .*, not 'rmi'; a name belongs into the options, as loss.name"),
        ({"loss": RMILoss}, r"give an object, such as RMILoss\(num_classes\)"),
        ({"model": Net}, "model must be an nn.Module"),
        ({"callbacks": Watch()}, "callbacks must be a list"),
        ({"callbacks": [Watch]}, "callbacks must be objects of subclasses of rmiseg.Callback"),
        ({"loggers": [object()]}, "loggers must be objects of subclasses of rmiseg.Logger"),
        (
            {"train": "folder", "val": "other", "classes": CLASSES},
            "'folder'; a folder belongs into the options, as data",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            Trainer({}, **parts)
    for options, parts in (
        ({"model": {"backbone": "resnet18"}}, {"model": Net()}),
        ({"loss": {"class_weights": "balanced"}}, {"loss": soft_dice}),
        ({"data": {"crop_size": [3, 3]}}, {"transform": v2.RandomCrop(3)}),
    ):
        with pytest.raises(ValueError, match=r"would have no effect: the .* is given as an object"):
            Trainer(options, **parts)
    with pytest.raises(ValueError, match=r"there is no option optim\.lrr; did you mean optim\.lr"):
        train({"optim": {"lrr": 1}})
    with pytest.raises(ValueError, match="must give one number, not a tensor"):
        trainer(tmp_path / "a", loss=lambda logits, target: logits.mean((1, 2, 3))).fit()
    with pytest.raises(ValueError, match="has no gradient in the logits"):
        trainer(tmp_path / "a0", loss=lambda logits, target: (logits.argmax(1) == target).float().mean()).fit()
    with pytest.raises(ValueError, match="requires_grad is False in all of them"):
        trainer(tmp_path / "a1", model=Net().requires_grad_(False)).fit()
    learning = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    with pytest.raises(ValueError, match=r"the loss has weights of its own, 0\.weight, which would not be trained"):
        Trainer({}, loss=learning)
    Trainer({}, loss=learning.requires_grad_(False))
    with pytest.raises(ValueError, match="differ in size"):
        trainer(tmp_path / "b", transform=v2.RandomResize(20, 40)).fit()
    with pytest.raises(ValueError, match="fewer than one batch of 4"):
        trainer(tmp_path / "c", train=Squares(3, 0)).fit()


class Relabelled(Squares):
    """Squares whose masks hold other ids."""

    def __init__(self, count: int, ids: tuple[int, int], shown: int = 0) -> None:
        super().__init__(count, 0)
        self.ids, self.shown = ids, shown

    def __getitem__(self, index):
        image, mask = super().__getitem__(index)
        mask[:, 0] = 0
        return image, mask if index == self.shown - 1 else np.choose(mask, self.ids)


def test_masks_that_teach_nothing(tmp_path):
    for name, parts, message in (
        (
            "a",
            {"train": Relabelled(8, (0, 255))},
            "class ground alone: .* 255 is ignored: are masks of 0 and 255 meant",
        ),
        ("b", {"train": Relabelled(8, (1, 1))}, "train hold the class square alone: .* Are these its masks"),
        ("c", {"train": Relabelled(8, (255, 255))}, "every pixel of the masks of train is 255, ignored"),
        ("d", {"val": Relabelled(3, (255, 255))}, "every pixel of the masks of val is 255, ignored"),
        ("e", {"val": Squares(0, 1)}, "the data set val has no images"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(tmp_path / name, **parts).fit()
    trainer(tmp_path / "f", train=Relabelled(8, (0, 0), shown=7), val=Relabelled(3, (0, 0))).fit()


def test_callbacks_with_methods_that_nothing_calls(tmp_path):
    class Late(Callback):
        def on_train_end(self, run):
            pass

        def on_epoch_end(self, run):
            pass

    console = Console(file=io.StringIO())
    trainer(tmp_path / "run", callbacks=[Late(), Watch()], console=console)
    assert console.file.getvalue().startswith("warning: Late.on_train_end is not called by the training; what is ")
    assert console.file.getvalue().count("warning") == 1


def test_what_an_item_raises_names_the_item(tmp_path):
    class Broken(Squares):
        def __getitem__(self, index):
            return {}["pixels"] if index == 2 else super().__getitem__(index)

    with pytest.raises(KeyError) as caught:
        trainer(tmp_path / "run", train=Broken(8, 0)).fit()
    assert caught.value.__notes__ == ["raised by item 2 of the data set train"]


def test_default_device(run, tmp_path):
    """A default device that is another is no hindrance."""
    own, images = trainer(tmp_path / "run", transform=None), OwnImages(Squares(6, 0), CLASSES)
    expected = trainer(tmp_path / "expected", transform=None).fit()
    net, image = Net(), Squares(1, 0)[0][0]
    ids = Predictor.from_run(run, model=net)(image)
    weights, places = balanced_weights(images), find_places(images)
    with torch.device("meta"):
        assert own.fit().scores == expected.scores
        evaluate(tmp_path / "run", data=Squares(4, 1), model=net)
        assert np.array_equal(Predictor.from_run(run, model=net)(image), ids)
        assert balanced_weights(images) == weights
        assert np.array_equal(find_places(images).places, places.places)


SCRIPT = """
import multiprocessing
from rich.console import Console
from rmiseg import Trainer
from support.own_parts import CLASSES, Net, Squares, soft_dice

multiprocessing.set_start_method("spawn", force=True)
data = {"batch_size": 4, "workers": 1, "crop_size": [32, 32]}
options = {"out": "run", "device": "cpu", "data": data, "train": {"epochs": 1, "loggers": []}}
parts = {"model": Net(), "loss": soft_dice, "classes": CLASSES, "console": Console(quiet=True)}
Trainer(options, train=Squares(8, 0), val=Squares(4, 1), **parts).fit()
"""


@pytest.mark.slow
def test_a_script_without_a_guard_where_processes_are_spawned(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join(sys.path)
    command, environment = [sys.executable, "script.py"], {**os.environ, "PYTHONPATH": paths}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert 'put what it does behind `if __name__ == "__main__":`' in ended.stderr


def test_options_as_numpy_has_them(tmp_path):
    size = np.array([8, 9])
    options = {"optim": {"lr": np.float32(0.5)}, "train": {"epochs": np.int64(3)}, "data": {"crop_size": size}}
    config = Trainer(options).config
    assert (config.optim.lr, config.train.epochs, config.data.crop_size) == (0.5, 3, (8, 9))


@pytest.mark.parametrize("classes", [2, "ab", {"a": 0, "b": 1}, {"a", "b"}])
def test_classes_that_are_no_list(classes):
    with pytest.raises(ValueError, match="classes must be a list of names"):
        Trainer({}, train=Squares(3, 0), val=Squares(3, 0), classes=classes)


def test_a_callback_of_a_plugin(tmp_path, shapes, capsys):
    register("callback", "watch")(Watch)
    try:
        options = {"loss": soft_dice, "model": Net(), "callbacks": []}
        own = trainer(tmp_path / "run", **options)
        config = {**yaml.safe_load(yaml.safe_dump({"train": {"callbacks": ["watch"], "steps": 1}}))}
        config["out"] = str(tmp_path / "run")
        named = Trainer(config, model=Net(), train=own.train, val=own.val, console=Console(quiet=True))
        assert [type(callback) for callback in named.callbacks] == [Watch]
    finally:
        del registry._components["callback", "watch"]
