"""Run lengths of Kaggle in CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rmiseg.data.sets.finding import scan_splits
from support.labels import imported, write_photo

SIZES = (24, 32), (40, 28), (30, 30)


def encoded(mask: np.ndarray, down: bool, first: int = 1) -> str:
    """Runs of a mask, the plain way."""
    runs: list[int] = []
    inside = False
    for number, pixel in enumerate(mask.ravel(order="F" if down else "C").tolist(), start=first):
        if pixel and not inside:
            runs += [number, 0]
        if pixel:
            runs[-1] += 1
        inside = pixel
    return " ".join(map(str, runs))


def disc(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    image = Image.new("1", size[::-1])
    x, y = rng.uniform(0.3, 0.7, 2) * size[::-1]
    rx, ry = rng.uniform(0.15, 0.4, 2) * size[::-1]
    ImageDraw.Draw(image).ellipse((x - rx, y - ry, x + rx, y + ry), fill=1)
    return np.asarray(image)


def write_table(path: Path, header: str, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")


def write_discs(root: Path, down: bool, sizes=SIZES[:2], *, first: int = 1, header: str = "ImageId,EncodedPixels"):
    rng, masks, rows = np.random.default_rng(0), {}, []
    for number in range(6):
        size = sizes[number % len(sizes)]
        write_photo(root / "images" / f"{number}.png", size)
        masks[f"train/{number}"] = disc(rng, size)
        rows.append([f"{number}.png", encoded(masks[f"train/{number}"], down, first)])
    write_table(root / "train.csv", header, rows)
    return masks


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("first", [1, 0])
def test_the_order_is_seen(tmp_path, down, first):
    masks = write_discs(tmp_path / "k", down, first=first)
    if first == 0:  # so that it is seen: else it would be one pixel off
        whole = np.ones((24, 32), bool)
        write_photo(tmp_path / "k" / "images" / "9.png", (24, 32))
        with open(tmp_path / "k" / "train.csv", "a") as file:
            file.write(f"9.png,{encoded(whole, down, 0)}\n")
        masks["train/9"] = whole
    report, found, classes = imported(tmp_path / "k", val=0)
    assert report.format == ("kaggle-columns" if down else "kaggle-rows")
    assert classes == ["background", "object"]
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)
    assert any("from 0" in note for note in report.notes) == (first == 0)


@pytest.mark.parametrize("down", [True, False])
def test_square_images_do_not_say_the_order(tmp_path, down):
    masks = write_discs(tmp_path / "k", down, SIZES[2:])
    with pytest.raises(ValueError, match=r"name one with --format: kaggle-columns .*, kaggle-rows"):
        imported(tmp_path / "k")
    _, found, _ = imported(tmp_path / "k", val=0, format="kaggle-columns" if down else "kaggle-rows")
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("ImageId,ClassId,EncodedPixels", lambda name, label, runs: [name, label, runs]),
        ("ImageId_ClassId,EncodedPixels", lambda name, label, runs: [f"{name}_{label}", runs]),
        ("Image_Label,EncodedPixels", lambda name, label, runs: [f"{name}_{label}", f'"{runs}"']),
        ("id,class,segmentation,other", lambda name, label, runs: [name.removesuffix(".png"), label, runs, "x"]),
    ],
)
def test_classes_and_objects(tmp_path, header, cells):
    """Rows of an image are of several classes and objects; those of none count as images without labels."""
    root, size = tmp_path / "k", SIZES[0]
    first, second, third = (np.zeros(size, bool) for _ in range(3))
    first[2:6, 3:9], second[10:20, 4:30], third[15:22, 10:12] = True, True, True
    for name in ("a_b.png", "c.png", "d.png"):
        write_photo(root / "images" / name, size)
    rows = [("a_b.png", "1", first), ("a_b.png", "1", second), ("a_b.png", "2", third), ("d.png", "2", first)]
    table = [cells(name, label, encoded(mask, True)) for name, label, mask in rows]
    write_table(root / "train.csv", header, [*table, cells("c.png", "1", ""), cells("d.png", "1", "-1")])
    report, found, classes = imported(root, val=0)
    assert classes == ["background", "1", "2"]
    np.testing.assert_array_equal(found["train/a_b"], np.where(third, 2, first | second))
    np.testing.assert_array_equal(found["train/d"], 2 * first)
    assert set(found) == {"train/a_b", "train/d"}
    assert "images without labels are left out" in report.unused.lines()[0]
    assert set(imported(root, val=0, empty="background")[1]) == {"train/a_b", "train/c", "train/d"}


def test_images_without_rows(tmp_path):
    """Beside images with rows they show nothing; elsewhere they are those of the test."""
    masks = write_discs(tmp_path / "k", True)
    write_photo(tmp_path / "k" / "images" / "nothing.png", SIZES[0])
    write_photo(tmp_path / "k" / "test_images" / "unknown.png", SIZES[0])
    report, found, _ = imported(tmp_path / "k", val=0)
    assert found.keys() == masks.keys()
    assert "1 images without labels are left out" in report.unused.lines()[0]
    report, found, _ = imported(tmp_path / "k", val=0, empty="background")
    assert found.keys() == {*masks, "train/nothing"}
    assert not found["train/nothing"].any()


def test_submissions_are_no_labels(tmp_path):
    write_discs(tmp_path / "k", True)
    write_table(tmp_path / "k" / "sample_submission.csv", "ImageId,EncodedPixels", [["0.png", "1 1"]])
    write_table(tmp_path / "k" / "depths.csv", "id,z", [["0", "12"]])
    report, found, _ = imported(tmp_path / "k", val=0)
    assert len(found) == 6
    (line,) = report.unused.lines()
    assert "2 CSV files hold no labels" in line


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("1 2 3", "pairs of a first pixel and a length, not 3 numbers"),
        ("1 2 x 4", "whole numbers"),
        ("5 3 7 2", "SIIM"),
        ("100 669 10 4", "SIIM"),
        ("700 70", r"ends at pixel 769, beyond the 32 x 24 of its image"),
        ("5 0", "is empty"),
        ("5 -1", "is empty"),
    ],
)
def test_damaged_runs(tmp_path, runs, message):
    root = tmp_path / "k"
    write_discs(root, True)
    with open(root / "train.csv", "a") as file:
        file.write(f"0.png,{runs}\n")
    with pytest.raises(ValueError, match=rf"train.csv: image 0.png: .*line 8: .*{message}"):
        imported(root)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_a_spreadsheet(tmp_path, separator):
    root = tmp_path / "k"
    masks = write_discs(root, True, header="ImageId,EncodedPixels")
    table = (root / "train.csv").read_text()
    (root / "train.csv").write_text(table.replace(",", separator))
    report, found, _ = imported(root, val=0)
    assert report.format == "kaggle-columns"
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)


def test_damaged_tables(tmp_path):
    root = tmp_path / "k"
    write_discs(root, True)
    whole = (root / "train.csv").read_bytes()
    (root / "train.csv").write_bytes(whole + b"1.png\n")
    with pytest.raises(ValueError, match=r"train.csv, line 8: 1 cells, where the first line has 2"):
        imported(root)
    (root / "train.csv").write_bytes(whole + b"\xff,1 2\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        imported(root)


def test_sizes_of_the_table(tmp_path):
    """Images of another size than the labels are told, not read wrong."""
    root, size = tmp_path / "k", SIZES[0]
    mask = disc(np.random.default_rng(1), size)
    write_photo(root / "a.png", size)
    write_photo(root / "b.png", SIZES[1])
    rows = [[name, encoded(mask, False), *map(str, size)] for name in ("a", "b")]
    write_table(root / "train.csv", "id,annotation,height,width", rows)
    report, found, _ = imported(root, val=0)
    np.testing.assert_array_equal(found["train/a"], mask)
    assert "images have another size than their labels" in report.unused.lines()[0]


def test_whoever_trains_on_it_is_told(tmp_path):
    write_discs(tmp_path / "k", True)
    with pytest.raises(FileNotFoundError, match=r"is read by `rmiseg data import .* --out NEW`"):
        scan_splits("folder", tmp_path / "k")
