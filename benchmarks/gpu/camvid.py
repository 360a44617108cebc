"""A whole training at full resolution in the time that is left, RMI beside cross entropy: CamVid, if it was packed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.batches import Place
from gpu.pictures import packed_data, write_pictures
from rmiseg import Trainer

LOSSES = ("rmi", "ce")
SHARE = 0.75
"""Share of the time that is given to steps; the rest starts, scores and writes."""


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Scores on the validation split, and seconds, by loss; half of the time for each."""
    with tempfile.TemporaryDirectory() as folder:
        root = packed_data()
        if root is None and not place.tiny:
            yield "left out", "no data was packed: python benchmarks/gpu_pack.py --data NAME=FOLDER"
            return
        root = root or write_pictures(Path(folder, "data"), {"train": 4, "val": 2}, (48, 64), classes=3)
        steps = 2
        if not place.tiny:
            trial = _train(place, root, Path(folder, "trial"), "rmi", steps=20)
            yield "seconds a step", trial["seconds a step"]
            steps = max(20, int(SHARE * place.seconds / len(LOSSES) / trial["seconds a step"]))
        for loss in LOSSES:
            yield loss, _train(place, root, Path(folder, loss), loss, steps)


def _train(place: Place, root: Path, out: Path, loss: str, steps: int) -> dict[str, Any]:
    crop, backbone = ([33, 33], "resnet18") if place.tiny else ([360, 480], "resnet50")
    started = time.perf_counter()
    result = Trainer(
        {
            "out": str(out),
            "device": place.device,
            "data": {
                "name": "folder",
                "root": str(root),
                "crop_size": crop,
                "batch_size": 2 if place.tiny else 16,
                **({"workers": 0} if place.tiny else {}),
            },
            "model": {"name": "deeplabv3plus", "backbone": backbone, "weights": "none"},
            "loss": {"name": loss},
            "optim": {"lr": 0.05, "warmup_steps": 0},
            "train": {"steps": steps, "val_every": 10_000, "precision": "bf16", "loggers": []},
        }
    ).fit()
    return {
        "scores": result.last,
        "steps": result.steps,
        "seconds a step": result.seconds_per_step,
        "peak": result.peak_memory,
        "wall": time.perf_counter() - started,
    }
