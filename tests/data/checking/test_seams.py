"""Masks that were resized with interpolation, which makes classes of their own between others."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from miniatures import write_image, write_values
from rmiseg.data import check_dataset, class_ids, open_training_data
from rmiseg.data.checking.seams import is_seam, seams
from rmiseg.data.classes import ClassTable

SIZE = (64, 48)


def discs(seed: int, *values: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    mask = np.zeros(SIZE[::-1], np.uint8)
    for value in values:
        down, right = chance.integers(10, 38), chance.integers(10, 54)
        mask[(y - down) ** 2 + (x - right) ** 2 < 49] = value
    return mask


def enlarged(mask: np.ndarray, how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize((32, 24), Image.Resampling.NEAREST).resize(SIZE, how))


def reduced(mask: np.ndarray) -> np.ndarray:
    small = Image.fromarray(mask).resize((40, 30), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(SIZE, Image.Resampling.NEAREST))


def warnings_of(root: Path, classes: str, masks: list[np.ndarray]) -> tuple[list[str], str]:
    for number, mask in enumerate(masks):
        split = "val" if number == 0 else "train"
        write_image(root / "images" / split / f"{number}.png", size=SIZE)
        write_values(root / "masks" / split / f"{number}.png", mask)
    (root / "dataset.yaml").write_text(f"classes: {classes}")
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=2000))
    return [each for each in check_dataset("folder", root, workers=0).warnings if "seams" in each], stream.getvalue()


@pytest.mark.parametrize("resized", [enlarged, reduced])
@pytest.mark.parametrize(
    ("values", "classes", "found"),
    [
        ((2,), "[ground, crack, disc]", "crack (1)"),
        ((1, 2, 3), "[ground, a, b, c]", "a (1)"),
        ((20,), "{disc: 20, crack: 10, ground: 0}", "crack (10)"),
    ],
)
def test_classes_between_others(tmp_path, resized, values, classes, found):
    masks = [resized(discs(seed, *values)) for seed in range(8)]
    if "20" in classes:
        masks = [np.where((mask > 0) & (mask < 20), 10, mask).astype(np.uint8) for mask in masks]
    (warning,), said = warnings_of(tmp_path, classes, masks)
    assert "resized with interpolation" in warning
    assert f"So it is with {found}" in warning
    assert warning in said


@pytest.mark.parametrize("how", ["drawn", "nearest", "thin", "nested"])
def test_classes_as_they_are(tmp_path, how):
    masks = [discs(seed, 1, 2, 3) for seed in range(8)]
    if how == "nearest":
        masks = [enlarged(mask, Image.Resampling.NEAREST) for mask in masks]
    for mask in masks:
        if how == "thin":  # a wire before all, most of it before the ground
            mask[20:22] = 1
        if how == "nested":  # a ring, which keeps its inside from its outside
            y, x = np.mgrid[: SIZE[1], : SIZE[0]]
            distance = np.hypot(y - 24, x - 32)
            mask[:] = np.where(distance < 8, 3, np.where(distance < 15, 2, np.where(distance < 22, 1, 0)))
    warnings, said = warnings_of(tmp_path, "[ground, a, b, c]", masks)
    assert not warnings
    assert "seams" not in said


def test_what_is_counted():
    ids = np.array([[0, 0, 1, 2, 2], [0, 0, 2, 2, 2], [255, 255, 255, 0, 0]], np.uint8)
    pixels, between, touching = seams(ids, class_ids(["a", "b", "c"]))
    assert pixels.tolist() == [6, 1, 5]
    assert between.tolist() == [0, 1, 0]
    assert touching.tolist() == [0, 3, 0]  # of 0 and 2: one beside another in row 2, two one above another
    turned = ClassTable(("c", "a", "b"), (7, 0, 3), (255,), ((0, 0, 0),) * 3)
    assert (seams(np.where(ids == 255, 255, (ids + 1) % 3).astype(np.uint8), turned)[1] == [0, 0, 1]).all()


def test_the_middle_of_large_masks(monkeypatch):
    monkeypatch.setattr("rmiseg.data.checking.seams.MOST", 4)
    assert seams(np.ones((9, 3), np.uint8), class_ids(["a", "b", "c"]))[0].tolist() == [0, 12, 0]


def test_of_nothing_is_no_seam():
    assert not is_seam(0, 0, 0)


def test_an_image_that_is_its_mask(tmp_path):
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            write_values(tmp_path / folder / split / f"{split}.png", discs(1, 1, 2))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b, c]")
    assert "are the same file" in check_dataset("folder", tmp_path, workers=0).splits[0].unreadable[0]
    with pytest.raises(ValueError, match=r"train\.png are the same file, byte for byte: save what it should be"):
        open_training_data("folder", str(tmp_path), ("train", "val"))
