"""Whole trainings in the time that is left, as `rmiseg train` decides them for this GPU, on packed data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.batches import Place
from gpu.pictures import packed_data, write_pictures
from rmiseg import Trainer
from rmiseg.config.parser import train_config
from rmiseg.config.recipes import merged
from rmiseg.data import load_split
from rmiseg.training import cost

LOSSES = ("rmi", "ce")
SHARE = 0.8
"""Share of the time that is given to the trainings; the rest starts, foresees memory and writes."""


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Scores on the validation split, what was decided and what it cost, by loss; half of the time for each."""
    with tempfile.TemporaryDirectory() as folder:
        root = packed_data()
        if root is None and not place.tiny:
            yield "left out", "no data was packed: python benchmarks/gpu_pack.py --data NAME=FOLDER"
            return
        root = root or write_pictures(Path(folder, "data"), {"train": 4, "val": 2}, (48, 64), classes=3)
        for loss in LOSSES:
            yield f"{loss} + dice", _train(place, root, Path(folder, loss), loss)


def _train(place: Place, root: Path, out: Path, loss: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "plan": True,
        "out": str(out),
        "device": place.device,
        "data": {"root": str(root)},
        "loss": {"name": loss, "plus": {"dice": 1.0}},
        "train": {"hours": SHARE * place.seconds / len(LOSSES) / 3600, "loggers": []},
    }
    if place.tiny:
        small = {"crop_size": [33, 33], "batch_size": 2, "workers": 0, "image_scale": 1.0}
        train = {"hours": None, "steps": 2, "precision": "fp32"}
        model = {"name": "deeplabv3plus", "backbone": "resnet18", "weights": "none"}
        options = merged(options, {"data": small, "train": train, "model": model})
    started = time.perf_counter()
    result = Trainer(options).fit()
    wall = time.perf_counter() - started
    config = train_config(str(out / "config.yaml"))
    need = cost.memory_need(config, len(load_split(config.data.name, config.data.root, "train").classes))
    return {
        "scores": result.last,
        "steps": result.steps,
        "seconds a step": result.seconds_per_step,
        "peak": result.peak_memory,
        "foreseen": None if need is None else need.of(config.data.batch_size),
        "wall": wall,
        "config": (out / "config.yaml").read_text(),
    }
