"""Cost of `rmiseg evaluate` beside that of its forward passes alone, in one process, on images of Cityscapes' size.

    python benchmarks/evaluate_share.py                  # 12 images of 1024 x 2048, deeplabv3plus with resnet18
    python benchmarks/evaluate_share.py --profile        # and what each other step costs

Images and masks are drawn, and written as PNG files like those of the data set. The forward passes are those of the
same network on the same images, which are read and normalized before the clock runs. Both are done several times in
turn; the processor's time, of all threads and processes, and the clock on the wall are given as medians of ratios.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from rmiseg.config import DataConfig, EvaluateConfig, ModelConfig
from rmiseg.data import SegmentationDataset, eval_transform, load_split, normalize
from rmiseg.evaluation.metrics import count_image
from rmiseg.evaluation.scoring import score_checkpoint
from rmiseg.inference.checkpoint import Checkpoint, save_checkpoint
from rmiseg.inference.segment import argmax_logits
from rmiseg.models import build_model

CLASSES = 19


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deeplabv3plus")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--scale", type=float, default=1.0, help="data.image_scale")
    parser.add_argument("--workers", type=int, help="processes that read images; by default one for each core")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="milliseconds of processor time of each other step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Measure evaluation and forward passes in turn, and print the ratios."""
    write_images(folder / "data", options)
    torch.manual_seed(0)
    model = ModelConfig(name=options.model, backbone=options.backbone, weights="none")
    data = DataConfig(root=str(folder / "data"), image_scale=options.scale, workers=options.workers)
    network = build_model(options.model, num_classes=CLASSES, backbone=options.backbone, weights="none")
    split = load_split("folder", data.root, "val")
    path = folder / "run" / "checkpoints" / "best.pt"
    path.parent.mkdir(parents=True)
    save_checkpoint(path, Checkpoint(network.state_dict(), model, data, split.classes, 1, {}))

    dataset = SegmentationDataset(split, eval_transform(options.scale))
    network.eval().to(memory_format=torch.channels_last)
    inputs = [
        normalize(dataset[index]["image"][None], network.image_mean, network.image_std) for index in range(len(dataset))
    ]
    inputs = [each.contiguous(memory_format=torch.channels_last) for each in inputs]

    def forward() -> None:
        with torch.inference_mode():
            for each in inputs:
                network(each)

    def evaluate() -> None:
        score_checkpoint(EvaluateConfig(checkpoint=str(path), device="cpu"))

    forward()
    rows = [(cost(evaluate), cost(forward)) for _ in range(options.rounds)]
    what = f"{options.model}, {options.backbone}, {options.images} x {options.size[0]} x {options.size[1]}"
    table = Table("seconds", "evaluate", "forward passes", "ratio", title=f"{what}, {torch.get_num_threads()} threads")
    for index, name in enumerate(("processor", "wall")):
        own, bare = (statistics.median(row[which][index] for row in rows) for which in (0, 1))
        ratio = statistics.median(first[index] / second[index] for first, second in rows)
        table.add_row(name, f"{own:.2f}", f"{bare:.2f}", f"{ratio:.3f}")
    Console().print(table)
    if options.profile:
        profile(dataset, network, inputs)


def cost(call: Callable[[], None]) -> tuple[float, float]:
    """Seconds of processor time, of this process and those that it started, and seconds on the clock."""
    wall, before = time.perf_counter(), processor()
    call()
    return processor() - before, time.perf_counter() - wall


def processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def profile(dataset: SegmentationDataset, network: torch.nn.Module, inputs: list[torch.Tensor]) -> None:
    """Print the median processor time of each step on an image."""
    steps: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], object]) -> object:
        started = time.process_time()
        result = call()
        steps.setdefault(name, []).append(1000 * (time.process_time() - started))
        return result

    for index, each in enumerate(inputs):
        item = timed("read image and mask, resize", lambda index=index: dataset[index])
        mask = item["mask"].numpy()
        image = item["image"][None]
        timed("normalize", lambda image=image: normalize(image, network.image_mean, network.image_std))
        with torch.inference_mode():
            logits = timed("forward pass", lambda each=each: network(each))
            ids = timed(
                "class of each pixel", lambda logits=logits, mask=mask: argmax_logits(logits, mask.shape, False)
            )
        timed("count", lambda ids=ids, mask=mask: count_image(ids[0].numpy(), mask, CLASSES))
    table = Table("step", "ms of the processor an image")
    for name, values in steps.items():
        table.add_row(name, f"{statistics.median(values):.1f}")
    Console().print(table)


def write_images(root: Path, options: argparse.Namespace) -> None:
    """Pictures with texture, and masks of blocks of all classes with ignored edges, as PNG."""
    height, width = options.size
    rng = np.random.default_rng(0)
    for folder in ("images/val", "masks/val"):
        (root / folder).mkdir(parents=True)
    for number in range(options.images):
        coarse = rng.integers(0, CLASSES, (8, 12), dtype=np.uint8)
        mask = np.array(Image.fromarray(coarse).rotate(7).resize((width, height), Image.Resampling.NEAREST))
        mask[: height // 20] = 255
        color = np.array([[37, 91, 53]]) * mask[..., None] % 200
        noise = rng.integers(0, 24, (height, width, 3))
        Image.fromarray((color + noise).astype(np.uint8)).save(root / "images/val" / f"{number:03}.png")
        Image.fromarray(mask).save(root / "masks/val" / f"{number:03}.png")
    names = "".join(f"  c{index}: {index}\n" for index in range(CLASSES))
    (root / "dataset.yaml").write_text(f"classes:\n{names}")


if __name__ == "__main__":
    main()
