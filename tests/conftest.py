"""A small data set and a small model that train in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from PIL import Image

torch.set_num_threads(1)  # tests run in several processes
# Where there is no GPU, the Triton kernels run in Triton's interpreter. It must be chosen before Triton is imported, as
# torchvision and timm do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples at every run, so that a change is judged by what it changed. New ones:
# pytest --hypothesis-profile explore
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("repeatable")


def write_shapes(root: Path, count: int = 10, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """A `folder` data set of noisy squares and discs on a dark ground, three classes, 255 at one edge."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    for index in range(count):
        mask = np.zeros(size, np.uint8)
        for label in (1, 2):
            cy, cx, r = rng.integers(8, height - 8), rng.integers(8, width - 8), rng.integers(6, 12)
            inside = (abs(y - cy) < r) & (abs(x - cx) < r) if label == 1 else (y - cy) ** 2 + (x - cx) ** 2 < r**2
            mask[inside] = label
        colors = np.array([[40, 40, 60], [200, 80, 60], [60, 160, 220]])
        pixels = colors[mask] + rng.normal(0, 20, (*size, 3))
        mask[:, 0] = 255
        for folder, array in (("images", pixels.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / f"shape{index:02d}.png")
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": ["ground", "square", "disc"]}))
    return root


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))
