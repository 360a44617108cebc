"""Masks that lie beside the wrong image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rmiseg.data import check_dataset, open_training_data, shifted


def squares(root, shift=0, noise=40, count=20, seed=0):
    """Squares on noise in train, and masks of the image that lies so many before."""
    chance = np.random.default_rng(seed)
    masks = np.zeros((count, 48, 64), np.uint8)
    for mask in masks:
        top, left = chance.integers(0, 24, 2)
        mask[top : top + 20, left : left + 30] = 1
    for index, mask in enumerate(masks):
        split = "val" if index % 5 == 0 else "train"
        image = np.clip(90 + 60 * mask + chance.normal(0, noise, mask.shape), 0, 255).astype(np.uint8)
        for folder, values in (("images", image), ("masks", masks[(index - shift) % count])):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / folder / f"img_{index}.png")
        with open(root / f"{split}.txt", "a") as file:
            file.write(f"img_{index}\n")
    (root / "dataset.yaml").write_text("classes: [a, b]")
    return root


@pytest.mark.parametrize(("shift", "where"), [(1, "before"), (-1, "after"), (0, ""), (3, "")])
def test_masks_of_the_neighbor(tmp_path, shift, where):
    root = squares(tmp_path, shift)
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=200))
    warnings = check_dataset("folder", root, workers=0).warnings
    if not where:
        assert (warnings, "warning" in stream.getvalue()) == ([], False)
        return
    (warning,) = warnings
    assert f"fit the image {where} their own better, such as those of {root}/masks/" in warning
    assert "Rename them" in warning
    assert f"warning: {warning}" in stream.getvalue().replace("\n", "")


def test_masks_that_no_edges_tell(tmp_path):
    assert check_dataset("folder", squares(tmp_path, 1, noise=4000), workers=0).warnings == []


def test_images_that_are_large_are_not_read_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shifted, "MOST_PIXELS", 100)
    assert check_dataset("folder", squares(tmp_path, 1), workers=0).warnings == []
