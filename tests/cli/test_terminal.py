"""Names that would tell a terminal something."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from miniatures import write_shapes
from rmiseg.cli import main
from rmiseg.data.image_files.masks import read_raw_mask
from rmiseg.runtime.files import visible
from rmiseg.runtime.terminal import Console, loading

EVIL = "b\x1b[2J\x1b]0;x\x07\u202egnp"


def test_texts_are_made_visible():
    assert visible("a\tb\nc \u00e4 \u4e2d") == "a\tb\nc \u00e4 \u4e2d"
    assert visible("\x1b[31m\x9b\r\x7f\u202e") == r"\x1b[31m\x9b\r\x7f\u202e"
    stream = io.StringIO()
    table = Table("name\x1b[2J")
    table.add_row("cell\x1b[2J")
    console = Console(file=stream, width=100, force_terminal=False)
    console.print("text\x1b[2J", markup=False, soft_wrap=True)
    console.print(table)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count(r"\x1b[2J") == 3


@pytest.mark.parametrize(("terminal", "columns"), [(True, 30), (True, 60), (False, 80), (False, 30)])
def test_nothing_is_cut_off(terminal, columns, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    console = Console(file=stream, width=columns, force_terminal=terminal, color_system=None)
    table = Table("class", "IoU %", "95 % interval", "boundary IoU %", title="runs/mine on folder val")
    table.add_row("many words and a_very_very_very_very_long_one", "88.32", "80.43 to 95.28", "50.27")
    console.print(table)
    sentence = "Scores of every image: /a/path/with a blank/and/several/folders/evaluation/val"
    console.print(sentence)
    lines = stream.getvalue().splitlines()
    assert "…" not in stream.getvalue()
    assert all(sum(number in line for line in lines) == 1 for number in ("88.32", "80.43", "95.28", "50.27"))
    in_one = ["│ many words and a_very_very_very_very_long_one │ 88.32 │ 80.43 to 95.28 │ 50.27          │", sentence]
    assert [line in lines for line in in_one] == [not terminal, not terminal]


@pytest.mark.parametrize("command", ["check", "train", "predict"])
def test_names_of_files(tmp_path, capfd, command):
    write_shapes(tmp_path / "data", count=4)
    image = min((tmp_path / "data" / "images").rglob("*.png"))
    mask = tmp_path / "data" / "masks" / image.relative_to(tmp_path / "data" / "images")
    Image.new("L", (3, 3)).save(mask)
    for path in (image, mask):
        path.rename(path.with_name(f"{EVIL}.png"))
    arguments = {
        "check": ["data", "check", "--root", str(tmp_path / "data"), "--workers", "0"],
        "train": ["train", "--data.root", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--device", "cpu"],
        "predict": ["predict", str(tmp_path / EVIL), str(tmp_path), "--out", str(tmp_path / "out")],
    }
    assert main(arguments[command]) == 1
    said = "".join(capfd.readouterr())
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert r"b\x1b[2J" in said.replace("\n", "")


def test_layout_of_mmsegmentation(tmp_path, capsys):
    write_shapes(tmp_path, count=6)
    os.rename(tmp_path / "images", tmp_path / "img_dir")
    os.rename(tmp_path / "masks", tmp_path / "ann_dir")
    assert main(["data", "check", "--root", str(tmp_path), "--workers", "0"]) == 0
    assert "ann_dir" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.array([{}]), "it holds Python objects, which are not read"), (None, "larger than any image that is read")],
)
def test_arrays_that_are_no_masks(tmp_path, array, message):
    path = tmp_path / "a.npy"
    if array is None:  # as large as a disk, and hardly a block on it
        with open(path, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (200_000, 100_000)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 200_000 * 100_000)
    else:
        np.save(path, array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        read_raw_mask(path, rgb=False)


def test_what_is_in_the_way_of_the_demo_is_told_first(tmp_path, capsys):
    (tmp_path / "demo.png").mkdir()
    assert main(["demo", "--out", str(tmp_path), "--device", "cpu"]) == 1
    assert "demo.png is a folder, where a file is to be" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]


def test_a_terminal_shows_that_libraries_are_loaded_and_a_file_does_not(monkeypatch, capfd):
    with loading():
        pass
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes what it writes to for a terminal
    with loading():
        pass
    shown = capfd.readouterr()
    assert "loading PyTorch" in shown.err
    assert not shown.out
    monkeypatch.setenv("RANK", "1")
    with loading():
        pass
    assert capfd.readouterr() == ("", "")
