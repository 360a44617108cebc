"""Learning rates of the original beside ours, and logits of its networks, over backbones, strides, sizes and classes.

    git clone https://github.com/ZJULearning/RMI /tmp/theirs/RMI && python tests/explore/original.py /tmp/theirs

The folder above the clone is on the path then, since its modules import one another as RMI.*. It needs no weights: each
entry is drawn by its place, as for the golden file of the tests.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from test_original import draw

from rmiseg.config import OptimConfig
from rmiseg.functional import upsample_logits
from rmiseg.models import build_model
from rmiseg.training.schedule import learning_rate

BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
CLASSES = {
    "deeplabv3": ("deeplab", "DeepLabv3"),
    "deeplabv3plus": ("deeplab", "DeepLabv3Plus"),
    "pspnet": ("psp", "PSPNet"),
}
SIZES = [(65, 97), (97, 65), (64, 96), (73, 81), (129, 129), (50, 110)]
NUMBERS = [2, 12, 19, 21, 150]


def theirs(name: str, depth: int, deep_stem: bool, stride: int, num_classes: int) -> nn.Module:
    """A network of the original, which takes ResNet-101 whatever it is told, with the backbone that is asked for."""
    resnet = importlib.import_module("RMI.model.backbone.resnet_v1")

    def backbone(output_stride: int, **_: Any) -> nn.Module:
        return resnet.ResNet(
            resnet.Bottleneck, BLOCKS[depth], output_stride, norm_layer=nn.BatchNorm2d, root_beta=deep_stem
        )

    importlib.import_module("RMI.model.net_factory").get_backbone_net = backbone  # type: ignore[attr-defined]
    module, title = CLASSES[name]
    make = getattr(importlib.import_module(f"RMI.model.{module}"), title)
    # Of the name they take but the channels and the maps, which all have in common; PSPNet knows no resnet152.
    return make(num_classes=num_classes, output_stride=stride, backbone="resnet101", pretrained=False).eval()


def fill(model: nn.Module) -> None:
    """Draw every entry by its place."""
    state = model.state_dict()
    model.load_state_dict({name: draw(index, name, value) for index, (name, value) in enumerate(state.items())})


def errors(expected: Tensor, found: Tensor) -> tuple[float, float]:
    """Norm of the difference, and its largest entry, each relative to that of what is expected."""
    difference = found - expected
    return (difference.norm() / expected.norm()).item(), (difference.abs().max() / expected.abs().max()).item()


def rates() -> float:
    """Compare learning rates, at the ends of warmups and trainings and between; return the largest relative error.

    Without a warmup the original has at each step the rate that is ours one step later.
    """
    scheduler = importlib.import_module("RMI.utils.train_utils").lr_scheduler
    worst, count = 0.0, 0
    for mode, warmup, total, (lr, first) in itertools.product(
        ("poly", "cos"),
        (0, 1, 2, 10, 299, 1500, 3000),
        (5, 11, 500, 5800, 30_406, 59_360),
        ((0.007, 1e-4), (0.025, 1e-4), (0.01, 0.0), (0.1, 0.1)),
    ):
        if warmup >= total:
            continue
        with redirect_stdout(StringIO()):
            theirs = scheduler(lr, mode, max_iter=total, slow_start_steps=warmup, slow_start_lr=first)
        config = OptimConfig(
            lr=lr, warmup_steps=warmup, warmup_lr=first, schedule="cosine" if mode == "cos" else "poly"
        )
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
        for step in {1, 2, warmup, warmup + 1, (warmup + total) // 2, total - 1, total} - {0}:
            theirs(optimizer, step)
            ours = learning_rate(step - 1 if warmup else step, total, config)
            worst, count = max(worst, abs(ours - theirs.now_lr) / theirs.now_lr), count + 1
    print(f"{count} learning rates, worst: {worst:.1e}", flush=True)
    return worst


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the folder that holds the clone, which is called RMI")
    parser.add_argument("--depths", type=int, nargs="+", default=list(BLOCKS))
    options = parser.parse_args()
    sys.path.insert(0, options.folder)
    settings = itertools.product(options.depths, (True, False), CLASSES, (16, 8))
    worst = rates()
    for number, (depth, deep_stem, name, stride) in enumerate(settings):
        size, num_classes = SIZES[number % len(SIZES)], NUMBERS[number % len(NUMBERS)]
        backbone = f"resnet{depth}{'s' if deep_stem else ''}"
        expected = theirs(name, depth, deep_stem, stride, num_classes)
        model = build_model(
            name, num_classes=num_classes, backbone=backbone, output_stride=stride, weights="none", compat="original"
        ).eval()
        fill(expected)
        fill(model)
        image = torch.from_numpy(np.random.RandomState(12345).standard_normal((1, 3, *size))).float()
        output = expected(image)
        found = errors(
            output[0] if isinstance(output, tuple) else output, upsample_logits(model(image), size, model.align_corners)
        )
        worst = max(worst, *found)
        print(
            f"{name} {backbone} stride {stride}, {num_classes} classes, {size}: {found[0]:.1e} {found[1]:.1e}",
            flush=True,
        )
    print(f"worst: {worst:.1e}")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
