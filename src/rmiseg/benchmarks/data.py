"""`rmiseg bench data`: whether images arrive as fast as a training takes them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rmiseg.config import BenchDataConfig, DataConfig, TrainConfig
from rmiseg.data import IGNORE_INDEX, SegmentationDataset, Split, load_split, train_loader
from rmiseg.data.loader import MOST_WORKERS, TrainLoader, worker_count
from rmiseg.training.assembly import train_dataset
from rmiseg.training.measuring import timed_recipe, timed_step

REFERENCES = {"torchvision, PIL images": False, "torchvision, tensors": True}
OWN = "rmiseg"


def run_data_benchmark(config: BenchDataConfig, recipe: TrainConfig, console: Console) -> dict[str, float]:
    """Measure loading alone, beside torchvision's way of doing the same, and training; print a table.

    Returns:
        Images per second: "rmiseg", each of `REFERENCES`, "training"; "ratio", of rmiseg to the faster reference, the
        median over the rounds; "wait", the share of training time spent waiting.
    """
    for name in ("rounds", "batches"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(config, name)}")
    recipe = timed_recipe(recipe)
    workers = worker_count(recipe.data.workers if config.workers is None else config.workers, MOST_WORKERS)
    root = recipe.data.root if config.root is None else config.root
    data = replace(recipe.data, root=root, workers=workers)
    split = load_split(data.name, data.root, data.train_split)
    datasets = {
        OWN: train_dataset(split, data),
        **{name: ReferenceDataset(split, data, tensors) for name, tensors in REFERENCES.items()},
    }
    options = {"batch_size": data.batch_size, "workers": workers, "seed": recipe.seed}
    streams = {name: _endless(train_loader(dataset, **options)) for name, dataset in datasets.items()}
    rates: dict[str, list[float]] = {name: [] for name in streams}
    # Workers read ahead while others are measured, but no further than this many batches.
    ahead = 2 * workers
    for round_ in track(range(config.rounds + 1), "loading", console=console, transient=True):
        for name, stream in streams.items():
            if workers:
                list(islice(stream, ahead))
            started = time.perf_counter()
            list(islice(stream, config.batches))
            if round_:  # the first is to warm up
                rates[name].append(config.batches * data.batch_size / (time.perf_counter() - started))
    result = {name: statistics.median(each) for name, each in rates.items()}
    faster = max(REFERENCES, key=lambda name: result[name])
    result["ratio"] = statistics.median(own / other for own, other in zip(rates[OWN], rates[faster]))
    for name in REFERENCES:
        streams.pop(name).close()
    result["training"], result["wait"] = _train(recipe, split, streams[OWN], config.batches, console)

    table = Table("", "images/s", "of which waiting for data", title=f"{len(split.samples)} images, {workers} workers")
    for name in (OWN, *REFERENCES):
        table.add_row(f"loading: {name}", f"{result[name]:.1f}", "")
    table.add_row("training", f"{result['training']:.1f}", f"{result['wait']:.0%}")
    console.print(table)
    console.print(f"Loading is {result['ratio']:.2f} times as fast as {faster} (median of {config.rounds} rounds)")
    if result["wait"] > 0.1:
        console.print("Training waits for data: more --data.workers, smaller files, or less --data.color_jitter help")
    return result


class ReferenceDataset(SegmentationDataset):
    """The same operations as torchvision's references for segmentation do them: one after the other, on whole images.

    Args:
        split: The samples.
        config: The augmentation.
        tensors: Work on tensors instead of PIL images.
    """

    def __init__(self, split: Split, config: DataConfig, tensors: bool) -> None:
        super().__init__(split)
        self.split = split
        self.config = config
        self.tensors = tensors
        jitter = config.color_jitter
        self.crop_and_flip = v2.Compose(
            [
                v2.RandomCrop(
                    config.crop_size,
                    pad_if_needed=True,
                    fill={tv_tensors.Mask: IGNORE_INDEX, "others": 128},
                ),
                v2.RandomHorizontalFlip(config.flip),
                *([v2.ColorJitter(jitter, jitter, jitter)] if jitter else []),
                v2.PILToTensor(),
            ]
        )
        self.normalize = v2.Compose(
            [
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __getitem__(self, key: Any) -> dict[str, Any]:
        index, seed = key
        sample = self.split.samples[index]
        with Image.open(sample.image) as file, Image.open(sample.mask) as mask_file:
            image: Any = file.convert("RGB")
            mask = tv_tensors.Mask(F.pil_to_tensor(mask_file)[0])
        if self.tensors:
            image = tv_tensors.Image(F.pil_to_tensor(image))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            low, high = self.config.scale_range
            if step := self.config.scale_step:
                scale = low + step * int(torch.randint(round((high - low) / step) + 1, ()))
            else:
                scale = low + (high - low) * torch.rand(()).item()
            scale *= self.config.image_scale
            size = [max(1, round(side * scale)) for side in mask.shape]
            image, mask = F.resize(image, size, antialias=True), F.resize(mask, size, v2.InterpolationMode.NEAREST)
            image, mask = self.crop_and_flip(image, mask)
        return {"image": self.normalize(tv_tensors.Image(image)), "mask": mask, "name": sample.name}


def _endless(loader: TrainLoader) -> Generator[Any]:
    epoch = 0
    try:
        while True:
            loader.set_epoch(epoch)
            yield from loader
            epoch += 1
    finally:
        loader.close()


def _train(
    recipe: TrainConfig, split: Split, stream: Iterable[Any], steps: int, console: Console
) -> tuple[float, float]:
    """Images per second of training steps, and the share of time spent waiting for data."""
    take_step = timed_step(recipe, len(split.classes), steps + 1, console)
    waits, times = [], []
    iterator = iter(stream)
    for step in track(range(steps + 1), "training", console=console, transient=True):
        started = time.perf_counter()
        batch = next(iterator)
        waited = time.perf_counter() - started
        take_step([batch], step)
        if step:  # the first is to warm up
            waits.append(waited)
            times.append(time.perf_counter() - started)
    return recipe.data.batch_size * steps / sum(times), sum(waits) / sum(times)
