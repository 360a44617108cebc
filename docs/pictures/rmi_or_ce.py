"""Draws a PNG: how far RMI + Dice is ahead of CE + Dice on each data set, a dot a seed.

Run: python docs/pictures/rmi_or_ce.py docs/pictures/rmi_or_ce.png experiments/results/recipes
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from matplotlib.figure import Figure

SCORES = {"mean_iou": "mIoU", "boundary_mean_iou": "boundary IoU"}
SHORT, FULL = ("300 steps", "#0b7285"), ("the whole recipe", "#e8590c")
BATCH = ("300 steps, one covariance for the batch", "#9775fa")
FULL_BATCH = ("the whole recipe, one covariance for the batch", "#f08c00")
HEIGHTS = {SHORT: -0.24, BATCH: -0.08, FULL: 0.08, FULL_BATCH: 0.24}
PAIRS = {  # by data set, the names of runs without their seeds: RMI + Dice, and CE + Dice
    "CamVid": [
        ("camvid/lite0-rmi4-dice", "camvid/lite0-ce-dice", SHORT),
        ("camvid/lite0-rmi4-batch-dice", "camvid/lite0-ce-dice", BATCH),
        ("camvid/camvid-best", "camvid/camvid-best-ce-dice", FULL),
    ],
    "nuclei": [
        ("nuclei/lite0-unet-rmi2-dice-turned", "nuclei/lite0-unet-ce-dice-turned", SHORT),
        ("nuclei/lite0-unet-rmi2-batch-dice-turned", "nuclei/lite0-unet-ce-dice-turned", BATCH),
        ("nuclei/turned-192", "nuclei/turned-192-ce-dice", FULL),
        ("nuclei/turned-192-batch", "nuclei/turned-192-ce-dice", FULL_BATCH),
    ],
    "vessels": [
        ("vessels/lite0-unet-rmi2-dice-turned", "vessels/lite0-unet-ce-dice-turned", SHORT),
        ("vessels/lite0-unet-rmi2-batch-dice-turned", "vessels/lite0-unet-ce-dice-turned", BATCH),
        ("vessels/vessels-best", "vessels/vessels-best-ce-dice", FULL),
        ("vessels/vessels-best-batch", "vessels/vessels-best-ce-dice", FULL_BATCH),
    ],
    "cracks": [
        ("cracks/lite0-unet-rmi2-dice-turned", "cracks/lite0-unet-ce-dice-turned", SHORT),
        ("cracks/lite0-unet-rmi2-batch-dice-turned", "cracks/lite0-unet-ce-dice-turned", BATCH),
        ("cracks/cracks-best", "cracks/cracks-best-ce-dice", FULL),
        ("cracks/cracks-best-batch", "cracks/cracks-best-ce-dice", FULL_BATCH),
    ],
    "tiles": [
        ("tiles/lite0-rmi2-dice-flipped", "tiles/lite0-ce-dice-flipped", SHORT),
        ("tiles/lite0-rmi2-batch-dice-flipped", "tiles/lite0-ce-dice-flipped", BATCH),
        ("tiles/tiles-best-rmi-ce-dice", "tiles/tiles-best-width256", FULL),
        ("tiles/tiles-best-rmi-batch-dice", "tiles/tiles-best", FULL_BATCH),
    ],
}


def main(out: str, folder: str) -> None:
    figure = Figure(figsize=(8.6, 3.6), dpi=130, layout="constrained")
    for axis, (score, title) in zip(figure.subplots(1, len(SCORES), sharey=True), SCORES.items()):
        axis.axvline(0, color="#868e96", linewidth=0.8)
        for row, pairs in enumerate(PAIRS.values()):
            for rmi, ce, kind in pairs:
                first, second = (runs(Path(folder), name, score) for name in (rmi, ce))
                for seed in first.keys() & second.keys():
                    axis.plot(100 * (first[seed] - second[seed]), row + HEIGHTS[kind], "o", color=kind[1])
        axis.set_yticks(range(len(PAIRS)), list(PAIRS))
        axis.set_ylim(len(PAIRS) - 0.5, -0.5)
        axis.set_xscale("symlog", linthresh=3)
        axis.set_xticks([-15, -8, -3, -1, 0, 1, 3, 8], ["-15", "-8", "-3", "-1", "0", "+1", "+3", "+8"])
        axis.minorticks_off()
        axis.set_xlim(-17, 12)
        axis.set_title(f"RMI + Dice less CE + Dice: points of {title}", fontsize=10)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    for length, color in HEIGHTS:
        axis.plot([], [], "o", color=color, label=length)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(out, format="png")


def runs(folder: Path, name: str, score: str) -> dict[int, float]:
    """A score of the last weights by seed, where it was measured."""
    found = {}
    for path in folder.glob(f"{name}*.json"):
        if seed := re.fullmatch(rf"{re.escape(Path(name).name)}(?:-seed(\d+))?", path.stem):
            scores = json.loads(path.read_text())["last"]
            if score in scores:
                found[int(seed[1] or 0)] = scores[score]
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
