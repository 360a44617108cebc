"""Draws a PNG: mIoU and boundary IoU of the losses on several data sets, from the small files of their runs.

Run: python docs/pictures/losses.py docs/pictures/losses.png experiments/results/losses-unet
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

SCORES = {"mean_iou": "mIoU", "boundary_mean_iou": "boundary IoU"}
TITLES = {
    "ce": "CE",
    "ce-dice": "CE + Dice",
    "rmi-pool-1": "RMI, pool 1",
    "rmi-pool-2": "RMI, pool 2",
    "rmi-pool-4": "RMI, pool 4",
}
COLORS = {
    "ce": "#868e96",
    "ce-dice": "#e8590c",
    "rmi-pool-2": "#0b7285",
    "rmi-pool-1": "#99e9f2",
    "rmi-pool-4": "#5f3dc4",
}


def main(out: str, folder: str) -> None:
    runs = [(path.parts[-3], path.parts[-2], json.loads(path.read_text())) for path in Path(folder).glob("*/*/*.json")]
    sets = [name for name in ("cracks", "vessels", "nuclei", "tiles") if any(name == each for each, _, _ in runs)]
    figure = Figure(figsize=(8.6, 0.6 * len(sets) + 1.5), dpi=130, layout="constrained")
    for axis, (score, title) in zip(figure.subplots(1, len(SCORES), sharey=True), SCORES.items()):
        for number, (method, name) in enumerate(TITLES.items()):
            found = [(sets.index(data), run["last"][score]) for data, each, run in runs if each == method]
            if found:
                rows, values = zip(*found)
                heights = [row + 0.16 * (number - 2) for row in rows]
                axis.plot([100 * value for value in values], heights, "o", color=COLORS[method], label=name)
        for row in range(len(sets) - 1):
            axis.axhline(row + 0.5, color="#dee2e6", linewidth=0.8)
        axis.set_yticks(range(len(sets)), sets)
        axis.set_ylim(len(sets) - 0.5, -0.5)
        axis.set_title(f"{title}, %", fontsize=10)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(out, format="png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
