"""No flipped bit goes unnoticed, and no nonsense is taken for a model."""

from __future__ import annotations

import json
import math
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data import ClassTable
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import count_image
from rmiseg.evaluation.results import load_evaluation, make_report, save_evaluation
from rmiseg.exports.export import export
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.tensor_files import not_finite
from rmiseg.training.checkpoint_folder import CheckpointFolder
from rmiseg.training.state import RunState, SavedState, StateFolder
from support.checkpoints import save_untrained

CLASSES = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
FLIPS = 40


def checkpoint(weights=None, **changes) -> Checkpoint:
    fields = {"step": 5, "scores": {"mean_iou": 0.5, "other": math.nan}, **changes}
    weights = weights or {"w": torch.arange(3000.0)}
    return Checkpoint(weights, ModelConfig(), DataConfig(root="x"), CLASSES, **fields)


def state(step: int, **changes) -> SavedState:
    fields = {
        "run": RunState(step=step, best={"mean_iou": 0.5}),
        "weights": {"w": torch.arange(300.0)},
        "optimizer": {"state": {"w": {"momentum_buffer": torch.ones(300)}}, "param_groups": [{"lr": 0.1}]},
        "scaler": {},
        "confusion": torch.zeros(2, 2, dtype=torch.int64),
    }
    return SavedState(**(fields | changes))


def unnoticed(path: Path, read: Callable[[], object]) -> list[int]:
    """Places of flipped bits of a file with which it is still read."""
    whole, rng, places = path.read_bytes(), random.Random(0), []
    for _ in range(FLIPS):
        place = rng.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            read()
        except ValueError:
            continue
        places.append(place // 8)
    path.write_bytes(whole)
    read()
    return places


def test_flipped_bits_of_a_checkpoint(tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, checkpoint())
    assert unnoticed(path, lambda: load_checkpoint(path)) == []
    with zipfile.ZipFile(path) as file:  # other programs read it as before
        assert file.testzip() is None
    assert torch.load(path, weights_only=True, mmap=True)["step"] == 5


@pytest.mark.parametrize("keep", [slice(None, -4), slice(None, -1), slice(4, None)])
def test_a_seal_that_is_damaged_is_none_of_an_older_file(tmp_path, keep):
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint())
    whole = path.read_bytes()
    for damaged in (whole[:-21] + whole[-21:][keep], whole + whole[-13:], whole + b"\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.pt is damaged"):
            load_checkpoint(path)


def test_flipped_bits_of_a_state(tmp_path):
    folder = StateFolder(tmp_path)
    folder.save(state(1))
    (path,) = folder.files()
    assert unnoticed(path, lambda: folder.load(Console(quiet=True))) == []
    folder.save(state(2))
    whole = folder.files()[0].read_bytes()
    folder.files()[0].write_bytes(whole[:2000] + bytes([whole[2000] ^ 4]) + whole[2001:])
    assert folder.load(Console(quiet=True)).run.step == 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    save_untrained(folder / "a.pt", scores={"mean_iou": 0.5})
    export(folder / "a.pt", ["safetensors"], out=folder / "exported")
    return folder / "exported"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.slow
def test_flipped_bits_of_an_exported_model(exported, file):
    same = load_checkpoint(exported)
    path = exported / file
    for place in unnoticed(path, lambda: load_checkpoint(exported)):
        assert file == "config.json"
        assert path.read_bytes()[place : place + 1].isspace(), "what is read is the same"
    assert Segmenter.from_pretrained(exported).classes == same.classes


def test_an_exported_model_that_is_damaged_is_no_segmenter_either(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        Segmenter.from_pretrained(folder)


@pytest.mark.parametrize("file", ["scores.json", "images.npz"])
def test_flipped_bits_of_an_evaluation(tmp_path, file):
    rng = np.random.default_rng(0)
    counts = [count_image(*rng.integers(0, 2, (2, 9, 9), dtype=np.uint8), 2) for _ in range(5)]
    confusion = sum(each.confusion for each in counts)
    iou = {"iou": np.stack([each.counts for each in counts])}
    evaluation = Evaluation(tuple("abcde"), confusion, iou, {"total": 2.5, "model": 1.25})
    about = {"checkpoint": "a.pt", "sha256": "0", "step": 1, "data": "folder", "split": "val", "settings": {}}
    save_evaluation(tmp_path, evaluation, make_report(evaluation, ("a", "b"), about))
    assert unnoticed(tmp_path / file, lambda: load_evaluation(tmp_path)) == []
    path = tmp_path / "scores.json"
    report = json.loads(path.read_text())
    for name in ("crc32", "images_crc32"):
        del report[name]
    del report["seconds"]["crc32"]
    path.write_text(json.dumps(report))  # as older ones are
    assert load_evaluation(tmp_path).evaluation.seconds == {"total": 2.5, "model": 1.25}


def test_files_without_a_checksum_are_read(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint())
    torch.save(torch.load(path, weights_only=True), path)
    assert load_checkpoint(path).step == 5
    folder = StateFolder(tmp_path)
    folder.save(state(3))
    torch.save(torch.load(folder.files()[0], weights_only=True), folder.files()[0])
    assert folder.load(Console(quiet=True)).run.step == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    weights = {"a": torch.ones(3), "b": torch.tensor([1.0, value])}
    assert not_finite(weights) == f"b holds {value}"
    save_checkpoint(tmp_path / "a.pt", checkpoint(weights))
    with pytest.raises(ValueError, match=r"a\.pt.*its weights are not finite \(b holds"):
        load_checkpoint(tmp_path / "a.pt")
    folder = CheckpointFolder(tmp_path / "run", keep=1)
    with pytest.raises(FloatingPointError, match=r"not finite after step 5"):
        folder.save(checkpoint(weights, scores={"mean_iou": 0.9}))
    assert list(folder.path.iterdir()) == []
    states = StateFolder(tmp_path / "states")
    states.save(state(1))
    states.save(state(2, weights=weights))
    assert states.load(Console(quiet=True)).run.step == 1


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(10**12),
        torch.empty(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(3).to(torch.float8_e4m3fn),
    ],
    ids=["expanded", "meta", "sparse", "complex", "float8"],
)
def test_weights_that_are_no_plain_tensors(tmp_path, tensor):
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint())
    torch.save({**torch.load(path, weights_only=True), "weights": {"w": tensor}}, path)
    with pytest.raises(ValueError, match=r"a\.pt.*w is no plain tensor of numbers"):
        load_checkpoint(path)


