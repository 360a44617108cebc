"""Data sets, and the way from image files to batches.

split = load_split("folder", "my/data", "train")
dataset = SegmentationDataset(split, train_transform((256, 256)))
loader = train_loader(dataset, batch_size=8, workers=2, seed=0)
for batch in loader:  # image uint8 (8, 3, 256, 256), mask uint8 (8, 256, 256), name
    images = normalize(batch["image"].to(device), mean, std)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmiseg.data.adapters import adapt_transform
    from rmiseg.data.balance import balanced_weights
    from rmiseg.data.check import Report, check_dataset
    from rmiseg.data.check_report import print_report
    from rmiseg.data.classes import IGNORE_INDEX, ClassTable, class_ids
    from rmiseg.data.dataset import SegmentationDataset
    from rmiseg.data.demo import write_demo_data
    from rmiseg.data.finding import available_splits, load_split, scan_split
    from rmiseg.data.images import LabeledImages, Sample, Split
    from rmiseg.data.layout import Layout
    from rmiseg.data.loader import Batch, TrainLoader, eval_loader, train_loader
    from rmiseg.data.own import OwnImages
    from rmiseg.data.reading import read_image, read_mask, rgb_pixels
    from rmiseg.data.training import open_training_data
    from rmiseg.data.transforms import eval_transform, normalize, train_transform

__all__ = [
    "IGNORE_INDEX",
    "Batch",
    "ClassTable",
    "LabeledImages",
    "Layout",
    "OwnImages",
    "Report",
    "Sample",
    "SegmentationDataset",
    "Split",
    "TrainLoader",
    "adapt_transform",
    "available_splits",
    "balanced_weights",
    "check_dataset",
    "class_ids",
    "eval_loader",
    "eval_transform",
    "load_split",
    "normalize",
    "open_training_data",
    "print_report",
    "read_image",
    "read_mask",
    "rgb_pixels",
    "scan_split",
    "train_loader",
    "train_transform",
    "write_demo_data",
]

_PLACES = {
    "Batch": "loader",
    "ClassTable": "classes",
    "IGNORE_INDEX": "classes",
    "LabeledImages": "images",
    "Layout": "layout",
    "OwnImages": "own",
    "Report": "check",
    "Sample": "images",
    "SegmentationDataset": "dataset",
    "Split": "images",
    "TrainLoader": "loader",
    "adapt_transform": "adapters",
    "available_splits": "finding",
    "balanced_weights": "balance",
    "check_dataset": "check",
    "class_ids": "classes",
    "eval_loader": "loader",
    "eval_transform": "transforms",
    "load_split": "finding",
    "normalize": "transforms",
    "open_training_data": "training",
    "print_report": "check_report",
    "read_image": "reading",
    "read_mask": "reading",
    "rgb_pixels": "reading",
    "scan_split": "finding",
    "train_loader": "loader",
    "train_transform": "transforms",
    "write_demo_data": "demo",
}
"""The module of each name. It is imported late, so that checking and importing data sets need no torch."""


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"rmiseg.data.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'rmiseg.data' has no attribute {name!r}")
