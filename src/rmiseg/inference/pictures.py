"""Pictures of masks: class colors, overlays, and labeled panels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rmiseg.data.classes import IGNORE_INDEX, ClassTable, id_colors


def colorize(ids: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Class ids (H, W) uint8 in the colors of the classes: (H, W, 3) uint8."""
    return np.take(id_colors(classes), ids, axis=0)


def overlay(pixels: np.ndarray, ids: np.ndarray, classes: ClassTable, opacity: float = 0.5) -> np.ndarray:
    """Class colors over the image (H, W, 3) uint8; ignored pixels show the image alone."""
    blended = np.take(np.float32(opacity) * id_colors(classes), ids, axis=0)
    blended += np.float32(1 - opacity) * pixels
    overlaid = np.rint(blended, out=blended).astype(np.uint8)
    ignored = ids == IGNORE_INDEX
    overlaid[ignored] = pixels[ignored]
    return overlaid


def panel_row(pixels: np.ndarray, masks: Sequence[np.ndarray], classes: ClassTable) -> np.ndarray:
    """An image (H, W, 3) and class ids (H, W) of masks of it, side by side: (H, (1 + M) * W, 3) uint8."""
    return np.concatenate([pixels, *(colorize(ids, classes) for ids in masks)], axis=1)


def titled_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], classes: ClassTable) -> Image.Image:
    """Rows of pictures (H, W, 3) with a title over each column and the class colors below them.

    Args:
        rows: The pictures; all of a row are of one height, and all of one width.
        titles: Titles of the columns.
        classes: Names and colors of the classes.
    """
    width, heights = rows[0][0].shape[1], [row[0].shape[0] for row in rows]
    gap, line = 6, 20
    top, bottom = gap + line * max(title.count("\n") + 1 for title in titles), 30
    font = ImageFont.load_default(size=16)
    size = len(titles) * (width + gap) + gap, top + sum(heights) + len(rows) * gap + bottom
    canvas = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for j, title in enumerate(titles):
        center = gap + j * (width + gap) + width / 2
        draw.text((center, top / 2), title, fill=(0, 0, 0), font=font, anchor="mm", align="center")
        for i, row in enumerate(rows):
            canvas.paste(Image.fromarray(row[j]), (gap + j * (width + gap), top + sum(heights[:i]) + i * gap))
    x, y = float(gap), canvas.height - bottom / 2
    for name, color in zip(classes.names, classes.palette):
        draw.rectangle((x, y - 8, x + 16, y + 8), fill=color, outline=(0, 0, 0))
        draw.text((x + 22, y), name, fill=(0, 0, 0), font=font, anchor="lm")
        x += 22 + draw.textlength(name, font=font) + 16
    return canvas


def confusion_picture(confusion: np.ndarray, classes: ClassTable) -> np.ndarray:
    """A confusion matrix as a picture (H, W, 3) uint8: the darker a cell, the larger its share of the true class.

    Args:
        confusion: (C, C) pixels of each true class (rows) and predicted class (columns).
        classes: Names and colors, which are shown beside the rows and above the columns.
    """
    count = len(classes)
    cell = max(4, min(40, 720 // count))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # The root makes rare confusions visible.
    white, blue = np.array([246, 247, 248]), np.array([11, 79, 138])
    cells = white + np.sqrt(shares)[..., None] * (blue - white)
    matrix = cells.round().astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)

    font = ImageFont.load_default(size=min(14, max(8, cell - 2)))
    named = cell >= 10  # else there is only room for the colors
    left = 12 + cell + (round(max(font.getlength(name) for name in classes.names)) if named else 0)
    top = 8 + cell
    canvas = Image.new("RGB", (left + matrix.shape[1] + 8, top + matrix.shape[0] + 8), (255, 255, 255))
    canvas.paste(Image.fromarray(matrix), (left, top))
    draw = ImageDraw.Draw(canvas)
    for index, (name, color) in enumerate(zip(classes.names, classes.palette)):
        x, y = left + index * cell, top + index * cell
        draw.rectangle((x + 1, 4, x + cell - 2, 4 + cell - 3), fill=color, outline=(128, 128, 128))
        draw.rectangle((left - cell - 2, y + 1, left - 5, y + cell - 2), fill=color, outline=(128, 128, 128))
        if named:
            draw.text((left - cell - 8, y + cell / 2), name, fill=(0, 0, 0), font=font, anchor="rm")
        if cell >= 28:
            for other, share in enumerate(shares[index]):
                if share >= 0.005:
                    ink = (255, 255, 255) if share > 0.35 else (0, 0, 0)
                    center = (left + (other + 0.5) * cell, y + cell / 2)
                    draw.text(center, f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    return np.asarray(canvas)
