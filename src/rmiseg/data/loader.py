"""Batches, the same ones whatever the number of worker processes.

The order of an epoch, and the seed of each item's augmentation, are a pure function of (size, seed, epoch), computed
in the main process. Workers only carry it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rmiseg.data.dataset import SegmentationDataset


class Batch(TypedDict):
    """What loaders yield: image uint8 (N, 3, H, W), mask uint8 (N, H, W), and N names."""

    image: torch.Tensor
    mask: torch.Tensor
    name: list[str]


def epoch_keys(size: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """The items of one epoch in their order, as keys (index, seed of the augmentation) of `SegmentationDataset`."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(size)
    seeds = rng.integers(2**63, size=size)
    return list(zip(order.tolist(), seeds.tolist()))


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields `epoch_keys` of the epoch last set, 0 at first."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(epoch_keys(self.size, self.seed, self.epoch))


class _ErrorsAsItems(Dataset[Any]):
    """Returns what is wrong with a file instead of raising it.

    An exception that leaves a worker process arrives with that process's traceback in its message.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any] | Exception:
        try:
            return self.dataset[key]
        except (ValueError, OSError) as error:
            return error


class Loader(DataLoader[Any]):
    """A DataLoader of `Batch`; what is wrong with a file is raised here, as the data set would raise it itself."""

    def __init__(self, dataset: SegmentationDataset, *, workers: int, **options: Any) -> None:
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        super().__init__(
            _ErrorsAsItems(dataset),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            **options,
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


class TrainLoader(Loader):
    """A `Loader` whose order and augmentation are set by `set_epoch`."""

    sampler: EpochSampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through; without it, every pass is the same."""
        self.sampler.epoch = epoch


def train_loader(dataset: SegmentationDataset, *, batch_size: int, workers: int, seed: int) -> TrainLoader:
    """Shuffled, augmented batches of equal size; images left over at the end of an epoch are dropped.

    Args:
        dataset: Its transform must return crops of one size.
        batch_size: Images in a batch.
        workers: Processes that read images; 0 reads in the main process.
        seed: Seed of order and augmentation, 0 or more.

    Raises:
        ValueError: a value out of range, or fewer images than one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    if len(dataset) < batch_size:
        raise ValueError(
            f"the training split has {len(dataset)} images, fewer than one batch of {batch_size}: lower data.batch_size"
        )
    sampler = EpochSampler(len(dataset), seed)
    return TrainLoader(dataset, workers=workers, batch_size=batch_size, sampler=sampler, drop_last=True)


def eval_loader(dataset: SegmentationDataset, *, workers: int) -> Loader:
    """Every image once, in order, as a `Batch` of one because images may differ in size.

    Args:
        dataset: Its transform must not be random.
        workers: Processes that read images; 0 reads in the main process.

    Raises:
        ValueError: a negative number of workers.
    """
    return Loader(dataset, workers=workers, batch_size=1, shuffle=False)


def collate(items: list[Any]) -> Batch | Exception:
    """Stack items of `SegmentationDataset` into plain tensors; or the first exception, if there is one among them.

    Raises:
        ValueError: images or masks of different sizes.
    """
    for item in items:
        if isinstance(item, Exception):
            return item
    for part in ("image", "mask"):
        shapes = {tuple(item[part].shape) for item in items}
        if len(shapes) > 1:
            raise ValueError(f"{part}s of one batch differ in size: {sorted(shapes)}; crop them to one size")
    return {
        "image": torch.stack([item["image"].as_subclass(torch.Tensor) for item in items]),
        "mask": torch.stack([item["mask"].as_subclass(torch.Tensor) for item in items]),
        "name": [item["name"] for item in items],
    }
