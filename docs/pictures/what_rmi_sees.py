"""Draws what_rmi_sees.png: predictions that cross entropy cannot tell apart, and RMI can.

Run: python docs/pictures/what_rmi_sees.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from rmiseg.data import ClassTable
from rmiseg.inference.pictures import titled_rows
from rmiseg.losses import CELoss, RMILoss

SIZE, CONFIDENCE, ZOOM = 128, 2.2, 2  # pixels; logit of a pixel's class, which is a probability of 0.9; enlargement


def truth() -> np.ndarray:
    """A street scene of sorts: a house with a chimney, and three poles."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[56:104, 16:72] = True
    for row in range(28):
        mask[28 + row, 44 - row - 2 : 44 + row + 2] = True
    mask[20:40, 58:64] = True
    for column in (84, 98, 112):
        mask[30:104, column : column + 4] = True
    return mask


def same_number_of_errors(mask: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions with exactly as many wrong pixels, in different places."""
    house, poles = mask & (np.arange(SIZE) < 76), mask & (np.arange(SIZE) >= 76)
    errors = int(poles.sum())
    without_floor, eroded = mask.copy(), mask.copy()
    without_floor.ravel()[np.flatnonzero(house)[-errors:]] = False
    depth = np.where(house, ndimage.distance_transform_edt(house), np.inf)
    eroded.ravel()[np.argsort(depth.ravel(), kind="stable")[:errors]] = False
    return {"truth": mask, "a floor missing": without_floor, "the poles missing": mask & ~poles, "eroded": eroded}


def main() -> None:
    mask = truth()
    target = torch.from_numpy(mask)[None].long()
    pictures, titles = [], []
    cross_entropy, rmi = CELoss(2), RMILoss(2, subtract_floor=True, weight_lambda=0.0)
    for title, prediction in same_number_of_errors(mask).items():
        foreground = torch.from_numpy(np.where(prediction, CONFIDENCE, -CONFIDENCE))[None, None]
        # As two classes: a difference of logits of 2.2 for softmax, and 2.2 for each sigmoid.
        ce = cross_entropy(torch.cat([-foreground, foreground], dim=1) / 2, target).item()
        region = rmi(torch.cat([-foreground, foreground], dim=1), target).item()
        colors = np.where(prediction[..., None], (230, 120, 60), (40, 44, 60)).astype(np.uint8)
        pictures.append(np.kron(colors, np.ones((ZOOM, ZOOM, 1), np.uint8)))
        titles.append(f"{title}\nCE {ce:.3f}   RMI {region:.2f}")
    table = ClassTable(("background", "object"), (0, 1), (), ((40, 44, 60), (230, 120, 60)))
    path = Path(__file__).with_suffix(".png")
    titled_rows([pictures], titles, table).save(path)
    print(*titles, path, sep="\n")


if __name__ == "__main__":
    main()
