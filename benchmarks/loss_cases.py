"""The cost of RMI in every form that it takes, beside that of PyTorch's own loss for the same task.

    python benchmarks/loss_cases.py benchmarks/results/cpu/loss-cases.json [--threads 1 2] [--seconds 3] [--only TEXT]

Forward and backward pass on the CPU. The losses of a case run in turn in one process; the ratio is that of their
medians, and its spread that of the quartiles of single rounds. Prints a table in Markdown and writes the JSON as it
goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg import RMILoss

IGNORED = 255


class Case(NamedTuple):
    """A loss and its reference on one batch; `target` is the ratio that is aimed at."""

    name: str
    target: float
    loss: Callable[[Tensor], Tensor]
    reference: Callable[[Tensor], Tensor]
    logits: Tensor


def _labels(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Class ids in blocks of 8, 2 % of them ignored."""
    n, classes, *size = shape
    labels = torch.randint(0, classes, (n, *(side // 8 + 1 for side in size)), generator=generator)
    for dim, side in enumerate(size, 1):
        labels = labels.repeat_interleave(8, dim).narrow(dim, 0, side)
    return labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.02, IGNORED).contiguous()


def _class_ids(
    name: str, target: float, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **options: object
) -> Case:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(shape, generator=generator, dtype=dtype), _labels(shape, generator)
    loss = RMILoss(shape[1], **options)  # type: ignore[arg-type]
    return Case(
        f"{name}, {'x'.join(map(str, shape))}",
        target,
        lambda x: loss(x, labels),
        lambda x: F.cross_entropy(x, labels, ignore_index=IGNORED),
        logits,
    )


def _binary(name: str, target: float, shape: tuple[int, ...], kind: str) -> Case:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    masks = (_labels((shape[0] * shape[1], 2, *shape[2:]), generator) == 1).view(shape)
    mode = "binary" if shape[1] == 1 else "multilabel"
    soft = masks.float() if kind == "integers" else (0.1 + 0.8 * masks.float())
    loss = RMILoss(shape[1], mode=mode, from_probabilities=kind == "probabilities")
    given = masks.long() if kind == "integers" else soft

    def reference(x: Tensor) -> Tensor:
        if kind == "probabilities":
            return F.binary_cross_entropy(x, soft)
        return F.binary_cross_entropy_with_logits(x, soft)

    logits = logits.sigmoid() if kind == "probabilities" else logits
    return Case(f"{name}, {'x'.join(map(str, shape))}", target, lambda x: loss(x, given), reference, logits)


def _soft(name: str, target: float, shape: tuple[int, ...], stride: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(shape, generator=generator).softmax(1)
    size = shape[2:]
    logits = torch.randn(*shape[:2], *(-(-side // stride) for side in size), generator=generator)
    loss = RMILoss(shape[1])

    def reference(x: Tensor) -> Tensor:
        full = x if stride == 1 else F.interpolate(x, size, mode="bilinear")
        return F.cross_entropy(full, probabilities)

    return Case(f"{name}, {'x'.join(map(str, shape))}", target, lambda x: loss(x, probabilities), reference, logits)


def cases() -> list[Callable[[], Case]]:
    """All of them, to be made one at a time."""
    large, middle = (4, 21, 513, 513), (2, 21, 257, 257)
    return [
        lambda: _class_ids("class ids, default", 1.0, large),
        *(
            lambda shape=shape: _class_ids("class ids, few classes", 1.0, shape)  # type: ignore[misc]
            for shape in ((2, 4, 128, 128), (8, 2, 256, 256), (4, 11, 256, 256))
        ),
        lambda: _class_ids("smallest", 2.0, (1, 2, 32, 32)),
        lambda: _class_ids("small", 1.2, (1, 21, 64, 64)),
        lambda: _class_ids("pool max 2", 1.5, large, pool="max", pool_size=2),
        lambda: _class_ids("pool avg 1", 1.5, large, pool_size=1),
        lambda: _class_ids("pool interp 2", 1.5, large, pool="interp", pool_size=2),
        lambda: _class_ids("region size 5", 1.5, middle, region_size=5),
        lambda: _class_ids("region size 7", 2.0, middle, region_size=7),
        lambda: _class_ids("region size 10", 4.0, middle, region_size=10),
        lambda: _class_ids("float64", 1.5, middle, torch.float64),
        lambda: _binary("binary, integers", 1.0, (8, 1, 512, 512), "integers"),
        lambda: _binary("binary, soft", 1.3, (8, 1, 512, 512), "soft"),
        lambda: _binary("binary, from probabilities", 1.3, (8, 1, 512, 512), "probabilities"),
        lambda: _binary("multilabel, integers", 1.0, (2, 8, 256, 256), "integers"),
        lambda: _binary("multilabel, soft", 1.3, (2, 8, 256, 256), "soft"),
        lambda: _soft("soft classes", 1.3, middle, 1),
        lambda: _soft("soft classes from stride 4", 0.4, middle, 4),
        lambda: _class_ids("volume, pool 2", 3.0, (1, 4, 96, 96, 96), pool_size=2),
        lambda: _class_ids("volume, pool 4", 1.5, (1, 4, 96, 96, 96)),
        lambda: _class_ids("chunked", 3.0, large, implementation="chunked"),
        lambda: _class_ids("chunked, pool 2", 3.0, middle, implementation="chunked", pool_size=2),
        lambda: _class_ids("chunked, region size 5", 3.0, middle, implementation="chunked", region_size=5),
    ]


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Milliseconds of both (medians), and the ratio with its quartiles, over at least five rounds."""
    leaf = case.logits.requires_grad_()

    def run(loss: Callable[[Tensor], Tensor], calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            leaf.grad = None
            loss(leaf).backward()  # type: ignore[no-untyped-call]
        return (time.perf_counter() - start) / calls

    run(case.loss, 2), run(case.reference, 2)
    calls = max(1, int(0.01 / run(case.reference, 1)))  # of a round, which is long enough for the clock
    rounds: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(rounds) < 5 or time.perf_counter() - start < seconds:
        rounds.append((run(case.loss, calls), run(case.reference, calls)))
    own, reference = (statistics.median(times) for times in zip(*rounds))
    quartiles = statistics.quantiles([a / b for a, b in rounds], n=4)
    return {
        "milliseconds": 1e3 * own,
        "reference_milliseconds": 1e3 * reference,
        "ratio": own / reference,
        "low": quartiles[0],
        "high": quartiles[2],
        "rounds": len(rounds),
    }


def table(results: dict[str, dict[str, dict[str, float]]], threads: list[int]) -> str:
    """The results, by case and number of threads, in Markdown."""
    heads = "".join(f" ms, {count} thread{'s' * (count > 1)} | x PyTorch (quartiles) |" for count in threads)
    lines = [f"| case | goal |{heads}", "|---|---|" + "---|---|" * len(threads)]
    for name, found in results.items():
        cells = ""
        for count in threads:
            one = found.get(str(count))
            cells += (
                f" {one['milliseconds']:.3g} | {one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f}) |"
                if one
                else " | |"
            )
        lines.append(f"| {name} | {found['goal']['ratio']:g} |{cells}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for make in cases():
        case = make()
        if arguments.only not in case.name:
            continue
        found = results.setdefault(case.name, {"goal": {"ratio": case.target}})
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            found[str(threads)] = measure(case, arguments.seconds)
        print(case.name, {t: round(found[str(t)]["ratio"], 2) for t in arguments.threads}, flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results, arguments.threads))


if __name__ == "__main__":
    main()
