"""The fully connected CRF of Krähenbühl and Koltun (NeurIPS 2011), as DeepLab and the RMI paper refine results with it.

The package pydensecrf2 computes it, holding Python's global lock, so that images are refined in processes. Each imports
this module: nothing here may import torch, which takes longer than a small image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmiseg.config import CRFConfig
from rmiseg.runtime.extras import import_extra

SMALLEST_PROBABILITY = 1e-6


class Refined(NamedTuple):
    """Class ids (H, W) uint8 after each number of iterations, and the seconds that all of them took."""

    ids: list[np.ndarray]
    seconds: float


def refine(image: np.ndarray, probabilities: np.ndarray, iterations: Sequence[int], config: CRFConfig) -> Refined:
    """Refine one image by its colors.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (C, H, W) float32.
        iterations: Numbers of mean-field iterations after which there is a result.
        config: The kernels.

    Returns:
        The class ids after each of `iterations`, in their order.
    """
    package = import_extra("pydensecrf.densecrf", "crf", "a dense CRF")
    started = time.perf_counter()
    classes, height, width = probabilities.shape
    crf = package.DenseCRF2D(width, height, classes)
    energy = -np.log(np.maximum(probabilities, SMALLEST_PROBABILITY), dtype=np.float32)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(classes, -1)))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.ascontiguousarray(image),
        compat=config.bilateral_compat,
    )
    state, first, second = crf.startInference()
    found = {}
    for step in range(1, max(iterations) + 1):
        crf.stepInference(state, first, second)
        if step in iterations:
            found[step] = np.array(state).argmax(axis=0).astype(np.uint8).reshape(height, width)
    return Refined([found[step] for step in iterations], time.perf_counter() - started)
