"""Share of a training step that is neither forward nor backward pass, beside a bare PyTorch loop in the same process.

    python benchmarks/loop_share.py --backbone resnet18 --batch 4 --crop 193

After every step of `rmiseg train` the bare loop takes one, with the same network, loss, optimizer, and images in
memory. Medians are printed, the median of the ratios of neighbors, and the ratio of the quickest steps, which others on
the machine disturb least. A step of `rmiseg train` is all that happens
from one `on_step_end` to the next: waiting for the batch, learning rate, step, accuracy, curves, progress.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rmiseg import Callback, Trainer
from rmiseg.losses import RMILoss
from rmiseg.models import build_model

CLASSES = 21
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class InMemory(Dataset[tuple[Tensor, Tensor]]):
    """Random images and masks, again and again."""

    def __init__(self, count: int, crop: int, kept: int = 16) -> None:
        self.count = count
        kept = min(count, kept)
        self.images = torch.randint(256, (kept, 3, crop, crop), dtype=torch.uint8)
        coarse = torch.randint(CLASSES, (kept, 1, crop // 16 + 1, crop // 16 + 1)).float()
        self.masks = nn.functional.interpolate(coarse, (crop, crop))[:, 0].to(torch.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index % len(self.images)], self.masks[index % len(self.images)]


class BareLoop(Callback):
    """A bare loop that takes a step after each of the training's, and the times of both."""

    def __init__(self, network: nn.Module, data: InMemory, batch: int, clock: Callable[[], float]) -> None:
        self.network, self.clock = network.train().to(memory_format=torch.channels_last), clock
        self.loss = RMILoss(CLASSES)
        self.optimizer = torch.optim.SGD(network.parameters(), 0.007, momentum=0.9, weight_decay=1e-4, fused=True)
        self.batches = self._endless(DataLoader(data, batch, shuffle=True, drop_last=True))
        self.rows: list[tuple[float, float, float]] = []
        self.left_at = clock()

    def _endless(self, loader: DataLoader[Any]) -> Iterator[Any]:
        while True:
            yield from loader

    def on_step_end(self, run: Any, outcome: Any) -> None:
        own = self.clock() - self.left_at
        started = self.clock()
        images, masks = next(self.batches)
        images = (images.float().div_(255) - MEAN) / STD
        self.optimizer.zero_grad(set_to_none=True)
        inside = -self.clock()
        loss = self.loss(self.network(images.contiguous(memory_format=torch.channels_last)), masks)
        loss.backward()
        inside += self.clock()
        self.optimizer.step()
        loss.item()
        self.rows.append((own, self.clock() - started, inside))
        self.left_at = self.clock()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deeplabv3plus")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=193)
    parser.add_argument("--steps", type=int, default=30, help="timed steps, after five more")
    parser.add_argument("--cpu-time", action="store_true", help="not the clock on the wall, where others compute too")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    shape = {"backbone": options.backbone, "output_stride": 16, "weights": "none"}
    data = InMemory((options.steps + 5) * options.batch, options.crop)
    bare = BareLoop(build_model(options.model, num_classes=CLASSES, **shape), data, options.batch, clock)
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "out": f"{folder}/run",
            "device": "cpu",
            "data": {"batch_size": options.batch, "workers": 0},
            "model": {"name": options.model, **shape},
            "train": {"steps": options.steps + 5, "loggers": ["tensorboard"], "val_every": 1000},
        }
        names = [f"class {index}" for index in range(CLASSES)]
        small = InMemory(1, 64)
        Trainer(config, train=data, val=small, classes=names, transform=_both, callbacks=[bare]).fit()
    report(bare.rows[5:], options)


def _both(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return image, mask


def report(rows: list[tuple[float, float, float]], options: argparse.Namespace) -> None:
    own, bare, inside = (1000 * statistics.median(column) for column in zip(*rows))
    outside = statistics.median(1 - inside / own for own, _, inside in rows)
    ratio = statistics.median(own / bare for own, bare, _ in rows)
    what = f"{options.model}, {options.backbone}, {options.batch} x {options.crop}², {torch.get_num_threads()} threads"
    table = Table("ms a step", "rmiseg train", "bare loop", "its forward and backward passes", title=what)
    table.add_row("", f"{own:.1f}", f"{bare:.1f}", f"{inside:.1f}")
    console = Console()
    console.print(table)
    console.print(f"rmiseg train takes {ratio:.3f} times the bare loop; {outside:.1%} of a step is neither pass")
    own, bare, inside = (min(column) for column in zip(*rows))
    console.print(f"By the quickest of all steps: {own / bare:.3f} times; {1 - inside / own:.1%}")


if __name__ == "__main__":
    main()
