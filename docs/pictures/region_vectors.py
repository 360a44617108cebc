"""Draws region_vectors.png: what RMI compares, the squares around pixels, as vectors.

Run: python docs/pictures/region_vectors.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from what_rmi_sees import truth

from rmiseg.functional import pool_maps

INK, GRID, MARKS = "#212529", "#ced4da", ("#e8590c", "#0b7285", "#7048e8")
PLACES = ((14, 9), (8, 15), (20, 25))  # rows and columns of the middles of regions, after pooling by 4
R = 3


def main() -> None:
    mask = torch.from_numpy(truth().astype(np.float32))[None, None]
    pooled = pool_maps(mask, mask, "avg", 4)[0][0, 0].numpy()
    figure = Figure(figsize=(10.5, 3.6), dpi=130, layout="constrained")
    full, small, vectors = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    full.imshow(mask[0, 0], cmap="gray", vmin=-0.3, vmax=1)
    full.set_title("labels of one class", fontsize=10, color=INK)
    small.imshow(pooled, cmap="gray", vmin=-0.3, vmax=1)
    small.set_title("pooled by 4, with three regions of 3 x 3", fontsize=10, color=INK)
    for (row, column), color in zip(PLACES, MARKS):
        corner = (column - R // 2 - 0.5, row - R // 2 - 0.5)
        small.add_patch(Rectangle(corner, R, R, fill=False, edgecolor=color, linewidth=2))
    for number, ((row, column), color) in enumerate(zip(PLACES, MARKS)):
        vector = pooled[row - 1 : row + 2, column - 1 : column + 2].reshape(1, -1)
        top = 1.5 * number
        vectors.imshow(vector, cmap="gray", vmin=-0.3, vmax=1, extent=(0, R * R, top + 1, top))
        vectors.add_patch(Rectangle((0, top), R * R, 1, fill=False, edgecolor=color, linewidth=2, clip_on=False))
    vectors.set_xlim(-0.2, R * R + 0.2)
    vectors.set_ylim(1.5 * len(PLACES) - 0.3, -0.2)
    vectors.set_title("the same as vectors: points in 9 dimensions", fontsize=10, color=INK)
    vectors.spines[:].set_visible(False)
    for axis in (full, small, vectors):
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in (full, small):
        axis.spines[:].set_color(GRID)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
