"""Draws a PNG: the images of the validation split in which one run gains and loses most against another.

Run: python docs/pictures/changes.py docs/pictures/changes.png CE=runs/experiment-camvid/ce/lr0.1-seed0/run \
         "RMI, pool 4"=runs/experiment-camvid/rmi-pool-4/lr0.05-seed0/run
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from rmiseg.config import EvaluateConfig
from rmiseg.data import load_split, read_mask
from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.evaluation.scoring import find_or_score
from rmiseg.inference.checkpoint import CHECKPOINTS, LAST, load_checkpoint
from rmiseg.inference.pictures import colorize, titled_rows
from rmiseg.inference.predictor import Predictor
from rmiseg.reports.page import Run

GAINED, LOST = 3, 2
WIDTH = 400
BOTH_RIGHT, BOTH_WRONG, WON, LOST_PIXEL = (241, 243, 245), (173, 181, 189), (43, 138, 62), (201, 42, 42)


def main(out: str, first: str, second: str) -> None:
    runs = [_scored(*run.split("=", 1)) for run in (first, second)]
    name_a, name_b = (run.name for run in runs)
    data, classes = runs[0].checkpoint.data, runs[0].checkpoint.classes
    split = load_split(data.name, data.root, data.val_split)
    predictors = [Predictor(run.checkpoint) for run in runs]
    scores = [100 * run.image_scores for run in runs]
    order = np.argsort(np.subtract(*scores))
    rows = []
    for index in dict.fromkeys((*order[:GAINED], *order[-LOST:])):  # of few images some are both
        sample = split.samples[index]
        truth = read_mask(sample.mask, classes)
        a, b = (predictor(sample.image) for predictor in predictors)
        changes = np.full((*truth.shape, 3), 255, np.uint8)
        valid = truth != IGNORE_INDEX
        for color, where in {
            BOTH_RIGHT: (a == truth) & (b == truth),
            BOTH_WRONG: (a != truth) & (b != truth),
            WON: (a != truth) & (b == truth),
            LOST_PIXEL: (a == truth) & (b != truth),
        }.items():
            changes[where & valid] = color
        rows.append([_small(picture) for picture in (colorize(a, classes), colorize(b, classes), changes)])
        print(f"{sample.name}: {scores[0][index]:.1f} {scores[1][index]:.1f}")
    titles = [name_a, name_b, f"green: only {name_b} is right, red: only {name_a}\ngray: neither, white: not labeled"]
    picture = titled_rows(rows, titles, classes)
    picture.quantize(64).save(out, optimize=True)


def _scored(name: str, folder: str) -> Run:
    """The last checkpoint of a run, and how it does on the validation split."""
    path = Path(folder) / CHECKPOINTS / LAST
    evaluation = find_or_score(EvaluateConfig(checkpoint=str(path)), Console()).evaluation
    return Run(name, path, load_checkpoint(path), evaluation)


def _small(picture: np.ndarray) -> np.ndarray:
    size = (WIDTH, round(WIDTH * picture.shape[0] / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
