"""A run goes on with the images and options that it was started with, or not at all."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from miniatures import write_shapes
from rmiseg.config import OptimConfig
from rmiseg.config.parser import train_config
from rmiseg.data import load_split
from rmiseg.data.fingerprint import changes, fingerprint
from rmiseg.training import assembly
from rmiseg.training.run_folder import RunFolder
from rmiseg.training.state import RunState, StateFolder
from rmiseg.training.stored_options import as_begun
from rmiseg.training.trainer import Trainer
from support.faults import SmallModel, configuration, train
from support.own_parts import CLASSES, Squares
from support.own_parts import fit as fit_own
from support.own_parts import trainer as own_trainer


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was killed, and its data."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_shapes(folder / "data", count=16)
    assert train(configuration(folder / "data", folder / "run"), "step 4") == [-9]
    return folder


@pytest.fixture
def copy(interrupted, tmp_path, small_model):
    shutil.copytree(interrupted, tmp_path / "copy")
    return tmp_path / "copy"


def resume(copy, **options):
    config = replace(configuration(copy / "data", copy / "run"), **options)
    return Trainer(config, console=Console(width=1000)).fit()


def one_image_fewer(root):
    first = load_split("folder", str(root), "train").samples[0]
    first.image.unlink()
    first.mask.unlink()


def another_image(root):
    path = load_split("folder", str(root), "train").samples[3].image
    Image.fromarray(255 - np.array(Image.open(path))).save(path)


def another_mask(root):
    path = load_split("folder", str(root), "val").samples[0].mask
    Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)


def other_classes(root):
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": ["ground", "disc", "square"]}))


def other_names(root):
    first = load_split("folder", str(root), "train").samples[0]
    for path in (first.image, first.mask):
        path.rename(path.with_name("zzz.png"))


CHANGES = {
    one_image_fewer: "split train has 1[0-9] images, and had 1[0-9]",
    another_image: "images or masks of split train have another content",
    another_mask: "images or masks of split val have another content",
    other_classes: "classes of split val are ground, disc, square, and were ground, square, disc",
    other_names: "images of split (train|val) have other names or another order|split .* images, and had",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_data_are_refused_unless_asked_for(copy, capsys, change):
    change(copy / "data")
    before = {path: path.read_bytes() for path in (copy / "run").rglob("*.pt")}
    with pytest.raises(
        ValueError, match=f"the data of the run in .* have changed: .*({CHANGES[change]}).*changed to go"
    ):
        resume(copy)
    assert before == {path: path.read_bytes() for path in (copy / "run").rglob("*.pt")}
    assert resume(copy, resume="changed").steps == 4
    assert "warning: the data have changed" in capsys.readouterr().out


def test_a_copy_of_the_data_is_the_same(copy):
    shutil.copytree(copy / "data", copy / "moved")
    config = configuration(copy / "moved", copy / "run")
    assert Trainer(config, console=Console(quiet=True)).fit().steps == 4


def test_another_number_of_classes_is_always_refused(copy):
    (copy / "data" / "dataset.yaml").write_text(
        yaml.safe_dump({"classes": ["ground", "square", "disc", "more"], "ignore": 255})
    )
    with pytest.raises(ValueError, match=r"cannot go on: the classes of split"):
        resume(copy, resume="changed")


def test_fewer_images_without_a_fingerprint(copy):
    """As in states of older versions."""
    for path in StateFolder(copy / "run" / "checkpoints" / "resume").files():
        content = torch.load(path, weights_only=True)
        torch.save({name: value for name, value in content.items() if name not in ("data", "options")}, path)
    for _ in range(5):
        one_image_fewer(copy / "data")
    with pytest.raises(ValueError, match=r"the run has taken 3 steps, 1 of them in epoch 2, but with the data as they"):
        resume(copy)
    with pytest.raises(ValueError, match=r"and the whole training 2\."):
        resume(copy, resume="changed")
    write_shapes(copy / "data", count=26)
    assert resume(copy, resume="changed").steps == 6


@pytest.mark.parametrize(
    ("counted", "epoch_steps", "expected"),
    [((2, 7, 1), 3, (2, 7, 1)), ((1, 3, 3), 3, None), ((2, 7, 1), 4, (1, 7, 3)), ((2, 8, 2), 4, (1, 8, 4))],
)
def test_epochs_of_another_length(counted, epoch_steps, expected):
    state = RunState(*counted[:1], step=counted[1], step_in_epoch=counted[2])
    if expected is None:
        with pytest.raises(ValueError, match="with the data as they are now an epoch has 3"):
            state.fit(epoch_steps, 2, changed=True)
    else:
        assert state.fit(epoch_steps, 20, changed=True) == (counted != expected)
        assert (state.epoch, state.step, state.step_in_epoch) == expected


def test_fingerprints_of_images_in_python():
    class Marked(Squares):
        fingerprint = 7

    images = own_trainer("unused", train=Squares(12, 0)).train
    before = {"train": fingerprint(images)}
    assert (before["train"]["images"], before["train"]["classes"]) == (12, CLASSES)
    assert changes(before, {"train": fingerprint(own_trainer("unused", train=Squares(12, 0)).train)}) is None
    assert "13 images" in changes(before, {"train": fingerprint(own_trainer("unused", train=Squares(13, 0)).train)})
    assert "content" in changes(before, {"train": fingerprint(own_trainer("unused", train=Marked(12, 0)).train)})
    assert changes({}, before) is None


def test_images_in_python_that_changed(tmp_path):
    assert fit_own(tmp_path / "run", 5) == [-9]
    with pytest.raises(ValueError, match=r"split train has 16 images, and had 12"):
        own_trainer(tmp_path / "run", train=Squares(16, seed=0)).fit()


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n", "data: {}\n"])
def test_emptied_config(copy, text):
    path = copy / "run" / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is empty"):
        resume(copy)


@pytest.mark.parametrize("text", ["- a\n", "optim: [\n", "optim: {lrr: 1}\n", "\0", "seed: 0\nseed: 0\n", "optim: 3\n"])
def test_config_edited_by_hand(copy, text):
    path = copy / "run" / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        resume(copy)


def test_a_value_in_config_that_its_option_does_not_take(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("optim: {lr: fast}\n")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: optim\.lr: fast is not a number"):
        as_begun(train_config({"out": str(tmp_path), "resume": "auto", "plan": True}))


def test_options_that_are_missing_are_compared(copy):
    """With the values that the run had, which its states and its result remember."""
    path = copy / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    del content["optim"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"has optim\.lr 0\.01, not 0\.02"):
        resume(copy, optim=OptimConfig(lr=0.02))
    assert resume(copy).steps == 4
    with pytest.raises(ValueError, match=r"has optim\.lr 0\.01, not 0\.02"):
        resume(copy, optim=OptimConfig(lr=0.02))
    result = copy / "run" / "result.json"
    older = {name: value for name, value in json.loads(result.read_text()).items() if name not in ("options", "crc32")}
    result.write_text(json.dumps(older))
    assert resume(copy).steps == 4


def test_balanced_weights_are_no_other_option(copy):
    """What the run has are numbers."""
    balanced = replace(configuration(copy, copy).loss, class_weights="balanced")
    shutil.rmtree(copy / "run")
    assert resume(copy, loss=balanced).steps == 4
    assert resume(copy, loss=balanced).steps == 4


def test_a_state_of_another_network(copy, monkeypatch):
    monkeypatch.setattr(assembly, "build_model", lambda name, **options: SmallModel(options["num_classes"]).double())
    for path in StateFolder(copy / "run" / "checkpoints" / "resume").files():
        content = torch.load(path, weights_only=True)
        torch.save({**content, "weights": {"other": torch.ones(2)}}, path)
    with pytest.raises(ValueError, match="are not of this network and optimizer"):
        resume(copy)
    assert RunFolder(configuration(copy, copy / "run")).states.files()
