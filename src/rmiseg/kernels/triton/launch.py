"""The RMI loss, and the pixel losses alone, as Triton kernels for CUDA.

Forward and backward each read the logits once, in tiles of whole pooling windows that stay in registers while a program
goes through the classes; softmax cross entropy, whose gradient needs the sum over all classes first, reads them twice
in the backward pass. Labels are compared with the class number in registers. Logits below label resolution are
interpolated there too. Of full size there is only the gradient, where the logits are of full size; beside it, pooled
maps and sums. What follows on the pooled maps is in `rmiseg.kernels.triton.regions`.

The same values and gradients as `rmiseg.functional`, whose notation is used: logits (N, C, h, w), target
(N, H, W) int64, valid (N, H, W) bool, class weights (C,) float64 or None. No function waits for the device, and none
uses an atomic operation: the same input gives the same bits.

Pooling "max" looks for the place of each maximum in a kernel of its own, which reads the logits once more in the
backward pass. Pooling "interp" takes its pooled labels from torch operations on maps of pooled size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.functional import RMIOptions, one_hot, pooled_size
from rmiseg.kernels.perfect import interpolated_classes, perfect_rmi_of_classes
from rmiseg.kernels.triton.arguments import Bands, Batch, Gradient, Pooled, Reading, Tiles, Windows, power_of_2
from rmiseg.kernels.triton.launching import launch
from rmiseg.kernels.triton.low_backward import low_backward_kernel
from rmiseg.kernels.triton.pixels_backward import argmax_kernel, backward_kernel, log_sum_exp_kernel
from rmiseg.kernels.triton.pixels_forward import forward_kernel, interp_kernel
from rmiseg.kernels.triton.regions import FUSED, Regions, rmi_of_batch
from rmiseg.kernels.triton.totals import join as join_sums
from rmiseg.kernels.triton.totals import row_sums

P = ParamSpec("P")
T = TypeVar("T")


class Tiling(NamedTuple):
    """Work of a program that goes through classes: `pixels` at a time, `lanes` columns of a window for each thread.

    With `ahead` full-size logits of the next class are on their way while those of one are worked on.
    """

    pixels: int
    lanes: int
    ahead: bool


FORWARD = Tiling(1024, 2, True)
"""Eight independent loads a thread, and near 75 registers, so that an SM keeps 24 KB in flight."""

BACKWARD = Tiling(1024, 1, True)
"""Half as many, for it keeps the places of two tensors."""

SMALL = Tiling(512, 1, True)
"""Fewer where each pixel needs more registers: sums over classes, or four loads to interpolate."""

MOST_AHEAD = 8
"""Rows of windows of which logits fit into registers twice."""

PROGRAMS = 4096
"""Enough programs for every GPU: classes are divided among several where there are fewer tiles."""

LOW_ROWS = 16
"""Rows of small logits whose gradient a program computes. It computes one row of intervals twice: a sixteenth more."""

LOW_COLUMNS = 8
"""Intervals between small columns there, side by side: one is computed twice, and a warp needs no barrier."""

LOW_CLASSES = 4
"""Classes of a program there at most, which share its labels and geometry."""

FACTORS = 120
"""Factors of 1 to 2 whose product is far from the largest float32."""

MAPS_BYTES = 1 << 27
"""Memory for pooled probabilities and labels beside low-resolution logits; more are worked on by samples."""


def on_its_device(function: Callable[P, T]) -> Callable[P, T]:
    """Launch on the device of the tensors: Triton takes the current one, which need not be theirs."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        # torch does not annotate it.
        with torch.cuda.device_of(next(a for a in args if isinstance(a, Tensor))):  # type: ignore[no-untyped-call]
            return function(*args, **kwargs)

    return wrapped


