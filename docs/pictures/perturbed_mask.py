"""Draws perturbed_mask.png: cross entropy and RMI of a mask that is shifted, blurred or noised.

Run: python docs/pictures/perturbed_mask.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import ndimage
from what_rmi_sees import CONFIDENCE, truth

from rmiseg.losses import CELoss, RMILoss

INK, CE_COLOR, RMI_COLORS = "#212529", "#868e96", {4: "#0b7285", 2: "#22b8cf"}


def shifted(mask: np.ndarray, pixels: float) -> np.ndarray:
    return ndimage.shift(mask.astype(float), (0, pixels), order=1)


def blurred(mask: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(mask.astype(float), sigma)


def noised(mask: np.ndarray, share: float) -> np.ndarray:
    flipped = np.random.default_rng(0).random(mask.shape) < share
    return np.where(flipped, ~mask, mask).astype(float)


PERTURBATIONS = {
    "shifted by, pixels": (shifted, np.linspace(0, 8, 17)),
    "blurred by, pixels": (blurred, np.linspace(0, 6, 13)),
    "flipped at random, share of pixels": (noised, np.linspace(0, 0.2, 11)),
}


def losses(prediction: np.ndarray, target: torch.Tensor) -> dict[str, float]:
    """Cross entropy, and RMI above its floor at two pool sizes, of a foreground between 0 and 1."""
    logit = torch.from_numpy(CONFIDENCE * (2 * prediction - 1))[None, None]
    values = {"cross entropy": CELoss(2)(torch.cat([-logit, logit], dim=1) / 2, target).item()}
    for pool_size in RMI_COLORS:
        rmi = RMILoss(2, pool_size=pool_size, subtract_floor=True, weight_lambda=0.0)
        values[f"RMI, pool {pool_size}"] = rmi(torch.cat([-logit, logit], dim=1), target).item()
    return values


def main() -> None:
    mask = truth()
    target = torch.from_numpy(mask)[None].long()
    colors = {"cross entropy": CE_COLOR, **{f"RMI, pool {size}": color for size, color in RMI_COLORS.items()}}
    figure = Figure(figsize=(10.5, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(PERTURBATIONS), sharey=True)
    for axis, (title, (perturb, amounts)) in zip(axes, PERTURBATIONS.items()):
        found = [losses(perturb(mask, amount), target) for amount in amounts]
        for name, color in colors.items():
            values = np.array([each[name] for each in found])
            axis.plot(amounts, values / values[0], color=color, linewidth=2, label=name)
        axis.set_xlabel(title, color=INK)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("loss, relative to that of\nthe unperturbed mask", color=INK)
    axes[0].legend(frameon=False, fontsize=9)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
