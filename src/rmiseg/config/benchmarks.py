"""The options of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class BenchLossConfig:
    """Measure time and memory of the losses, forward and backward, beside those of cross entropy."""

    out: str = "runs/bench"
    """Folder for results.csv and speed.png; those of an earlier benchmark are replaced."""
    losses: list[str] | None = None
    """Losses to measure beside cross entropy, of rmi (the fastest implementation), rmi-native, rmi-triton, rmi-chunked,
    rmi-plain (the readable definition), rmi-compiled (that, by torch.compile), ce, bce, rmi-pytorch, smp-dice,
    smp-lovasz; by default rmi, rmi-plain, and the last five where installed."""
    shapes: list[str] = field(
        default_factory=lambda: ["4x21x513x513", "16x12x360x480", "2x19x769x769", "1x150x512x512"]
    )
    """Sizes of batches, NxCxHxW at label resolution; each is measured at each stride."""
    strides: list[int] = field(default_factory=lambda: [1, 4, 8])
    """Ratios of the size of the labels to the size of the logits; 1 is full size."""
    pool_sizes: list[int] = field(default_factory=lambda: [4, 2])
    """Pool sizes of RMI; the first is measured at each stride, the others at the first stride only."""
    region_size: int = 3
    """Region size of RMI."""
    runs: int = 7
    """Runs of each loss, in turn; medians are reported."""
    max_seconds: float = 20
    """A loss that has taken longer than this in a case is run three times only."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the logits; 16-bit logits are measured under autocast."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """Threads on the CPU; by default as many as torch chooses."""


@dataclass
class BenchFormsConfig:
    """Measure RMI in every form that it takes (targets, pooling, regions, volumes) beside other losses, on the CPU."""

    out: str = "runs/bench-forms"
    """Folder for forms.json and forms.md."""
    threads: list[int] = field(default_factory=lambda: [1, 2])
    """Numbers of threads to measure with."""
    seconds: float = 3.0
    """Seconds to measure each form for."""
    only: str = ""
    """Only forms whose names hold this."""


@dataclass
class BenchDataConfig:
    """Images per second of loading alone, beside torchvision's, and of training; and how long it waits for data."""

    recipe: str
    """Recipe of a training, or config.yaml of a run."""
    root: str | None = None
    """Folder of the data set, if not the one that the recipe names."""
    workers: int | None = None
    """Processes that load images; by default as in the recipe."""
    rounds: int = 5
    """Number of times that loading is measured, in turn with torchvision's; medians are reported."""
    batches: int = 10
    """Batches in each round, and training steps."""
