"""Masks that lie beside the wrong image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rmiseg.data import check_dataset, open_training_data, scan_split
from rmiseg.data.bands import RGB
from rmiseg.data.checking import edges, shifted


def squares(root, order, noise=25, count=20, size=(48, 64), seed=0):
    """Squares on noise in train and val, each beside the mask of another image as the order says."""
    chance = np.random.default_rng(seed)
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        top, left = chance.integers(0, size[0] // 2, 2)
        mask[top : top + size[0] * 2 // 5, left : left + size[1] // 2] = 1
    for index, mask in enumerate(masks):
        split = "val" if index % 5 == 0 else "train"
        image = np.clip(90 + 60 * mask + chance.normal(0, noise, mask.shape), 0, 255).astype(np.uint8)
        for folder, values in (("images", image), ("masks", masks[order[index]])):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / folder / f"img_{index}.png")
        with open(root / f"{split}.txt", "a") as file:
            file.write(f"img_{index}\n")
    (root / "dataset.yaml").write_text("classes: [a, b]")
    return root


def beside(count, kind, seed=0):
    """The mask beside each image: of the one so many places before, or in any order."""
    if kind == "shuffled":
        return np.random.default_rng(seed).permutation(count)
    if kind == "named":  # 1, 10, 11, ... where images are 1, 2, 3, ...
        return sorted(range(count), key=str)
    return [(index - kind) % count for index in range(count)]


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (-1, "the image after their own better"),
        (1, "the image before their own better"),
        (2, "the image 2 places before their own better"),
        (-5, "the image 5 places after their own better"),
        ("shuffled", "another image far better than their own"),
        ("named", "another image far better than their own"),
        (0, ""),
    ],
)
def test_masks_of_others(tmp_path, kind, where):
    root = squares(tmp_path, beside(20, kind))
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=200))
    warnings = check_dataset("folder", root, workers=0).warnings
    if not where:
        assert (warnings, "warning" in stream.getvalue()) == ([], False)
        return
    (warning,) = warnings
    assert f"fit {where}, such as those of {root}/masks/" in warning
    assert ("Rename them" in warning) != ("Give each mask the name of its image" in warning)
    assert f"warning: {warning}" in stream.getvalue().replace("\n", "")


@pytest.mark.parametrize(
    ("turn", "size", "said"),
    [
        (lambda mask: mask[::-1], (48, 64), "far better upside down,"),
        (lambda mask: mask[:, ::-1], (48, 64), "far better mirrored from left to right,"),
        (lambda mask: mask[::-1, ::-1], (48, 64), "far better turned by 180 degrees,"),
        (np.transpose, (64, 64), "far better with rows and columns exchanged,"),
        (np.rot90, (64, 64), "far better turned by -90 degrees,"),
        (lambda mask: mask, (64, 64), ""),
    ],
)
def test_masks_that_are_turned(tmp_path, turn, size, said):
    root = squares(tmp_path, beside(20, 0), size=size)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.ascontiguousarray(turn(np.asarray(Image.open(path))))).save(path)
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=2000))
    warnings = check_dataset("folder", root, workers=0).warnings
    assert [said in warning for warning in warnings] == [True] * bool(said)
    assert ("masks seem to be turned" in stream.getvalue()) == bool(said)


@pytest.mark.parametrize("share", [1, 4, 10, 16, 19])
def test_masks_whose_classes_are_exchanged(tmp_path, share):
    root = squares(tmp_path, beside(20, 0))
    for path in sorted((root / "masks").iterdir())[:share]:
        Image.fromarray(1 - np.asarray(Image.open(path))).save(path)
    (warning,) = check_dataset("folder", root, workers=0).warnings
    assert f"of 20 that were looked at, {min(share, 20 - share)} are like the others" in warning


def test_masks_of_large_and_of_small_objects(tmp_path):
    """Objects that fill the image are as bright as small ones."""
    root = squares(tmp_path, beside(20, 0))
    for number in range(6):
        mask = np.zeros((48, 64), np.uint8)
        mask[2 + number : 40 + number, 2 + 2 * number : 52 + 2 * number] = 1
        Image.fromarray(mask).save(root / "masks" / f"img_{number}.png")
        noise = np.random.default_rng(number).normal(90 + 60 * mask, 25)
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "images" / f"img_{number}.png")
    assert check_dataset("folder", root, workers=0).warnings == []


def test_more_images_are_looked_at_where_none_fits(tmp_path):
    split = scan_split("folder", squares(tmp_path, beside(70, 35), count=70, size=(24, 32)), "train")
    (warning,) = shifted.fit_warnings(split.samples, split.classes, RGB, most=12)
    assert "of 56 that were looked at, the edges of" in warning
    assert "another image far better" in warning


def test_some_of_the_masks_are_shuffled(tmp_path):
    order = list(range(20))
    order[4:9] = [6, 4, 8, 5, 7]
    (warning,) = check_dataset("folder", squares(tmp_path, order), workers=0).warnings
    assert "of 20 that were looked at, the edges of 5 fit another image" in warning


def test_masks_that_no_edges_tell(tmp_path):
    assert check_dataset("folder", squares(tmp_path, beside(20, 1), noise=4000), workers=0).warnings == []


def test_images_that_are_alike(tmp_path):
    root = squares(tmp_path, beside(20, 1))
    content = (root / "images" / "img_0.png").read_bytes()
    for path in (root / "images").iterdir():
        path.write_bytes(content)
    assert not [each for each in check_dataset("folder", root, workers=0).warnings if "beside" in each]


def test_images_that_are_large(tmp_path, monkeypatch):
    """They are read at a lower resolution, as many as take some seconds."""
    monkeypatch.setattr(edges, "LONG_SIDE", 40)
    root = squares(tmp_path, beside(16, 3), count=16, size=(80, 96))
    assert "3 places before" in check_dataset("folder", root, workers=0).warnings[0]
    monkeypatch.setattr(shifted, "MOST_PIXELS", 80 * 96 * 11)
    assert check_dataset("folder", root, workers=0).warnings == []