def test_large_weights_are_finite():
    assert (
        not_finite({"a": torch.full((4,), 3e38), "b": torch.tensor([], dtype=torch.float32), "c": torch.ones(2).int()})
        is None
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -3}, "step is -3"),
        ({"step": "many"}, "step is 'many', which is no int"),
        ({"step": True}, "step is True"),
        ({"scores": {"mean_iou": math.inf}}, "score mean_iou is inf"),
        ({"scores": {"mean_iou": "high"}}, "scores is"),
        ({"align_corners": 2}, "align_corners is 2"),
        ({"architecture": 3}, "architecture is 3"),
        ({"data": {"image_scale": math.nan}}, "image_scale must be .*, not nan"),
        ({"data": {"image_scale": 1e9}}, "image_scale must be 0.001 or more, and at most 16, not 1000000000"),
        ({"data": {"workers": 10**23}}, "workers must be 0 or more, and at most 1024, not 1e"),
        ({"data": {"crop_size": [3]}}, r"crop_size is \[3\]"),
        ({"data": {"on_error": "perhaps"}}, "on_error is 'perhaps'"),
        ({"model": {"backbone": 3}}, "model.backbone is 3"),
        ({"model": {"name": "x" * 10**6 + "y", "options": 3}}, "model.options is 3"),
        ({"classes": {"names": (1, 2), "values": (0, 1), "ignore": (), "palette": ((0, 0, 0), (1, 1, 1))}}, "classes"),
    ],
)
def test_nonsense_in_a_checkpoint(tmp_path, change, message):
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint())
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(ValueError, match=message) as raised:
        load_checkpoint(path)
    assert len(str(raised.value)) < 1000


def test_classes_that_do_not_match_the_weights(exported):
    good = load_checkpoint(exported)
    three = ClassTable(("a", "b", "c"), (0, 1, 2), (255,), 3 * ((0, 0, 0),))
    with pytest.raises(ValueError, match="3 classes, as it says itself"):
        Checkpoint(good.weights, good.model, good.data, three, 1, {}).build_model(torch.device("cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"step": -1}},
        {"run": {"step": 1.5}},
        {"run": {"stop": 1}},
        {"run": 3},
        {"weights": {"w": 3}},
        {"weights": [1]},
        {"optimizer": 3},
        {"confusion": 3},
        {"callbacks": [3]},
        {"more": 3},
    ],
)
def test_nonsense_in_a_state(tmp_path, change, capsys):
    folder = StateFolder(tmp_path)
    folder.save(state(1))
    folder.save(state(2))
    path = folder.files()[0]
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    assert folder.load(Console(width=1000)).run.step == 1
    assert f"{path} holds no training state as it should be" in capsys.readouterr().out


def test_names_of_classes_in_a_model_card(exported, tmp_path):
    """Whatever they hold, they are text in a cell of a table."""
    good = load_checkpoint(exported)
    names = ("<img src=x onerror=alert(1)> # title | cell", "[click](javascript:alert(1)) `code` \\| {{ 7 * 7 }}")
    classes = ClassTable(names, (0, 1), (255,), ((0, 0, 0), (1, 1, 1)))
    checkpoint = Checkpoint(good.weights, good.model, good.data, classes, 1, {"<b>score</b>": 0.5})
    Segmenter.from_checkpoint(checkpoint).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert r"| 0 | &lt;img src=x onerror=alert(1)&gt; # title \| cell | #000000 |" in card
    assert r"| 1 | \[click\](javascript:alert(1)) \`code\` \\\| {{ 7 * 7 }} | #010101 |" in card
    assert "<b>" not in card
    assert load_checkpoint(tmp_path).classes == classes
