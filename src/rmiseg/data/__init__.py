"""Data sets, and the way from image files to batches.

split = load_split("folder", "my/data", "train")
dataset = SegmentationDataset(split, train_transform((256, 256)))
loader = train_loader(dataset, batch_size=8, workers=2, seed=0)
for batch in loader:  # image uint8 (8, 3, 256, 256), mask uint8 (8, 256, 256), name
    images = normalize(batch["image"].to(device), mean, std)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmiseg.runtime.late import late

if TYPE_CHECKING:
    from rmiseg.data.balance import balanced_weights
    from rmiseg.data.checking.check import Report, check_dataset
    from rmiseg.data.checking.report import print_report
    from rmiseg.data.classes import IGNORE_INDEX, ClassTable, class_ids
    from rmiseg.data.dataset import SegmentationDataset
    from rmiseg.data.image_files.masks import read_mask
    from rmiseg.data.image_files.reading import read_image, rgb_pixels
    from rmiseg.data.images import LabeledImages, Sample, Split
    from rmiseg.data.loader import Batch, TrainLoader, eval_loader, train_loader
    from rmiseg.data.sets.demo import write_demo_data
    from rmiseg.data.sets.finding import available_splits, load_split, scan_split
    from rmiseg.data.sets.layout import Layout
    from rmiseg.data.sets.own import OwnImages
    from rmiseg.data.training import open_training_data
    from rmiseg.data.transforms.adapters import adapt_transform
    from rmiseg.data.transforms.pipeline import eval_transform, normalize, train_transform

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
    "Batch": "rmiseg.data.loader",
    "ClassTable": "rmiseg.data.classes",
    "IGNORE_INDEX": "rmiseg.data.classes",
    "LabeledImages": "rmiseg.data.images",
    "Layout": "rmiseg.data.sets.layout",
    "OwnImages": "rmiseg.data.sets.own",
    "Report": "rmiseg.data.checking.check",
    "Sample": "rmiseg.data.images",
    "SegmentationDataset": "rmiseg.data.dataset",
    "Split": "rmiseg.data.images",
    "TrainLoader": "rmiseg.data.loader",
    "adapt_transform": "rmiseg.data.transforms.adapters",
    "available_splits": "rmiseg.data.sets.finding",
    "balanced_weights": "rmiseg.data.balance",
    "check_dataset": "rmiseg.data.checking.check",
    "class_ids": "rmiseg.data.classes",
    "eval_loader": "rmiseg.data.loader",
    "eval_transform": "rmiseg.data.transforms.pipeline",
    "load_split": "rmiseg.data.sets.finding",
    "normalize": "rmiseg.data.transforms.pipeline",
    "open_training_data": "rmiseg.data.training",
    "print_report": "rmiseg.data.checking.report",
    "read_image": "rmiseg.data.image_files.reading",
    "read_mask": "rmiseg.data.image_files.masks",
    "rgb_pixels": "rmiseg.data.image_files.reading",
    "scan_split": "rmiseg.data.sets.finding",
    "train_loader": "rmiseg.data.loader",
    "train_transform": "rmiseg.data.transforms.pipeline",
    "write_demo_data": "rmiseg.data.sets.demo",
}
"""The module of each name. It is imported late, so that checking and importing data sets need no torch."""

__getattr__ = late(__name__, _PLACES)
