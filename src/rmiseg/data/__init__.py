"""Data sets, and the way from image files to batches.

split = load_split("folder", "my/data", "train")
dataset = SegmentationDataset(split, train_transform((256, 256)))
loader = train_loader(dataset, batch_size=8, workers=2, seed=0)
for batch in loader:  # image uint8 (8, 3, 256, 256), mask uint8 (8, 256, 256), name
    images = normalize(batch["image"].to(device), mean, std)
"""

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
