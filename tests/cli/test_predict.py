"""`rmiseg predict` as a user runs it, on a small data set."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from rmiseg.cli import main
from rmiseg.data import load_split
from support.commands import error_of


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
