"""An image as a model sees it, and the pictures of that which the page shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from rmiseg.data import read_image
from rmiseg.data.classes import IGNORE_INDEX, ClassTable
from rmiseg.data.image_files.opening import image_header
from rmiseg.inference.pictures import colorize, overlay
from rmiseg.inference.predictor import Predictor

VIEWS = ("overlay", "classes", "confidence", "image")
UNSURE, SURE = np.array([44, 16, 82]), np.array([250, 224, 120])


@dataclass(frozen=True)
class Seen:
    """An image and the prediction of a model.

    Attributes:
        pixels: (H, W, 3) uint8, the image.
        ids: (H, W) uint8, the most probable class of each pixel.
        confidence: (H, W) float32, its probability.
    """

    pixels: np.ndarray
    ids: np.ndarray
    confidence: np.ndarray


def look(predictor: Predictor, path: Path, max_pixels: int) -> Seen:
    """Segment the image in a file.

    Args:
        predictor: The model.
        path: The file.
        max_pixels: Refuse larger images before they are decoded.

    Raises:
        OSError, ValueError: The file is no image that can be read, or is too large.
    """
    height, width = image_header(path, predictor.bands.pages).size
    if width * height > max_pixels:
        raise ValueError(
            f"the image has {width} x {height} pixels, more than the {max_pixels} that are taken here; make it "
            "smaller, use `rmiseg predict`, or start the app with a larger --max_pixels"
        )
    pixels = read_image(path, bands=predictor.bands)
    probabilities = predictor.probabilities(pixels)
    return Seen(
        predictor.bands.picture_of(pixels), probabilities.argmax(axis=0).astype(np.uint8), probabilities.max(axis=0)
    )


def picture(seen: Seen, view: str, shown: Collection[str], opacity: float, classes: ClassTable) -> np.ndarray:
    """One of `VIEWS`, as (H, W, 3) uint8; pixels of classes that are not `shown` are left out of the first two."""
    if view == "image":
        return seen.pixels
    if view == "confidence":
        share = ((seen.confidence - 1 / len(classes)) / (1 - 1 / len(classes))).clip(0, 1)[..., None]
        colors: np.ndarray = UNSURE + share * (SURE - UNSURE)
        return colors.round().astype(np.uint8)
    hidden = np.isin(seen.ids, [index for index, name in enumerate(classes.names) if name not in shown])
    ids = np.where(hidden, np.uint8(IGNORE_INDEX), seen.ids)
    return colorize(ids, classes) if view == "classes" else overlay(seen.pixels, ids, classes, opacity)


def shares(seen: Seen, classes: ClassTable) -> dict[str, float]:
    """The share of the image's pixels of each class."""
    counts = np.bincount(seen.ids.ravel(), minlength=len(classes))
    return {name: float(count) / seen.ids.size for name, count in zip(classes.names, counts)}


def legend(seen: Sequence[Seen], names: Sequence[str], classes: ClassTable) -> str:
    """A table in HTML: the color of each class, and its share of the image's pixels by each model."""
    rows = []
    by_model = [shares(each, classes) for each in seen]
    for name, color in zip(classes.names, classes.palette):
        swatch = f'<span class="swatch" style="background: rgb{tuple(color)}"></span>'
        cells = "".join(f"<td>{100 * each[name]:.1f} %</td>" for each in by_model)
        rows.append(f"<tr><th scope='row'>{swatch}{escape(name)}</th>{cells}</tr>")
    heads = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names[: len(seen)])
    head = f"<thead><tr><th scope='col'>class</th>{heads}</tr></thead>" if seen else ""
    return f"<table class='legend'>{head}<tbody>{''.join(rows)}</tbody></table>"
