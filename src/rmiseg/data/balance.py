"""Class weights that make up for rare classes."""

from __future__ import annotations

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rmiseg.data.images import LabeledImages
from rmiseg.runtime.cores import worker_count
from rmiseg.runtime.device import made_on_cpu
from rmiseg.runtime.progress import track


def balanced_weights(images: LabeledImages, workers: int | None = 0, console: Console | None = None) -> list[float]:
    """Median frequency balancing (Eigen and Fergus, ICCV 2015, arXiv:1411.4734, section 6.3.2).

    The frequency of a class is its share of the valid pixels of the images that show it; its weight is the median of
    all frequencies over its own. A class that no image shows has weight 1.

    Args:
        images: The images, with masks.
        workers: Processes that read masks; 0 reads in the main process, and None means one a core.
        console: Where to show progress; by default nowhere.

    Returns:
        A weight for each class, of six digits.
    """
    own, around = torch.zeros(2, len(images.classes), dtype=torch.float64, device="cpu")
    loader = DataLoader(_Counts(images), batch_size=None, num_workers=worker_count(workers, len(images)))
    for counts in track(made_on_cpu(loader), "counting classes", console, total=len(images)):
        own += counts
        around += counts.sum() * (counts > 0)
    frequencies = (own / around)[own > 0]
    weights = torch.ones_like(own)
    weights[own > 0] = frequencies.quantile(0.5) / frequencies
    return [float(f"{weight:.6g}") for weight in weights.tolist()]


class _Counts(Dataset[Tensor]):
    """Pixels of each class in each mask: (C,) int64."""

    def __init__(self, images: LabeledImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        ids = torch.from_numpy(self.images.read_mask(index))
        return ids.flatten().long().bincount(minlength=256)[: len(self.images.classes)]
