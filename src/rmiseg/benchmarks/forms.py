"""`rmiseg bench forms`: the cost of RMI in every form that it takes, beside other losses for the same task."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from rmiseg.benchmarks.candidates import IGNORE_INDEX, is_installed, random_labels
from rmiseg.config import BenchFormsConfig
from rmiseg.losses import RMILoss
from rmiseg.runtime.files import to_json, write_text
from rmiseg.runtime.words import counted

Loss = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    """RMI in one form, and others on the same batch.

    Attributes:
        name: What is measured.
        goal: The ratio of RMI's time to that of "PyTorch" that is aimed at.
        losses: By name: "RMI"; "PyTorch", its own loss for the same task; "DiceCE", MONAI's, where it is installed.
        logits: What they are computed from.
    """

    name: str
    goal: float
    losses: dict[str, Loss]
    logits: Tensor


def _title(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}, {'x'.join(map(str, shape))}"


def _class_ids(
    name: str, goal: float, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **options: object
) -> Case:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(shape, generator=generator, dtype=dtype), random_labels(shape, generator)
    loss = RMILoss(shape[1], **options)  # type: ignore[arg-type]
    losses: dict[str, Loss] = {
        "RMI": lambda x: loss(x, labels),
        "PyTorch": lambda x: F.cross_entropy(x, labels, ignore_index=IGNORE_INDEX),
    }
    if is_installed("monai"):
        from monai.losses.dice import DiceCELoss

        dice, known = DiceCELoss(to_onehot_y=True, softmax=True), labels.where(labels != IGNORE_INDEX, 0).unsqueeze(1)
        losses["DiceCE"] = lambda x: dice(x, known)
    return Case(_title(name, shape), goal, losses, logits)


def _binary(name: str, goal: float, shape: tuple[int, ...], kind: str) -> Case:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    masks = (random_labels((shape[0] * shape[1], 2, *shape[2:]), generator) == 1).view(shape)
    mode = "binary" if shape[1] == 1 else "multilabel"
    soft = masks.float() if kind == "integers" else (0.1 + 0.8 * masks.float())
    loss = RMILoss(shape[1], mode=mode, from_probabilities=kind == "probabilities")
    given = masks.long() if kind == "integers" else soft

    def reference(x: Tensor) -> Tensor:
        if kind == "probabilities":
            return F.binary_cross_entropy(x, soft)
        return F.binary_cross_entropy_with_logits(x, soft)

    logits = logits.sigmoid() if kind == "probabilities" else logits
    return Case(_title(name, shape), goal, {"RMI": lambda x: loss(x, given), "PyTorch": reference}, logits)


def _soft(name: str, goal: float, shape: tuple[int, ...], stride: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(shape, generator=generator).softmax(1)
    size = shape[2:]
    logits = torch.randn(*shape[:2], *(-(-side // stride) for side in size), generator=generator)
    loss = RMILoss(shape[1])

    def reference(x: Tensor) -> Tensor:
        full = x if stride == 1 else F.interpolate(x, size, mode="bilinear")
        return F.cross_entropy(full, probabilities)

    return Case(_title(name, shape), goal, {"RMI": lambda x: loss(x, probabilities), "PyTorch": reference}, logits)


def cases() -> list[tuple[Callable[[], Case], str]]:
    """All of them, to be made one at a time, and their titles."""
    large, middle, volume = (4, 21, 513, 513), (2, 21, 257, 257), (1, 4, 96, 96, 96)
    forms: list[tuple[Callable[..., Case], str, float, tuple[int, ...], dict[str, Any]]] = [
        (_class_ids, "class ids, default", 1.0, large, {}),
        (_class_ids, "class ids, few classes", 1.0, (2, 4, 128, 128), {}),
        (_class_ids, "class ids, few classes", 1.0, (8, 2, 256, 256), {}),
        (_class_ids, "class ids, few classes", 1.0, (4, 11, 256, 256), {}),
        (_class_ids, "smallest", 2.0, (1, 2, 32, 32), {}),
        (_class_ids, "small", 1.2, (1, 21, 64, 64), {}),
        (_class_ids, "covariance of the batch", 1.0, large, {"covariance": "batch"}),
        (_class_ids, "covariance of the batch", 1.0, (8, 2, 256, 256), {"covariance": "batch"}),
        (_class_ids, "pool max 2", 1.5, large, {"pool": "max", "pool_size": 2}),
        (_class_ids, "pool avg 1", 1.5, large, {"pool_size": 1}),
        (_class_ids, "pool interp 2", 1.5, large, {"pool": "interp", "pool_size": 2}),
        (_class_ids, "region size 5", 1.5, middle, {"region_size": 5}),
        (_class_ids, "region size 7", 2.0, middle, {"region_size": 7}),
        (_class_ids, "region size 10", 4.0, middle, {"region_size": 10}),
        (_class_ids, "float64", 1.5, middle, {"dtype": torch.float64}),
        (_binary, "binary, integers", 1.0, (8, 1, 512, 512), {"kind": "integers"}),
        (_binary, "binary, soft", 1.3, (8, 1, 512, 512), {"kind": "soft"}),
        (_binary, "binary, from probabilities", 1.3, (8, 1, 512, 512), {"kind": "probabilities"}),
        (_binary, "multilabel, integers", 1.0, (2, 8, 256, 256), {"kind": "integers"}),
        (_binary, "multilabel, soft", 1.3, (2, 8, 256, 256), {"kind": "soft"}),
        (_soft, "soft classes", 1.3, middle, {"stride": 1}),
        (_soft, "soft classes from stride 4", 0.4, middle, {"stride": 4}),
        (_class_ids, "volume, pool 2", 3.0, volume, {"pool_size": 2}),
        (_class_ids, "volume, pool 4", 1.5, volume, {}),
        (_class_ids, "chunked", 3.0, large, {"implementation": "chunked"}),
        (_class_ids, "chunked, pool 2", 3.0, middle, {"implementation": "chunked", "pool_size": 2}),
        (_class_ids, "chunked, region size 5", 3.0, middle, {"implementation": "chunked", "region_size": 5}),
    ]
    return [
        (partial(make, name, goal, shape, **options), _title(name, shape)) for make, name, goal, shape, options in forms
    ]


def run_forms_benchmark(config: BenchFormsConfig, console: Console) -> dict[str, Any]:
    """Measure forward and backward passes on the CPU; writes forms.json and forms.md as it goes, and prints the latter.

    Returns:
        By case, its goal, and by number of threads what `measure` found.

    Raises:
        ValueError: No case has `only` in its name, or a number of threads is below 1.
    """
    if min(config.threads, default=0) < 1:
        raise ValueError(f"threads must be numbers of at least 1, not {config.threads}")
    chosen = [make for make, title in cases() if config.only in title]
    if not chosen:
        raise ValueError(f"only: no form has {config.only!r} in its name; there are {', '.join(t for _, t in cases())}")
    out, found = Path(config.out), dict[str, Any]()
    out.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    try:
        for make in track(chosen, "forms of the loss", console=console, transient=True):
            case = make()
            found[case.name] = {"goal": case.goal}
            for threads in config.threads:
                torch.set_num_threads(threads)
                found[case.name][str(threads)] = measure(case, config.seconds)
            write_text(out / "forms.json", to_json(found))
            write_text(out / "forms.md", table(found, config.threads) + "\n")
    finally:
        torch.set_num_threads(before)
    console.print(table(found, config.threads), markup=False, soft_wrap=True)
    return found


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Medians over at least five rounds, in which the losses of a case run in turn.

    Args:
        case: What to measure.
        seconds: How long to go on.

    Returns:
        Milliseconds of each loss, by its name; and "ratio", of the medians of RMI and PyTorch, with "low" and "high",
        the quartiles of the ratios of single rounds.
    """
    leaf = case.logits.requires_grad_()

    def run(loss: Loss, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            leaf.grad = None
            loss(leaf).backward()  # type: ignore[no-untyped-call]
        return (time.perf_counter() - start) / calls

    for loss in case.losses.values():
        run(loss, 2)
    calls = max(1, int(0.01 / run(case.losses["PyTorch"], 1)))  # of a round, which is long enough for the clock
    rounds: dict[str, list[float]] = {name: [] for name in case.losses}
    start = time.perf_counter()
    while len(rounds["RMI"]) < 5 or time.perf_counter() - start < seconds:
        for name, loss in case.losses.items():
            rounds[name].append(run(loss, calls))
    milliseconds = {name: 1e3 * statistics.median(times) for name, times in rounds.items()}
    quartiles = statistics.quantiles([a / b for a, b in zip(rounds["RMI"], rounds["PyTorch"])], n=4)
    ratio = milliseconds["RMI"] / milliseconds["PyTorch"]
    return {"milliseconds": milliseconds, "ratio": ratio, "low": quartiles[0], "high": quartiles[2]}


def table(found: dict[str, Any], threads: list[int]) -> str:
    """Table of what was found, by form and number of threads, in Markdown."""
    heads = "".join(f" ms, {counted(count, 'thread')} | x PyTorch (quartiles) | DiceCE |" for count in threads)
    lines = [f"| form | goal |{heads}", "|---|---|" + "---|---|---|" * len(threads)]
    for name, own in found.items():
        cells = ""
        for count in threads:
            if (one := own.get(str(count))) is None:
                cells += " | | |"
                continue
            times = one["milliseconds"]
            dice = f"{times['DiceCE'] / times['PyTorch']:.2f}" if "DiceCE" in times else ""
            ratio = f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
            cells += f" {times['RMI']:.3g} | {ratio} | {dice} |"
        lines.append(f"| {name} | {own['goal']:g} |{cells}")
    return "\n".join(lines)
