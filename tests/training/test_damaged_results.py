"""Files of results and folds that a later command reads: damaged, of another kind, or no files at all."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from rmiseg.evaluation import results
from rmiseg.evaluation.results import load_evaluation
from rmiseg.exports.hub import _training
from rmiseg.runtime.checksums import sealed
from rmiseg.runtime.files import read_json, to_json
from rmiseg.runtime.places import check_places
from rmiseg.training.folds import Division, read_division
from rmiseg.training.run_folder import RunResult, read_result, write_result

DIVISION = {"asked": 2, "options": {}, "held_out": [["a", "b"], ["c"]]}


def test_a_flipped_bit_of_a_result(tmp_path):
    path = tmp_path / "result.json"
    result = RunResult(tmp_path, 3, 0.25, 7, last={"mean_iou": 0.5}, best={"mean_iou": float("nan")})
    write_result(path, result, {"options": {"optim.lr": 0.1, "data.crop_size": (4, 4)}})
    read, options = read_result(path)
    assert (read.last, options) == ({"mean_iou": 0.5}, {"optim.lr": 0.1, "data.crop_size": [4, 4]})
    data = path.read_bytes()
    for place in range(data.index(b"crc32")):
        if data[place : place + 1] not in b" \n":
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(ValueError, match="cannot be read as the result of a run"):
                read_result(path)
    path.write_text(to_json({key: value for key, value in json.loads(data).items() if key != "crc32"}))
    assert read_result(path)[0].steps == 3  # of an older version


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"last": null}', "\ud800", "[" * 5000, '{"last": {"a": []}, "best": {}}']
)
def test_results_that_are_none(tmp_path, text):
    (tmp_path / "result.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=r"result\.json cannot be read as the result of a run \(it ") as error:
        read_result(tmp_path / "result.json")
    assert "object" not in str(error.value)
    assert "NoneType" not in str(error.value)


def test_json_that_is_ambiguous_or_no_file(tmp_path):
    path = tmp_path / "a.json"
    for text, message in (
        ('{"a": 1, "a": 2}', "an object in it has the key 'a' twice"),
        ('{"a": NaN}', "it holds NaN"),
        ('{"a": -Infinity}', "it holds -Infinity"),
        ("{", "cut short"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(path)
    for name, target in (("zero", "/dev/zero"), ("folder", str(tmp_path))):
        os.symlink(target, tmp_path / name)
        with pytest.raises(ValueError, match="it is no file"):
            read_json(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is no file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match=r"pipe is a pipe or a device, where a file is to be"):
        check_places(files=[tmp_path / "pipe"])


def test_folds(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(to_json(sealed(DIVISION)))
    assert read_division(path) == Division(**DIVISION)
    path.write_text(to_json(DIVISION))
    assert read_division(path) == Division(**DIVISION)
    path.write_text(to_json({**sealed(DIVISION), "asked": 3}))
    with pytest.raises(ValueError, match="it is damaged"):
        read_division(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked": "2"}, "asked is '2', which is no int"),
        ({"options": 3}, "options is 3"),
        ({"held_out": [5, 6]}, r"held_out is \[5, 6\]"),
        ({"held_out": ["a", "b"]}, "held_out is"),
        ({"held_out": []}, "fewer than two folds"),
        ({"held_out": [["a"], []]}, "without images"),
        ({"held_out": [["a", "b"], ["b"]]}, "the image 'b' is in two folds"),
        ({"more": 1}, "it must hold asked, held_out, options, and nothing else"),
    ],
)
def test_folds_that_are_none(tmp_path, change, message):
    (tmp_path / "folds.json").write_text(to_json({**DIVISION, **change}))
    with pytest.raises(ValueError, match=message):
        read_division(tmp_path / "folds.json")


def test_evaluations_that_are_bombs_or_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MOST_UNPACKED", 1 << 10)
    texts = dict.fromkeys(("checkpoint", "sha256", "split", "data"), "")
    report = {"format": "rmiseg evaluation 2", **texts, "classes": {}, "seconds": {}, "settings": {}, "images": 1}
    (tmp_path / "scores.json").write_text(to_json({**report, "confusion": [[1]], "metrics": []}))
    np.savez_compressed(tmp_path / "images.npz", names=np.zeros(1 << 21, np.uint8))
    with pytest.raises(ValueError, match=r"images\.npz would have 2097280 bytes when it is unpacked"):
        load_evaluation(tmp_path)
    (tmp_path / "images.npz").unlink()
    os.mkfifo(tmp_path / "images.npz")
    with pytest.raises(ValueError, match=r"images\.npz is no file"):
        load_evaluation(tmp_path)


def test_options_of_a_card():
    assert _training([1]) == {}
    assert _training({"loss": [1], "optim": {"lr": 0.1}}) == {"learning rate": "0.1"}
