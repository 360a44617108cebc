"""Batches, the same ones whatever the number of worker processes.

The order of an epoch, and the seed of each item's augmentation, are a pure function of (size, seed, epoch), computed
in the main process. Workers only carry it out.
"""

from __future__ import annotations

import itertools
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rmiseg.data.dataset import SegmentationDataset
from rmiseg.runtime.cores import worker_count

MOST_SKIPPED = 20
"""Number of unreadable images one after the other that is no accident."""


class Batch(TypedDict):
    """Batch that loaders yield: image uint8 (N, B, H, W), mask uint8 (N, H, W), and N names."""

    image: torch.Tensor
    mask: torch.Tensor
    name: list[str]


def epoch_keys(size: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """The items of one epoch in their order, as keys (index, seed of the augmentation) of `SegmentationDataset`."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(size)
    seeds = rng.integers(2**63, size=size)
    return list(zip(order.tolist(), seeds.tolist()))


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch, as lists of keys; of each batch only the part that this process reads.

    Args:
        size: Number of images.
        seed: Seed of order and augmentation.
        batch_size: Images in a batch, of all processes together; images left over at the end are dropped.
        rank: Number of this process.
        world_size: Number of processes; divides batch_size.
        repeat: Times that an epoch goes through all images, each in an order of its own.

    Attributes:
        epoch: The epoch that the next iteration goes through.
        first_batch: The batch of this epoch that it starts with.
    """

    def __init__(self, size: int, seed: int, batch_size: int, rank: int, world_size: int, repeat: int = 1) -> None:
        self.size = size
        self.seed = seed
        self.batch_size = batch_size
        self.repeat = repeat
        self.share = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.size * self.repeat // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        done, within = divmod(self.first_batch * self.batch_size, self.size)
        passes = range(self.epoch * self.repeat + done, (self.epoch + 1) * self.repeat)
        # One pass after the other: an epoch of many would not fit into memory.
        keys = itertools.islice(
            (key for each in passes for key in epoch_keys(self.size, self.seed, each)), within, None
        )
        for _ in range(self.first_batch, len(self)):
            yield list(itertools.islice(keys, self.batch_size))[self.share]


class Unreadable(NamedTuple):
    """Stands for an item that was left out, and says why."""

    problem: str


class _Items(Dataset[Any]):
    """The items of a data set, and what becomes of those that cannot be read.

    "fail": what is wrong is returned instead of raised, because an exception that leaves a worker process arrives with
    that process's traceback in its message. "skip": an image in training is replaced by the next one of the split that
    can be read, so that batches keep their size; in evaluation it is left out.
    """

    def __init__(self, dataset: SegmentationDataset, on_error: str) -> None:
        if on_error not in ("fail", "skip"):
            raise ValueError(f"data.on_error must be fail or skip, not {on_error!r}")
        self.dataset = dataset
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any] | Exception | Unreadable:
        problems: list[str] = []
        while True:
            try:
                return {**self.dataset[key], "problems": problems}
            except (ValueError, OSError) as error:
                if self.on_error == "fail":
                    return error
                problems.append(str(error))
                if not isinstance(key, tuple):
                    return Unreadable(str(error))
                if len(problems) == MOST_SKIPPED:
                    return ValueError(f"{MOST_SKIPPED} images one after the other cannot be read; the last: {error}")
                key = ((key[0] + 1) % len(self), key[1])


@contextmanager
def worker_deaths(*signs: type[Exception]) -> Iterator[None]:
    """Say in words that a process that reads images was killed, which may show at any point of the main process.

    Args:
        signs: Further errors that it shows by, where nothing else raises them.

    Raises:
        ChildProcessError: It was.
    """
    kinds: tuple[type[Exception], ...] = (RuntimeError, *signs)
    try:
        yield
    except kinds as error:
        if not isinstance(error, signs) and "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            f"a process that reads images has died ({str(error).partition('. ')[0]}): was it killed, or the memory "
            "used up? Fewer data.workers need less; 0 reads in the main process"
        ) from error


