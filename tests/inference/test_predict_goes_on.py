"""One image stops no others, and a prediction that was killed goes on with what is missing."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rmiseg.cli import main
from rmiseg.config import PredictConfig
from rmiseg.inference.checkpoint import load_checkpoint, save_checkpoint
from rmiseg.inference.predict import predict, predict_files
from rmiseg.inference.writer import Writer
from rmiseg.runtime.distributed import processes
from rmiseg.runtime.files import leftovers
from support.checkpoints import save_untrained
from support.launch import Forked, run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("checkpoint") / "model.pt")


def write_images(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def written(out: Path) -> dict[str, float]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*.png") if path.is_file()}


@pytest.mark.slow
def test_outputs_that_cannot_be_written_stop_no_others(checkpoint, tmp_path, capsys):
    long, longest = "l" * 245, "m" * 251
    photos = write_images(tmp_path / "photos", f"{long}.png", f"{longest}.jpg", "deep/a.png", "other/b.png", "z.png")
    out = tmp_path / "out"
    (out / "index").mkdir(parents=True)
    (out / "index" / "deep").write_text("where a folder should be")
    (out / "overlay").mkdir()
    (out / "overlay" / "z.png").symlink_to(tmp_path / "nowhere")
    arguments = ["predict", str(checkpoint), str(photos), "--out", str(out), "--device", "cpu"]
    assert main([*arguments, "--overwrite"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith("error: deep/a: ")
    assert "z.png is a symbolic link to" in errors[1]
    assert not (tmp_path / "nowhere").exists()
    assert {"index/other/b.png", f"index/{long}.png", f"index/{longest}.png"} < set(written(out))
    assert not list(out.rglob(".*.tmp"))
    (out / "index" / "deep").unlink()
    (out / "overlay" / "z.png").unlink()
    before = written(out)
    assert main([*arguments, "--resume", "auto"]) == 0
    assert "2 images (3 more were there already)" in capsys.readouterr().out
    after = written(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == 10


def test_names_that_are_too_long_for_one_format(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("rmiseg.inference.outputs._below", lambda folder, name: Path(folder, f"{name}_of_a_kind.png"))
    photos = write_images(tmp_path / "photos", f"{'l' * 245}.png", "b.png")
    found = predict(checkpoint, photos, out=tmp_path / "out", write=["index"], device="cpu")
    assert (found.images, len(found.problems)) == (1, 1)
    assert "too long" in found.problems[0]
    assert len(found.problems[0]) < 1200


def test_labels_of_all_images_are_made_of_those_that_could_be_written(checkpoint, tmp_path):
    photos = write_images(tmp_path / "photos", f"{'m' * 251}.png", "b.png")
    (photos / "broken.png").write_bytes(b"none")
    found = predict(checkpoint, photos, out=tmp_path / "out", write=["coco"], device="cpu")
    assert (found.images, len(found.problems)) == (1, 2)
    labels = json.loads((tmp_path / "out" / "coco" / "annotations.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == ["b.png"]


def test_labels_of_all_images_that_cannot_be_written_hide_no_other_problem(checkpoint, tmp_path, monkeypatch):
    def full(self, folder):
        raise OSError(28, "No space left on device", "annotations.json")

    monkeypatch.setattr("rmiseg.inference.labels.LabelFiles.finish", full)
    photos = write_images(tmp_path / "photos", "b.png")
    (photos / "broken.png").write_bytes(b"none")
    found = predict(checkpoint, photos, out=tmp_path / "out", write=["coco"], device="cpu")
    assert found.images == 1
    assert "broken.png" in found.problems[0]
    assert "annotations.json" in found.problems[1]


def test_memory_that_does_not_suffice_for_an_image(checkpoint, tmp_path, monkeypatch):
    photos = write_images(tmp_path / "photos", "a.png", "b.png", "c.png")
    from rmiseg.inference.predictor import Predictor

    tile_logits = Predictor.tile_logits
    sizes = iter([1, 2, 3])

    def scarce(self, size, read):
        if next(sizes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tile_logits(self, size, read)

    monkeypatch.setattr(Predictor, "tile_logits", scarce)
    found = predict(checkpoint, photos, out=tmp_path / "out", device="cpu")
    assert (found.images, found.problems) == (2, ["b: CUDA out of memory"])


@pytest.mark.slow
def test_results_of_other_settings_are_not_gone_on_with(checkpoint, tmp_path, capsys):
    photos = write_images(tmp_path / "photos", "a.png")
    out = tmp_path / "out"
    arguments = ["predict", str(checkpoint), str(photos), "--out", str(out), "--device", "cpu", "--resume", "auto"]
    assert main([*arguments, "--write", "index"]) == 0
    before = written(out)
    assert main([*arguments, "--write", "index"]) == 0
    assert written(out) == before
    assert main([*arguments, "--write", "index,color"]) == 0  # another kind
    assert set(written(out)) == {"index/a.png", "color/a.png"}
    for options, message in (
        (["--flip"], "were made with settings"),
        (["--opacity", "0.7"], "were made with opacity 0.5, not 0.7"),
        (["--overwrite"], "give one"),
    ):
        assert main([*arguments, *options]) == 1
        assert message in capsys.readouterr().err
    about = json.loads((out / "predictions.json").read_text())
    (out / "predictions.json").write_text(json.dumps({**about, "sha256": "0"}))
    assert main(arguments) == 1
    assert (
        f"were made with the checkpoint {checkpoint}, as it was then, and it has changed since"
        in capsys.readouterr().err
    )
    for text in ("[", "[]", "3"):
        (out / "predictions.json").write_text(text)
        assert main(arguments) == 1
        assert "predictions.json cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_results_that_another_checkpoint_left_are_made_again(checkpoint, tmp_path, capsys):
    photos, out = write_images(tmp_path / "photos", "a.png", "b.png"), tmp_path / "out"
    other = tmp_path / "other.pt"
    save_checkpoint(other, replace(load_checkpoint(checkpoint), step=2))
    options = ["--out", str(out), "--device", "cpu", "--write", "index"]
    assert main(["predict", str(checkpoint), str(photos), *options]) == 0
    assert main(["predict", str(other), str(photos / "b.png"), *options]) == 1  # would say that both are of it
    assert f"with the checkpoint {checkpoint}, not {other}; use" in capsys.readouterr().err
    before = written(out)
    assert main(["predict", str(other), str(photos / "b.png"), *options, "--overwrite"]) == 0
    note = f"note: {out} keeps 1 file of another checkpoint or of other settings, such as index/a.png"
    assert note in capsys.readouterr().out
    assert main(["predict", str(other), str(photos), *options, "--resume", "auto"]) == 0
    assert "1 image (1 more were there already)" in capsys.readouterr().out
    assert all(time != before[name] for name, time in written(out).items())
    assert main(["predict", str(other), str(photos), *options, "--overwrite"]) == 0
    assert main(["predict", str(checkpoint), str(photos), *options, "--overwrite"]) == 0
    assert "note" not in capsys.readouterr().out  # none stays


@pytest.mark.slow
def test_images_that_were_replaced_are_segmented_again(checkpoint, tmp_path, capsys):
    photos, out = write_images(tmp_path / "photos", "a.png", "b.png"), tmp_path / "out"
    arguments = ["predict", str(checkpoint), str(photos), "--out", str(out), "--device", "cpu", "--resume", "auto"]
    assert main(arguments) == 0
    before = written(out)
    later = before["index/b.png"] + 10**9
    os.utime(photos / "b.png", ns=(later, later))
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 image (1 more were there already)" in capsys.readouterr().out
    assert {name for name, time in written(out).items() if time != before[name]} == {"index/b.png", "overlay/b.png"}


@pytest.mark.slow
def test_killed_and_given_again(checkpoint, tmp_path):
    photos = write_images(tmp_path / "photos", *(f"{index:03d}.png" for index in range(60)))
    out = tmp_path / "out"
    command = ["predict", str(checkpoint), str(photos), "--out", str(out)]
    command += ["--write", "index", "--resume", "auto", "--device", "cpu"]
    process = Forked(command, tmp_path / "log.txt")
    deadline = time.monotonic() + 120
    while len(list(out.glob("index/*.png"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (out / "index" / f".059.png.{process.pid}.tmp").write_text("half of a file")
    before = written(out)
    assert 5 <= len(before) < 60
    assert main(command) == 0
    after = written(out)
    assert len(after) == 60
    assert {name: after[name] for name in before} == before
    assert not leftovers(out / "index")
    whole = tmp_path / "whole"
    predict(checkpoint, photos, out=whole, write=["index"], device="cpu")
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in after)
    assert os.listdir(out) == os.listdir(whole)


@pytest.mark.slow
def test_processes_share_the_images(checkpoint, tmp_path):
    """Each image once, in one of them; what cannot be read is told once; then only what is missing."""
    photos = write_images(tmp_path / "photos", *(f"{name}.png" for name in "abcde"))
    (photos / "c.png").write_bytes(b"no image")
    expected = predict(checkpoint, photos, out=tmp_path / "alone", device="cpu", write=["index"])
    out, log = tmp_path / "out", tmp_path / "log"
    assert run(_predict, checkpoint, photos, out, log, False, processes=2) == [0, 0]
    ours, theirs = (json.loads((log / f"{rank}.json").read_text()) for rank in range(2))
    assert ours["result"] == theirs["result"] == [4, expected.problems, 0]
    assert sorted(ours["own"] + theirs["own"]) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert len(ours["own"]) == 3
    assert written(out).keys() == written(tmp_path / "alone").keys()
    for name in written(out):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()

    before = written(out)
    (out / "index" / "d.png").unlink()
    assert run(_predict, checkpoint, photos, out, log, True, processes=2) == [0, 0]
    assert json.loads((log / "0.json").read_text())["result"] == [1, expected.problems, 3]
    assert {name for name, time in written(out).items() if before[name] != time} == {"index/d.png"}


def _predict(checkpoint: Path, photos: Path, out: Path, log: Path, resume: bool) -> None:
    own = []
    write = Writer.run

    def seen(self, sources):
        own.extend(source.file.name for source in sources)
        return write(self, sources)

    Writer.run = seen
    config = PredictConfig(checkpoint=str(checkpoint), images=[str(photos)], out=str(out), write=["index"])
    config.resume = "auto" if resume else "never"
    with processes("cpu") as device:
        found = predict_files(config, None, device)
        log.mkdir(exist_ok=True)
        result = [found.images, found.problems, found.kept]
        (log / f"{os.environ['RANK']}.json").write_text(json.dumps({"own": own, "result": result}))


def test_options_of_what_is_written(checkpoint, tmp_path):
    photos = write_images(tmp_path / "photos", "a.png")
    predict(checkpoint, photos, out=tmp_path / "out", write=["labelme"], tolerance=3.5, opacity=0.25, device="cpu")
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (about["tolerance"], about["opacity"]) == (3.5, 0.25)
    with pytest.raises(TypeError, match="slope"):
        predict(checkpoint, photos, out=tmp_path / "other", slope=1)