@on_its_device
def rmi_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `rmiseg.kernels.backends.Backend`."""
    whole = Problem.of(logits, target, valid, class_weights, options)
    if options.batch:
        rows, probabilities, labels = whole.forward()
        certain = functools.partial(interpolated_classes, target, valid, labels)
        found = rmi_of_batch(probabilities, labels, valid, certain, options, with_gradient, with_perfect)
        return row_sums(rows, whole.batch.dtype), *found
    gradient_maps = whole.batch.empty(*logits.shape[:2], *(whole.pooling.shape if with_gradient else (0, 0)))
    parts = []
    slices = slices_of(whole)
    for at in slices:
        alone = len(slices) == 1
        problem = whole if alone else Problem.of(logits[at], target[at], valid[at], class_weights, options)
        rows, probabilities, labels = problem.forward()
        sums = row_sums(rows, whole.batch.dtype)
        regions = Regions.of(probabilities, labels, options, with_gradient)
        if with_gradient:
            regions.write_gradient(gradient_maps[at])
        perfect = regions.rmi.new_empty((len(sums), 0))
        if with_perfect:
            perfect = perfect_rmi_of_classes(target[at], valid[at], labels, regions.covariance, options)
        parts.append((sums, regions.rmi, regions.present, perfect))
    first, second, third, fourth = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts))
    return first, second, third, fourth, gradient_maps


@on_its_device
def rmi_backward(
    grad_pixel: Tensor,
    grad_rmi: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    gradient_maps: Tensor,
    options: RMIOptions,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    gradient = torch.empty_like(logits)
    problem = Problem.of(logits, target, valid, class_weights, options)
    problem.backward(grad_pixel, gradient, gradient_maps, grad_rmi.contiguous())
    return gradient


join = on_its_device(join_sums)


@on_its_device
def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    batch = Batch.of(logits, target, valid, class_weights)
    rows, _, _ = Problem(batch, Reading.of(batch, align_corners), NO_POOLING, pixel_loss == "ce").forward()
    return row_sums(rows, batch.dtype)


@on_its_device
def pixel_backward(
    grad_pixel: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    gradient = torch.empty_like(logits)
    batch = Batch.of(logits, target, valid, class_weights)
    problem = Problem(batch, Reading.of(batch, align_corners), NO_POOLING, pixel_loss == "ce")
    problem.backward(grad_pixel, gradient)
    return gradient


@dataclass(frozen=True)
class _Pooling:
    """Pooling of a pass: "avg", "max", "interp" or "none"; windows of `size`; pooled maps of (height, width)."""

    kind: str
    size: int
    height: int = 0
    width: int = 0

    @classmethod
    def of(cls, batch: Batch, options: RMIOptions) -> _Pooling:
        if options.pool_size == 1:
            return cls("avg", 1, batch.height, batch.width)
        height, width = pooled_size((batch.height, batch.width), options.pool, options.pool_size)
        return cls(options.pool, options.pool_size, height, width)

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def windows(self) -> Windows:
        """The windows that tiles are made of, which need not mean anything."""
        has_windows = self.kind in ("avg", "max")
        return Windows(self.kind, self.size if has_windows else 4, self.size // 2 if has_windows else 0)


NO_POOLING = _Pooling("none", 1)


@dataclass(frozen=True)
class _Grid:
    """Tiles of `cells` pooling windows, `side` lanes wide, and their programs; see `Tiling`."""

    tiles: Tiles
    cells: int
    side: int
    lanes: int
    ahead: bool

    @classmethod
    def of(cls, batch: Batch, windows: Windows, tiling: Tiling, split_classes: bool) -> _Grid:
        if batch.is_small or not split_classes:
            tiling = SMALL
        rows, columns = (-(-(side + windows.padding) // windows.size) for side in (batch.height, batch.width))
        ahead = tiling.ahead and not batch.is_small and windows.size <= MOST_AHEAD
        side = power_of_2(windows.size)
        cells = max(1, tiling.pixels // (side * side))
        tiles = -(-rows * columns // cells)
        groups = min(batch.classes, -(-PROGRAMS // max(1, batch.samples * tiles))) if split_classes else 1
        group = -(-batch.classes // max(1, groups))
        tiles_of_groups = Tiles(rows * columns, columns, tiles, -(-batch.classes // group), group)
        return cls(tiles_of_groups, cells, side, tiling.lanes, ahead)

    @property
    def programs(self) -> int:
        """Programs for one sample."""
        return self.tiles.tiles * self.tiles.groups

    @property
    def settings(self) -> dict[str, Any]:
        """Constants of the kernels, and the number of warps."""
        warps = max(1, min(16, self.cells * self.side // (32 * self.lanes)))
        return {"CELLS": self.cells, "SIDE": self.side, "num_warps": warps, **FUSED}


@dataclass(frozen=True)
class Problem:
    """A batch as the kernels take it, and the loss that is asked for."""

    batch: Batch
    reading: Reading
    pooling: _Pooling
    cross_entropy: bool

    @classmethod
    def of(
        cls, logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, options: RMIOptions
    ) -> Problem:
        batch = Batch.of(logits, target, valid, class_weights)
        reading = Reading.of(batch, options.align_corners)
        return cls(batch, reading, _Pooling.of(batch, options), options.pixel_loss == "ce")

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel sums of programs (N, programs) float64, and pooled probabilities and labels (N, C, ph, pw)."""
        batch, pooling = self.batch, self.pooling
        grid = _Grid.of(batch, pooling.windows, FORWARD, split_classes=not self.cross_entropy)
        sums = batch.logits.new_empty((batch.samples, grid.programs), dtype=torch.float64)
        shape = (batch.samples, batch.classes, pooling.height, pooling.width)
        probabilities = batch.empty(*shape)
        labels = self._nearest_labels() if pooling.kind == "interp" else batch.empty(*shape)
        pooled = Pooled(pooling.height, pooling.width, probabilities, labels)
        launch(
            forward_kernel,
            sums.numel(),
            batch,
            pooled,
            sums,
            grid.tiles,
            READING=self.reading,
            WINDOWS=pooling.windows,
            CROSS_ENTROPY=self.cross_entropy,
            FACTORS=FACTORS,
            AHEAD=grid.ahead,
            **grid.settings,
        )
        if pooling.kind == "interp" and probabilities.numel() > 0:
            cells = 256
            blocks = -(-pooling.height * pooling.width // cells)
            settings = {"READING": self.reading, "CELLS": cells, "CLAMP": self.cross_entropy, **FUSED, "num_warps": 4}
            launch(interp_kernel, batch.samples * batch.classes * blocks, batch, pooled, blocks, **settings)
        return sums, probabilities, labels

    def _nearest_labels(self) -> Tensor:
        """One-hot labels at the pixels that F.interpolate takes for the nearest: (N, C, ph, pw)."""
        batch = self.batch
        rows, columns = (
            F.interpolate(torch.arange(side, device=batch.logits.device, dtype=batch.dtype)[None, None], pooled)[
                0, 0
            ].long()
            for side, pooled in ((batch.height, self.pooling.height), (batch.width, self.pooling.width))
        )
        target, valid = (a[:, rows[:, None], columns] for a in (batch.target, batch.valid))
        return one_hot(target, valid.view(torch.bool), batch.classes, batch.dtype)

    def backward(
        self, grad_pixel: Tensor, out: Tensor, gradient_maps: Tensor | None = None, grad_rmi: Tensor | None = None
    ) -> None:
        """Write the gradient in the logits.

        Args:
            grad_pixel: (N,) float32 or float64, the gradient in the pixel sums.
            out: (N, C, h, w), in any strides; overwritten.
            gradient_maps: (N, C, ph, pw) float32 or float64, the gradient of RMI in the pooled probabilities, if there
                is RMI.
            grad_rmi: (N, C) float64, that in RMI.
        """
        batch, pooling = self.batch, self.pooling
        grid = _Grid.of(batch, pooling.windows, BACKWARD, split_classes=not self.cross_entropy)
        programs = batch.samples * grid.programs
        shared: dict[str, Any] = {"READING": self.reading, "WINDOWS": pooling.windows}
        pooled = Pooled(pooling.height, pooling.width, gradient=gradient_maps, upstream=grad_rmi)
        if pooling.kind == "max":
            assert gradient_maps is not None
            pooled = pooled._replace(argmax=torch.empty_like(gradient_maps, dtype=torch.int32))
            launch(argmax_kernel, programs, batch, pooled, grid.tiles, **shared, **grid.settings)
        shared["CROSS_ENTROPY"] = self.cross_entropy
        gradient = Gradient.of(out, grad_pixel)
        if batch.is_small:
            self._low_backward(pooled, gradient, shared)
        else:
            shared["AHEAD"] = grid.ahead
            launch(backward_kernel, programs, batch, pooled, gradient, grid.tiles, **shared, **grid.settings)

    def _low_backward(self, pooled: Pooled, gradient: Gradient, shared: dict[str, Any]) -> None:
        """`backward` for small logits."""
        batch = self.batch
        log_sums = self._log_sums() if self.cross_entropy else None
        run = power_of_2(_longest_interval(batch, self.reading))
        columns = max(LOW_COLUMNS, 32 // run)
        bands, blocks = -(-batch.low_height // LOW_ROWS), -(-batch.low_width // (columns - 1))
        # A pack costs as much as a class more.
        pack = min(range(LOW_CLASSES, 0, -1), key=lambda pack: -(-batch.classes // pack) * (pack + 1))
        packs = -(-batch.classes // pack)
        launch(
            low_backward_kernel,
            batch.samples * bands * blocks * packs,
            batch,
            pooled,
            gradient,
            log_sums,
            Bands(bands, blocks, packs),
            **shared,
            ROWS=LOW_ROWS,
            COLUMNS=columns,
            RUN=run,
            CLASSES=pack,
            **FUSED,
            num_warps=max(1, min(16, columns * run // 32)),
        )

    def _log_sums(self) -> Tensor:
        """Logarithm of the sum over classes of exponentials, (N, H, W)."""
        batch = self.batch
        log_sums = batch.empty(batch.samples, batch.height, batch.width)
        blocks = -(-batch.height * batch.width // SMALL.pixels)
        settings = {"READING": self.reading, "LANES": SMALL.pixels, **FUSED, "num_warps": 4}
        launch(log_sum_exp_kernel, batch.samples * blocks, batch, log_sums, blocks, **settings)
        return log_sums


def slices_of(problem: Problem) -> list[slice]:
    """Slices of the batch whose pooled maps fit into MAPS_BYTES, or single samples. Beside full-size logits all do."""
    batch = problem.batch
    if not batch.is_small:
        return [slice(None)]
    bytes_each = 2 * batch.classes * problem.pooling.height * problem.pooling.width * batch.dtype.itemsize
    count = max(1, MAPS_BYTES // max(1, bytes_each))
    return [slice(start, start + count) for start in range(0, max(1, batch.samples), count)]


def _longest_interval(batch: Batch, reading: Reading) -> int:
    """The most pixels between two columns of small logits."""
    if reading.upsample == "corners" and batch.low_width > 1:
        return -(-(batch.width - 1) // (batch.low_width - 1)) if batch.width > 1 else 1
    return -(-batch.width // batch.low_width)