class Loader(DataLoader[Any]):
    """A DataLoader of `Batch`; what is wrong with a file is raised here, as the data set would raise it itself.

    Args:
        dataset: What to read.
        workers: Processes that read; 0 reads in the main process.
        on_error: fail, or skip images that cannot be read.
        warn: Called with what is wrong with a skipped image, once for each.
        outlive_termination: Let the workers ignore SIGTERM, which schedulers send to all processes at once: a training
            saves where it stands, and then calls `close`.
        options: Those of DataLoader.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        *,
        workers: int,
        on_error: str = "fail",
        warn: Callable[[str], None] = warnings.warn,
        outlive_termination: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            _Items(dataset, on_error),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            worker_init_fn=_ignore_termination if outlive_termination else None,
            **options,
        )
        self.warn = warn
        self.skipped: set[str] = set()
        self._begun: Iterator[Any] | None = None

    def start(self) -> None:
        """Start the workers, which read ahead, before the first batch is asked for."""
        if self.num_workers and self._begun is None:
            self._begun = self._iterated()

    def _iterated(self) -> Iterator[Any]:
        with torch.device("cpu"):
            return super().__iter__()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches, self._begun = self._begun or self._iterated(), None
        while True:
            # What a worker has sent is fetched from it, perhaps when it is no more. Images are read, and transforms
            # draw their numbers, on the CPU, whatever `torch.set_default_device` says.
            with worker_deaths(ConnectionError, EOFError), torch.device("cpu"):
                batch, problems = next(batches, (None, None))
            if problems is None:
                return
            for problem in problems:
                if problem not in self.skipped:
                    self.skipped.add(problem)
                    self.warn(f"skipped: {problem}")
            if isinstance(batch, Exception):
                raise batch
            if batch is not None:
                yield batch

    def close(self) -> None:
        """End the workers."""
        self._begun = None
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # type: ignore[attr-defined]  # of the iterator over workers alone
            self._iterator = None


class TrainLoader(Loader):
    """A `Loader` whose order and augmentation are set by `set_epoch`."""

    batch_sampler: EpochBatches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch that the next iteration goes through, and where it starts; else, every pass is the same."""
        self.batch_sampler.epoch, self.batch_sampler.first_batch = epoch, first_batch


def train_loader(
    dataset: SegmentationDataset,
    *,
    batch_size: int,
    workers: int | None = None,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    repeat: int = 1,
    **options: Any,
) -> TrainLoader:
    """Shuffled, augmented batches of equal size; images left over at the end of an epoch are dropped.

    Args:
        dataset: Its transform must return crops of one size.
        batch_size: Images in a batch, of all processes together.
        workers: Processes that read images, for each training process; 0 reads in the main process. By default one for
            each of its cores.
        seed: Seed of order and augmentation, 0 or more.
        rank: Number of this training process, which reads its part of each batch.
        world_size: Number of training processes.
        repeat: Times that an epoch goes through all images.
        options: on_error and warn, see `Loader`.

    Raises:
        ValueError: a value out of range, or fewer images than one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if batch_size % world_size:
        raise ValueError(
            f"data.batch_size counts the images of all processes together: {batch_size} is not a multiple of "
            f"{world_size} processes"
        )
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    if len(dataset) * repeat < batch_size:
        raise ValueError(
            f"the training split has {len(dataset)} images, fewer than one batch of {batch_size}: lower "
            f"data.batch_size, or let an epoch go through them several times with data.repeat"
        )
    batches = EpochBatches(len(dataset), seed, batch_size, rank, world_size, repeat)
    return TrainLoader(dataset, workers=worker_count(workers, len(batches)), batch_sampler=batches, **options)


def eval_loader(
    dataset: SegmentationDataset, *, workers: int | None = None, rank: int = 0, world_size: int = 1, **options: Any
) -> Loader:
    """Every image once, in order, as a `Batch` of one because images may differ in size.

    Of several processes, each takes every so many-th image; nothing is repeated where their number does not divide.

    Args:
        dataset: Its transform must not be random.
        workers: Processes that read images, for each evaluating process; 0 reads in the main process. By default one
            for each of its cores.
        rank: Number of this process.
        world_size: Number of processes.
        options: on_error and warn, see `Loader`.

    Raises:
        ValueError: a negative number of workers.
    """
    indices = range(rank, len(dataset), world_size)
    return Loader(dataset, workers=worker_count(workers, len(indices)), batch_size=1, sampler=indices, **options)


def _ignore_termination(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def collate(items: list[Any]) -> tuple[Batch | Exception | None, list[str]]:
    """Stack items of `SegmentationDataset` into plain tensors.

    Returns:
        The batch, or the first exception among the items, or None if there is nothing to stack; and what was wrong with
        images that were skipped.

    Raises:
        ValueError: images or masks of different sizes.
    """
    problems = [item.problem for item in items if isinstance(item, Unreadable)]
    for item in items:
        if isinstance(item, Exception):
            return item, problems
    items = [item for item in items if not isinstance(item, Unreadable)]
    problems += [problem for item in items for problem in item.get("problems", [])]
    if not items:
        return None, problems
    for part in ("image", "mask"):
        shapes = {tuple(item[part].shape) for item in items}
        if len(shapes) > 1:
            raise ValueError(f"{part}s of one batch differ in size: {sorted(shapes)}; crop them to one size")
    batch: Batch = {
        # In memory (N, H, W, 3), as images come from a file and as networks take them.
        "image": torch.stack([item["image"].as_subclass(torch.Tensor).permute(1, 2, 0) for item in items]).permute(
            0, 3, 1, 2
        ),
        "mask": torch.stack([item["mask"].as_subclass(torch.Tensor) for item in items]),
        "name": [item["name"] for item in items],
    }
    return batch, problems
