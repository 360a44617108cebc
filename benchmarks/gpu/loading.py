"""Images a second that arrive from files as training crops: what a GPU may be fed with."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gpu.batches import Place
from gpu.pictures import write_pictures
from rmiseg.config import DataConfig
from rmiseg.data import load_split, train_loader
from rmiseg.training.assembly import train_dataset

CASES = {"500 x 375, crop 513": ((375, 500), 513, 64), "2048 x 1024, crop 769": ((1024, 2048), 769, 16)}


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Images a second, by size and number of workers."""
    cores = os.cpu_count() or 1
    yield "cores", cores
    for name, (size, crop, count) in CASES.items():
        if place.tiny:
            size, crop, count = (30, 40), 33, 6
        with tempfile.TemporaryDirectory() as folder:
            root = write_pictures(Path(folder), {"train": count}, size, classes=19)
            for workers in (0,) if place.tiny else (1, cores):
                yield f"{name}, {workers} workers", _rate(root, crop, workers, rounds=1 if place.tiny else 4)


def _rate(root: Path, crop: int, workers: int, rounds: int) -> float:
    data = DataConfig(name="folder", root=str(root), crop_size=(crop, crop), batch_size=2, workers=workers)
    dataset = train_dataset(load_split("folder", str(root), "train"), data)
    loader = train_loader(dataset, batch_size=data.batch_size, workers=workers, seed=0, repeat=rounds + 1)
    loader.set_epoch(0)
    try:
        batches = iter(loader)
        list(islice(batches, len(dataset) // data.batch_size))  # the first is to warm up
        started = time.perf_counter()
        taken = sum(len(batch["name"]) for batch in batches)
        return taken / (time.perf_counter() - started)
    finally:
        loader.close()
