"""Holds every implementation of the losses against the plain definition in float64, over random configurations.

Run: python tests/explore/losses.py [--count 10000] [--seconds 0] [--seed 0]

Shapes, dtypes, strides, memory formats, modes, options, ignored labels and masks are drawn at random. Prints how many
were tried, the worst errors by implementation and dtype, and each configuration that is out of tolerance, with which
`--seed SEED --count 1` tries it again. The exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmiseg.functional import pooled_size
from rmiseg.kernels import native
from rmiseg.losses import SegmentationLoss, build_loss

TOLERANCES = {
    torch.float64: (1e-8, 1e-6),
    torch.float32: (2e-5, 2e-3),
    torch.bfloat16: (2e-5, 2e-2),
    torch.float16: (2e-5, 4e-3),
}
"""Of the value, relative to 1 + its size, and of the gradient, relative to its norm; as far as the dtype goes."""

SCALE = 256.0
"""Of the loss, as a gradient scaler would, so that float16 does not underflow."""


class Configuration:
    """A loss with its options, and logits, target and mask, all drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.name = self.choice("rmi", "rmi", "rmi", "ce", "bce")
        self.dtype = self.choice(*TOLERANCES)
        self.volume = self.rng.random() < 0.15
        self.mode = self.choice("multiclass", "multiclass", "binary", "multilabel")
        self.options = self.draw_options()
        self.classes = 1 if self.mode == "binary" else int(self.rng.integers(1, 7))
        if self.rng.random() < 0.3:
            self.options["class_weights"] = self.rng.uniform(0.1, 3, self.classes).tolist()
        self.samples = int(self.rng.integers(1, 4))
        most = 14 if self.volume else 48
        self.size = tuple(int(side) for side in self.rng.integers(6, most, 3 if self.volume else 2))
        self.stride = self.choice(1, 1, 2, 3, 8)
        self.soft = self.rng.random() < 0.3
        self.logits, self.target = self.draw_logits(), self.draw_target()
        self.mask = self.draw_mask()

    def choice(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def draw_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"align_corners": self.choice(False, True)}
        options |= {"reduction": self.choice("mean", "mean", "sum")}
        if self.name == "ce":
            self.mode = "multiclass"
        if self.name == "rmi":
            options |= {"region_size": self.choice(1, 2, 3, 3, 4, 5), "pool": self.choice("avg", "max", "interp")}
            options |= {"pool_size": self.choice(1, 2, 3, 4, 5), "covariance": self.choice("sum", "mean", "batch")}
            options |= {"weight_lambda": float(self.rng.uniform(0, 1)), "combine": self.choice("convex", "additive")}
            options |= {"alpha": self.choice(5e-4, 5e-4, 0.05), "subtract_floor": self.choice(False, True)}
            if self.mode == "multiclass":
                options["pixel_loss"] = self.choice("bce", "ce")
            if self.volume:
                options["region_size"] = min(options["region_size"], 2)
        return options

    def draw_logits(self) -> Tensor:
        low = tuple(-(-side // self.stride) for side in self.size)
        shape = (self.samples, self.classes, *low)
        logits = torch.tensor(self.rng.normal(size=shape) * self.choice(0.5, 2, 8))
        if self.options.get("pool") == "max":  # whose gradient is not continuous where two are the same
            if self.stride == 1:
                steps = torch.tensor(self.rng.permutation(logits.numel()).reshape(shape))
                logits = 4 * (steps / logits.numel()) - 2
            if self.stride > 1 or self.dtype in (torch.float16, torch.bfloat16):  # some are nearly the same
                self.dtype = torch.float64
        logits = logits.to(self.dtype)
        layout = self.choice("contiguous", "channels last", "strided", "permuted")
        if layout == "channels last":
            return logits.contiguous(memory_format=torch.channels_last_3d if self.volume else torch.channels_last)
        if layout == "strided":
            wide = torch.zeros((*shape[:-1], 2 * shape[-1]), dtype=self.dtype)
            wide[..., ::2] = logits
            return wide[..., ::2]
        return logits.transpose(0, 1).contiguous().transpose(0, 1) if layout == "permuted" else logits

    def draw_target(self) -> Tensor:
        maps = (self.samples, self.classes, *self.size)
        ids = (self.samples, *self.size)
        ignored = self.choice(0.0, 0.1, 0.6)
        if self.mode == "multiclass" and not self.soft:
            target = torch.tensor(self.rng.integers(0, self.classes, ids))
            if self.rng.random() < 0.5:  # blobs
                target = target.div(3, rounding_mode="floor").roll(1, -1)
        elif self.mode == "multiclass":
            target = torch.tensor(self.rng.dirichlet([0.5] * self.classes, ids)).movedim(-1, 1).clone()
        else:
            drawn = self.rng.random(ids if self.mode == "binary" else maps)
            target = torch.tensor(drawn if self.soft else drawn < 0.4)
            target = target if self.soft else target.long()
        gone = torch.tensor(self.rng.random(ids) < ignored)
        if self.rng.random() < 0.2:
            gone[0] = True  # a sample without a valid pixel
        return target.masked_fill(gone.unsqueeze(1) if target.ndim == len(maps) else gone, 255)

    def draw_mask(self) -> Tensor | None:
        kind = self.choice("none", "none", "pixels", "samples")
        if kind == "none":
            return None
        shape = (self.samples, *self.size) if kind == "pixels" else (self.samples,)
        return torch.tensor(self.rng.random(shape) < 0.7)

    def is_too_small(self) -> bool:
        """True if there is no region in the target, which the loss refuses."""
        if self.name != "rmi":
            return False
        pooled = pooled_size(self.size, self.options["pool"], self.options["pool_size"])
        return min(pooled) < self.options["region_size"] or min(self.size) < self.options["pool_size"]

    def loss(self, implementation: str) -> SegmentationLoss:
        options = {**self.options, "mode": self.mode, "implementation": implementation}
        loss = build_loss(self.name, num_classes=self.classes, **options)
        assert isinstance(loss, SegmentationLoss)
        return loss

    def implementations(self) -> list[str]:
        """Those that serve such an input here."""
        return ["auto", "chunked", *(["native"] if native.is_available() else [])]

    def run(self, implementation: str, dtype: torch.dtype) -> tuple[float, Tensor, float]:
        """Value, gradient, and the part "rmi" if there is one."""
        logits = self.logits.detach()
        logits = (logits.double() if dtype == torch.float64 else logits).requires_grad_()
        value, parts = self.loss(implementation)(logits, self.target, mask=self.mask, return_parts=True)
        (gradient,) = torch.autograd.grad(SCALE * value, logits)
        return value.item(), gradient.double() / SCALE, float(parts.get("rmi", 0))


def check(seed: int, worst: dict[tuple[str, str], list[float]], counts: Counter[str]) -> list[str]:
    """Try one configuration; returns what is wrong."""
    drawn = Configuration(seed)
    if drawn.is_too_small():
        counts["too small"] += 1
        return []
    exact = drawn.run("plain", torch.float64)
    # As exact as the plain definition in the same dtype, where the gradient is all cancellation.
    plain = drawn.run("plain", drawn.dtype)
    wrong = []
    value_tolerance, gradient_tolerance = TOLERANCES[drawn.dtype]
    norm = exact[1].norm().item()
    slack = 3 * (plain[1] - exact[1]).norm().item() + (1e-12 if drawn.dtype == torch.float64 else 1e-6)
    for implementation in drawn.implementations():
        found = drawn.run(implementation, drawn.dtype)
        value, rmi = (abs(found[i] - exact[i]) / (1 + abs(exact[i])) for i in (0, 2))
        gradient = (found[1] - exact[1]).norm().item()
        key = implementation, str(drawn.dtype).removeprefix("torch.")
        errors = worst.setdefault(key, [0.0, 0.0, 0.0])
        errors[:] = map(max, errors, (value, rmi, gradient / norm if norm > 1e-3 else 0.0))
        counts[f"{drawn.name} {drawn.mode} {implementation}"] += 1
        allowed = max(gradient_tolerance * norm, slack)
        if not (value <= value_tolerance and rmi <= 10 * value_tolerance and gradient <= allowed):
            wrong.append(
                f"seed {seed} {implementation} {drawn.name} {drawn.mode} {drawn.dtype} {tuple(drawn.logits.shape)} "
                f"{drawn.size} soft={drawn.soft} {drawn.options}: value {value:.1e} rmi {rmi:.1e} gradient "
                f"{gradient:.1e}, {allowed:.1e} allowed"
            )
    counts["configurations"] += 1
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0, help="stop after this time; 0 for never")
    parser.add_argument("--seed", type=int, default=0, help="of the first configuration; the others follow")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worst: dict[tuple[str, str], list[float]] = {}
    counts: Counter[str] = Counter()
    failures: list[str] = []
    began = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        if arguments.seconds and time.monotonic() - began > arguments.seconds:
            break
        for failure in check(seed, worst, counts):
            failures.append(failure)
            print(failure, flush=True)
    print(*(f"{count:8} {name}" for name, count in sorted(counts.items())), sep="\n")
    for (implementation, dtype), (value, rmi, gradient) in sorted(worst.items()):
        print(f"{implementation:8} {dtype:9} value {value:.1e}  rmi {rmi:.1e}  gradient {gradient:.1e}")
    print(f"{len(failures)} out of tolerance")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
