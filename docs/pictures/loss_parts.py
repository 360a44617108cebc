"""Draws loss_parts.png: what the pixel part and the RMI part of the loss do in the course of training.

Run: python docs/pictures/loss_parts.py "RMI, pool 4"=runs/experiment-camvid/rmi-pool-4/lr0.05-seed0/run ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PANELS = {
    "train/pixel": "pixel part (binary cross entropy)",
    "train/rmi": "RMI part, above its floor",
    "train/mIoU": "mIoU of the training images",
}
SMOOTHED = 5  # entries of ten steps each


def main(runs: list[str]) -> None:
    figure = Figure(figsize=(11, 3.2), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for (title, _, folder), color in zip((run.partition("=") for run in runs), ("#0b7285", "#e8590c", "#5f3dc4")):
        curves = EventAccumulator(folder)
        curves.Reload()
        for axis, tag in zip(axes, PANELS):
            events = curves.Scalars(tag)
            steps, values = [event.step for event in events], np.array([event.value for event in events])
            smooth = np.convolve(values, np.ones(SMOOTHED) / SMOOTHED, mode="valid")
            axis.plot(steps, values, color=color, alpha=0.25, linewidth=1)
            axis.plot(steps[SMOOTHED // 2 : len(steps) - SMOOTHED // 2], smooth, color=color, linewidth=2, label=title)
    for axis, title in zip(axes, PANELS.values()):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main(sys.argv[1:])
