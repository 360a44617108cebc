"""Scoring at full resolution: how much of it is not the network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gpu.batches import Place
from gpu.pictures import write_pictures
from rmiseg.data import SegmentationDataset, eval_loader, eval_transform, load_split
from rmiseg.evaluation.evaluate import evaluate_model
from rmiseg.models import build_model

CLASSES = 19


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """Seconds an image of 2048 x 1024, and of its forward passes alone, by network and precision."""
    backbones = ("resnet18",) if place.tiny else ("resnet101", "mobilenetv3_small_050")
    size, count = ((64, 96), 2) if place.tiny else ((1024, 2048), 40)
    with tempfile.TemporaryDirectory() as folder:
        root = write_pictures(Path(folder), {"val": count}, size, CLASSES)
        dataset = SegmentationDataset(load_split("folder", str(root), "val"), eval_transform(1.0))
        for backbone in backbones:
            model = build_model("deeplabv3", num_classes=CLASSES, backbone=backbone, output_stride=16, weights="none")
            model = model.to(place.device, memory_format=torch.channels_last)
            for precision, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
                loader = eval_loader(dataset, workers=0 if place.tiny else None)
                try:
                    evaluate_model(model, loader, CLASSES, dtype=dtype)  # to warm up
                    found = evaluate_model(model, loader, CLASSES, dtype=dtype)
                finally:
                    loader.close()
                seconds = {name: value / count for name, value in found.seconds.items()}
                yield f"deeplabv3 {backbone}, {precision}", seconds
