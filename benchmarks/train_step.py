"""Peak memory and time of a training step: precision, the loss at the logits' own size or at full size, torch.compile.

    python benchmarks/train_step.py                                     # on a GPU: the network and crops of the paper
    python benchmarks/train_step.py --batch 2 --crop 257 --compile      # on a CPU

Every variant runs in a process of its own, several times in turn; medians are printed. SGD with momentum, images and
masks are random.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from rmiseg.losses import RMILoss
from rmiseg.models import build_model
from rmiseg.runtime.device import peak_memory, select_device, tune

CLASSES = 21
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "RMI": RMILoss(CLASSES),
    "RMI, full-size logits": lambda logits, target: RMILoss(CLASSES)(upsampled(logits, target), target),
    "F.cross_entropy, full-size logits": lambda logits, target: F.cross_entropy(
        upsampled(logits, target), target, ignore_index=255
    ),
}


def upsampled(logits: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(logits.float(), target.shape[-2:], mode="bilinear", align_corners=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deeplabv3")
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--output-stride", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process, after two more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant is not None:
        print(json.dumps(measure(options, *json.loads(options.variant))))
        return

    variants = list(itertools.product(("fp32", "bf16"), LOSSES, (False, True) if options.compile else (False,)))
    found: dict[tuple[str, str, bool], list[dict[str, float]]] = {variant: [] for variant in variants}
    for variant in track(options.rounds * variants, "measuring"):
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", json.dumps(variant)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(f"{variant}: {run.stderr[-2000:]}")
        found[variant].append(json.loads(run.stdout.splitlines()[-1]))
    title = f"{options.model} with {options.backbone}, output stride {options.output_stride}, "
    table = Table(
        "precision", "loss", "compiled", "s a step", "peak MB", title=title + f"{options.batch} x {options.crop}²"
    )
    for (precision, loss, compiled), results in found.items():
        seconds, peak = (statistics.median(each[name] for each in results) for name in ("seconds", "peak"))
        table.add_row(precision, loss, "yes" if compiled else "no", f"{seconds:.3f}", f"{peak / 1e6:.0f}")
    console = Console()
    console.print(table)
    console.print(f"torch {torch.__version__} on {select_device(options.device)}")


def measure(options: argparse.Namespace, precision: str, loss_name: str, compiled: bool) -> dict[str, float]:
    """Median seconds of a step, and peak memory in bytes."""
    device = select_device(options.device)
    tune(device)
    torch.manual_seed(0)
    shape = {"backbone": options.backbone, "output_stride": options.output_stride, "weights": "none"}
    model = build_model(options.model, num_classes=CLASSES, **shape).to(device, memory_format=torch.channels_last)
    loss = LOSSES[loss_name]

    def forward(images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        return loss(logits[0] if isinstance(logits, tuple) else logits, target)

    step = torch.compile(forward) if compiled else forward
    optimizer = torch.optim.SGD(model.train().parameters(), 0.007, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(options.batch, 3, options.crop, options.crop, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    target = torch.randint(CLASSES, (options.batch, options.crop, options.crop), device=device)
    times = []
    for _ in range(options.steps + 2):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        value = step(images, target)
        value.backward()
        optimizer.step()
        value.item()  # waits for the GPU
        times.append(time.perf_counter() - started)
    return {"seconds": statistics.median(times[2:]), "peak": peak_memory(device)}


if __name__ == "__main__":
    main()
