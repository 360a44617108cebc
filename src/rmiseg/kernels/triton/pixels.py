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
# ruff: noqa: RUF005 (Triton's language has no starred tuples)

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from rmiseg.functional import PROBABILITY_OFFSET, RMIOptions, one_hot, pooled_size
from rmiseg.kernels.triton.regions import FUSED, region_gradient, region_information

P = ParamSpec("P")
T = TypeVar("T")

TILE = 1024
"""Pixels of a tile: eight independent loads a thread, and near 100 registers, so that an SM keeps 20 KB in flight."""

SMALL_TILE = 512
"""Where a pixel needs more registers: sums over classes, or four loads to interpolate."""

PROGRAMS = 4096
"""Enough programs for every GPU: classes are divided among several where there are fewer tiles."""

LOW_ROWS = 8
"""Rows of small logits whose gradient a program computes. It computes one row of intervals twice: an eighth more."""

FACTORS = 64
"""Factors of 1 to 2 whose product is far from the largest float32."""

MAPS_BYTES = 1 << 26
"""Memory for pooled maps and their gradient beside low-resolution logits; more are computed again, by samples."""

OFFSET = tl.constexpr(PROBABILITY_OFFSET)

LOWEST = tl.constexpr(-3.0e38)


def on_its_device(function: Callable[P, T]) -> Callable[P, T]:
    """Triton launches on the current device, which need not be that of the tensors."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.cuda.device_of(next(a for a in args if isinstance(a, Tensor))):
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `rmiseg.kernels.operators`; without `keeps_maps` samples are worked on apart."""
    at_once = with_gradient or keeps_maps(logits.shape, target.shape, options)
    pixel_sums, rmi, present, gradient_maps = [], [], [], []
    for at in [slice(None)] if at_once else _samples(logits, target, options):
        batch = _Batch(logits[at], target[at], valid[at], class_weights, options.align_corners)
        own_sums, *maps = _forward_pass(batch, options.pixel_loss, _Pooling.of(batch, options))
        own_rmi, own_present, covariance = region_information(*maps, options.region_size, options.alpha)
        if with_gradient:
            ones = torch.ones_like(own_rmi)
            gradient_maps.append(region_gradient(*maps, covariance, ones, options.region_size, options.alpha))
        else:
            gradient_maps.append(maps[0].new_empty((*own_rmi.shape, 0, 0)))
        pixel_sums.append(own_sums)
        rmi.append(own_rmi)
        present.append(own_present)
    if len(rmi) == 1:
        return pixel_sums[0], rmi[0], present[0], gradient_maps[0]
    return torch.cat(pixel_sums), torch.cat(rmi), torch.cat(present), torch.cat(gradient_maps)


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
    """See `rmiseg.kernels.operators`; what was not kept is computed again."""
    gradient = torch.empty_like(logits)
    kept = gradient_maps.shape[-1] > 0
    for at in [slice(None)] if kept else _samples(logits, target, options):
        batch = _Batch(logits[at], target[at], valid[at], class_weights, options.align_corners)
        pooling = _Pooling.of(batch, options)
        if kept:
            grad_pooled = gradient_maps * grad_rmi.to(gradient_maps.dtype)[..., None, None]
        else:
            _, *maps = _forward_pass(batch, options.pixel_loss, pooling)
            _, _, covariance = region_information(*maps, options.region_size, options.alpha)
            grad_pooled = region_gradient(*maps, covariance, grad_rmi[at], options.region_size, options.alpha)
        _backward_pass(batch, options.pixel_loss, pooling, grad_pixel[at], grad_pooled, gradient[at])
    return gradient


def keeps_maps(logits_shape: torch.Size, target_shape: torch.Size, options: RMIOptions) -> bool:
    """Whether gradient maps are kept for the backward pass, rather than computed again there.

    Beside full-size logits they are small. Beside low-resolution logits they can be what takes the memory.
    """
    if logits_shape[-2:] == target_shape[-2:]:
        return True
    return target_shape[0] * _maps_bytes(logits_shape, target_shape, options) <= MAPS_BYTES


def _maps_bytes(logits_shape: torch.Size, target_shape: torch.Size, options: RMIOptions) -> int:
    """Of the pooled probabilities, labels and gradient of one sample, in float32."""
    height, width = target_shape[-2:]
    if options.pool_size > 1:
        height, width = pooled_size((height, width), options.pool, options.pool_size)
    return 3 * 4 * logits_shape[1] * height * width


def _samples(logits: Tensor, target: Tensor, options: RMIOptions) -> list[slice]:
    """Slices of the batch whose pooled maps fit into MAPS_BYTES, or single samples."""
    count = max(1, MAPS_BYTES // _maps_bytes(logits.shape, target.shape, options))
    return [slice(start, start + count) for start in range(0, len(logits), count)]


@on_its_device
def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.operators`."""
    return _forward_pass(_Batch(logits, target, valid, class_weights, align_corners), pixel_loss, _NO_POOLING)[0]


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
    """See `rmiseg.kernels.operators`."""
    gradient = torch.empty_like(logits)
    batch = _Batch(logits, target, valid, class_weights, align_corners)
    _backward_pass(batch, pixel_loss, _NO_POOLING, grad_pixel, None, gradient)
    return gradient


@dataclass(frozen=True)
class _Pooling:
    """How a pass pools: "avg", "max", "interp" or "none"; windows of `size`; pooled maps of (height, width)."""

    kind: str
    size: int
    height: int = 0
    width: int = 0

    @classmethod
    def of(cls, batch: _Batch, options: RMIOptions) -> _Pooling:
        if options.pool_size == 1:
            return cls("avg", 1, batch.height, batch.width)
        size = pooled_size((batch.height, batch.width), options.pool, options.pool_size)
        return cls(options.pool, options.pool_size, *size)

    @property
    def window(self) -> int:
        """Side of the windows that tiles are made of, which need not mean anything."""
        return self.size if self.kind in ("avg", "max") else 4

    @property
    def padding(self) -> int:
        return self.size // 2 if self.kind in ("avg", "max") else 0


_NO_POOLING = _Pooling("none", 1)


class _Batch:
    """Logits, target, valid pixels and class weights, as the kernels take them."""

    def __init__(
        self, logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, align_corners: bool
    ) -> None:
        self.logits = logits
        self.target = target.contiguous()
        self.valid = valid.contiguous().view(torch.uint8)
        self.count, self.classes = logits.shape[:2]
        self.height, self.width = target.shape[-2:]
        self.dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.wide = tl.float64 if logits.dtype == torch.float64 else tl.float32
        # Positions are fractions of whole numbers up to twice the product of two sides.
        self.whole = tl.int32 if max(self.height, self.width) < 1 << 14 else tl.int64
        small = tuple(logits.shape[-2:]) != (self.height, self.width)
        self.upsample = ("corners" if align_corners else "centers") if small else "none"
        self.class_weights = class_weights

    def weighting(self) -> dict[str, Any]:
        """Class weights, for the kernels of the pixel loss."""
        weighted = self.class_weights is not None
        # Without them, a pointer that no kernel follows.
        return {"class_weights": self.class_weights if weighted else self.valid, "WEIGHTED": weighted}

    def arguments(self) -> dict[str, Any]:
        """What every kernel begins with."""
        n, c, h, w = self.logits.stride()
        return {
            "logits": self.logits,
            "target": self.target,
            "valid": self.valid,
            "stride_n": n,
            "stride_c": c,
            "stride_h": h,
            "stride_w": w,
            "classes": self.classes,
            "low_height": self.logits.shape[2],
            "low_width": self.logits.shape[3],
            "height": self.height,
            "width": self.width,
            "UPSAMPLE": self.upsample,
            "WHOLE": self.whole,
            "WIDE": self.wide,
        }

    def zeros(self, *shape: int) -> Tensor:
        return self.logits.new_zeros(shape, dtype=self.dtype)

    def empty(self, *shape: int) -> Tensor:
        return self.logits.new_empty(shape, dtype=self.dtype)


@dataclass(frozen=True)
class _Tiles:
    """Tiles of `cells` pooling windows each, of one sample, times groups of classes: one program each."""

    rows: int
    columns: int
    cells: int
    side: int
    tiles: int
    groups: int
    group: int

    @classmethod
    def of(cls, batch: _Batch, pooling: _Pooling, split_classes: bool) -> _Tiles:
        rows, columns = (-(-(side + pooling.padding) // pooling.window) for side in (batch.height, batch.width))
        side = triton.next_power_of_2(pooling.window)
        pixels = TILE if split_classes and batch.upsample == "none" else SMALL_TILE
        cells = max(1, pixels // (side * triton.next_power_of_2(pooling.window)))
        tiles = -(-rows * columns // cells)
        groups = min(batch.classes, -(-PROGRAMS // max(1, batch.count * tiles))) if split_classes else 1
        group = -(-batch.classes // max(1, groups))
        return cls(rows, columns, cells, side, tiles, -(-batch.classes // group), group)

    @property
    def warps(self) -> int:
        """Four, and more for lanes beyond 256: windows of more than 16 rows."""
        return max(4, min(16, self.cells * self.side // 64))

    def arguments(self, pooling: _Pooling) -> dict[str, Any]:
        return {
            "pooled_height": pooling.height,
            "pooled_width": pooling.width,
            "cells": self.rows * self.columns,
            "grid_width": self.columns,
            "tiles": self.tiles,
            "groups": self.groups,
            "group": self.group,
            "POOL": pooling.kind,
            "SIZE": pooling.window,
            "PADDING": pooling.padding,
            "SIDE": self.side,
            "CELLS": self.cells,
        }


def _forward_pass(batch: _Batch, pixel_loss: str, pooling: _Pooling) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel sums (N,), and pooled probabilities and labels (N, C, ph, pw)."""
    tiles = _Tiles.of(batch, pooling, split_classes=pixel_loss == "bce")
    programs = batch.count * tiles.tiles * tiles.groups
    sums = batch.logits.new_empty((programs,), dtype=torch.float64)
    shape = (batch.count, batch.classes, pooling.height, pooling.width)
    probabilities = batch.empty(*shape)
    labels = _nearest_labels(batch, pooling) if pooling.kind == "interp" else batch.empty(*shape)
    _forward[(programs,)](
        sums=sums,
        probabilities=probabilities,
        labels=labels,
        **batch.arguments(),
        **batch.weighting(),
        **tiles.arguments(pooling),
        CROSS_ENTROPY=pixel_loss == "ce",
        FACTORS=FACTORS,
        **FUSED,
        num_warps=tiles.warps,
    )
    if pooling.kind == "interp" and probabilities.numel() > 0:
        cells = 256
        blocks = -(-pooling.height * pooling.width // cells)
        _interp[(batch.count * batch.classes * blocks,)](
            probabilities=probabilities,
            **batch.arguments(),
            pooled_height=pooling.height,
            pooled_width=pooling.width,
            blocks=blocks,
            CELLS=cells,
            CLAMP=pixel_loss == "ce",
            **FUSED,
            num_warps=4,
        )
    return sums.view(batch.count, tiles.tiles * tiles.groups).sum(dim=1).to(batch.dtype), probabilities, labels


def _nearest_labels(batch: _Batch, pooling: _Pooling) -> Tensor:
    """One-hot labels at the pixels that F.interpolate takes for the nearest: (N, C, ph, pw)."""
    rows, columns = (
        F.interpolate(torch.arange(side, device=batch.logits.device, dtype=batch.dtype)[None, None], pooled)[
            0, 0
        ].long()
        for side, pooled in ((batch.height, pooling.height), (batch.width, pooling.width))
    )
    target, valid = (a[:, rows[:, None], columns] for a in (batch.target, batch.valid))
    return one_hot(target, valid.view(torch.bool), batch.classes, batch.dtype)


def _backward_pass(
    batch: _Batch,
    pixel_loss: str,
    pooling: _Pooling,
    grad_pixel: Tensor,
    grad_pooled: Tensor | None,
    gradient: Tensor,
) -> None:
    """Write the gradient in the logits, given that in the pixel sum and in the pooled probabilities."""
    strides = dict(zip(("out_n", "out_c", "out_h", "out_w"), gradient.stride()))
    tiles = _Tiles.of(batch, pooling, split_classes=pixel_loss == "bce")
    grid = (batch.count * tiles.tiles * tiles.groups,)
    unused = batch.valid  # a pointer that no kernel follows
    argmax: Tensor = unused
    if pooling.kind == "max":
        argmax = torch.empty_like(grad_pooled, dtype=torch.int32)
        _argmax[grid](argmax=argmax, **batch.arguments(), **tiles.arguments(pooling), **FUSED, num_warps=tiles.warps)
    shared = {
        "gradient": gradient,
        "grad_pixel": grad_pixel.contiguous(),
        "grad_pooled": unused if grad_pooled is None else grad_pooled,
        "argmax": argmax,
        **batch.arguments(),
        **batch.weighting(),
        **strides,
        "CROSS_ENTROPY": pixel_loss == "ce",
    }
    if batch.upsample == "none":
        _backward[grid](**shared, **tiles.arguments(pooling), **FUSED, num_warps=tiles.warps)
        return
    log_sums = unused
    if pixel_loss == "ce":
        log_sums = batch.empty(batch.count, batch.height, batch.width)
        pixel_blocks = -(-batch.height * batch.width // SMALL_TILE)
        _log_sum_exp[(batch.count * pixel_blocks,)](
            log_sums=log_sums, **batch.arguments(), blocks=pixel_blocks, LANES=SMALL_TILE, **FUSED, num_warps=4
        )
    low_height, low_width = batch.logits.shape[-2:]
    run = triton.next_power_of_2(_longest_interval(batch))
    columns = max(2, 128 // run)
    bands, blocks = -(-low_height // LOW_ROWS), -(-low_width // (columns - 1))
    groups = min(batch.classes, -(-4 * PROGRAMS // max(1, batch.count * bands * blocks)))
    group = -(-batch.classes // max(1, groups))
    groups = -(-batch.classes // group)
    _low_backward[(batch.count * bands * blocks * groups,)](
        **shared,
        log_sums=log_sums,
        pooled_height=pooling.height,
        pooled_width=pooling.width,
        bands=bands,
        blocks=blocks,
        groups=groups,
        group=group,
        POOL=pooling.kind,
        SIZE=pooling.window,
        PADDING=pooling.padding,
        ROWS=LOW_ROWS,
        COLUMNS=columns,
        RUN=run,
        **FUSED,
        num_warps=max(1, min(16, columns * run // 32)),
    )


def _longest_interval(batch: _Batch) -> int:
    """The most pixels between two columns of small logits."""
    low_width = batch.logits.shape[3]
    if batch.upsample == "corners" and low_width > 1:
        return -(-(batch.width - 1) // (low_width - 1)) if batch.width > 1 else 1
    return -(-batch.width // low_width)


@triton.jit
def _lanes(
    tile, width, cells, grid_width, SIZE: tl.constexpr, PADDING: tl.constexpr, SIDE: tl.constexpr, CELLS: tl.constexpr
):
    """A tile of windows, SIDE lanes each: column of the lane's pixels, first row, whether they exist so far.

    Everything is one-dimensional, and rows of the windows are unrolled: neighboring lanes read neighboring pixels, and
    no values change hands between threads but in the sums over windows.
    """
    lane = tl.arange(0, CELLS * SIDE)
    cell = tile * CELLS + lane // SIDE
    x = (cell % grid_width) * SIZE + lane % SIDE - PADDING
    y = (cell // grid_width) * SIZE - PADDING
    return x, y, (cell < cells) & (lane % SIDE < SIZE) & (x >= 0) & (x < width)


@triton.jit
def _label(target, valid, n, y, x, exists, height, width):
    """Class of each pixel, int32, -1 where it is not valid."""
    pixel = (n * height + y) * width + x  # n is int64
    is_valid = tl.load(valid + pixel, mask=exists, other=0) != 0
    return tl.where(is_valid, tl.load(target + pixel, mask=exists, other=0).to(tl.int32), -1)


@triton.jit
def _pixel_weight(class_weights, label, classes, WEIGHTED: tl.constexpr, WIDE: tl.constexpr):
    """The weight of each pixel's class, 0 where it is not valid."""
    weight = (label >= 0).to(WIDE)
    if WEIGHTED:
        weight = tl.load(class_weights + label, mask=(label >= 0) & (label < classes), other=0.0).to(WIDE)
    return weight


@triton.jit
def _source(position, low_size, size, CORNERS: tl.constexpr, WHOLE: tl.constexpr, WIDE: tl.constexpr):
    """The two pixels that a position is interpolated from, and the weight of the second, in whole numbers up to there.

    As F.interpolate defines it, without its rounding.
    """
    position = position.to(WHOLE)
    if CORNERS:
        numerator = position * (low_size - 1)
        denominator = tl.maximum(size - 1, 1)
    else:
        numerator = (2 * position + 1) * low_size - size
        denominator = 2 * size
    numerator = tl.maximum(numerator, 0)
    first = tl.minimum(numerator // denominator, low_size - 1)
    second = tl.minimum(first + 1, low_size - 1)
    return first, second, (numerator - first * denominator).to(WIDE) / tl.cast(denominator, WIDE)


@triton.jit
def _axis(position, stride, low_size, size, UPSAMPLE: tl.constexpr, WHOLE: tl.constexpr, WIDE: tl.constexpr):
    """Where pixels are read along one axis: offset, or both offsets and the weight of the second."""
    if UPSAMPLE == "none":
        place = (position.to(tl.int64) * stride,)
    else:
        first, second, weight = _source(position, low_size, size, UPSAMPLE == "corners", WHOLE, WIDE)
        place = (first.to(tl.int64) * stride, second.to(tl.int64) * stride, weight)
    return place


@triton.jit
def _read(plane, rows, columns, exists, UPSAMPLE: tl.constexpr, WIDE: tl.constexpr):
    """Full-size logits of one class, `plane` (h, w), at what `_axis` returned; 0 where there is no pixel."""
    if UPSAMPLE == "none":
        value = tl.load(plane + rows[0] + columns[0], mask=exists, other=0.0).to(WIDE)
    else:
        upper = (1 - columns[2]) * tl.load(plane + rows[0] + columns[0], mask=exists, other=0.0).to(WIDE)
        upper += columns[2] * tl.load(plane + rows[0] + columns[1], mask=exists, other=0.0).to(WIDE)
        lower = (1 - columns[2]) * tl.load(plane + rows[1] + columns[0], mask=exists, other=0.0).to(WIDE)
        lower += columns[2] * tl.load(plane + rows[1] + columns[1], mask=exists, other=0.0).to(WIDE)
        value = (1 - rows[2]) * upper + rows[2] * lower
    return value


@triton.jit
def _sigmoid(v):
    """exp(-|v|), 1 / (1 + exp(-|v|)), and the sigmoid: exact in both tails."""
    e = tl.exp(-tl.abs(v))
    r = 1.0 / (1.0 + e)
    return e, r, tl.where(v >= 0, r, e * r)


@triton.jit
def _add_class(v, largest, total):
    """Take one class more into the logarithm of a sum of exponentials, total * exp(largest)."""
    e = tl.exp(-tl.abs(v - largest))
    above = v > largest
    return tl.where(above, v, largest), tl.where(above, total * e + 1.0, total + e)


@triton.jit
def _forward(
    logits,  # (N, C, h, w), strided
    target,  # (N, H, W) int64
    valid,  # (N, H, W) uint8
    class_weights,  # (C,) float64, if WEIGHTED
    sums,  # (programs,) float64: pixel loss
    probabilities,  # (N, C, ph, pw) float32 or float64
    labels,  # (N, C, ph, pw), the same
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    classes,
    low_height,
    low_width,
    height,
    width,
    pooled_height,
    pooled_width,
    cells,
    grid_width,
    tiles,
    groups,
    group,
    POOL: tl.constexpr,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
    CROSS_ENTROPY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    WHOLE: tl.constexpr,
    FACTORS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Pixel loss and pooled maps of a tile of windows and a group of classes."""
    LANES: tl.constexpr = CELLS * SIDE
    # Classes whose 1 + e are multiplied before one logarithm: as many as stay far from the largest float32.
    LOGS: tl.constexpr = FACTORS // SIZE if FACTORS > SIZE and (CROSS_ENTROPY or not WEIGHTED) else 1
    # Groups of a tile are neighbors, and find their labels in the cache.
    first = (tl.program_id(0) % groups) * group
    last = tl.minimum(first + group, classes)
    tile = (tl.program_id(0) // groups) % tiles
    n = (tl.program_id(0) // groups // tiles).to(tl.int64)
    x, top, in_row = _lanes(tile, width, cells, grid_width, SIZE, PADDING, SIDE, CELLS)
    columns = _axis(x, stride_w, low_width, width, UPSAMPLE, WHOLE, WIDE)
    plane = logits + n * stride_n + first.to(tl.int64) * stride_c
    rows, own_labels = (), ()
    count = tl.zeros([LANES], WIDE)
    for dy in tl.static_range(SIZE):
        y = top + dy
        exists = in_row & (y >= 0) & (y < height)
        rows = rows + (_axis(y, stride_h, low_height, height, UPSAMPLE, WHOLE, WIDE),)
        own_labels = own_labels + (_label(target, valid, n, y, x, exists, height, width),)
        count += exists.to(WIDE)

    cell = tile * CELLS + tl.arange(0, CELLS)
    row, column = cell // grid_width, cell % grid_width
    pooled = (n * classes + first) * pooled_height * pooled_width + row * pooled_width + column
    is_pooled = (row < pooled_height) & (column < pooled_width)
    # The offset of the probabilities: less where an average sees the zeros around the image.
    offset = OFFSET
    if POOL == "avg":
        offset = tl.sum(tl.reshape(count, [CELLS, SIDE]), axis=1) * (OFFSET / (SIZE * SIZE))

    pixel = tl.zeros([LANES], tl.float64)
    zero = tl.zeros([LANES], WIDE)
    lowest = tl.full([LANES], LOWEST, WIDE)
    own, largest, total = (), (), ()
    for _ in tl.static_range(SIZE):
        own, largest, total = own + (zero,), largest + (lowest,), total + (zero,)
    for start in range(first, last, LOGS):
        linear = zero
        product = zero + 1.0
        for c in range(start, tl.minimum(start + LOGS, last)):
            pooled_p, pooled_y, poison = zero, zero, zero
            new_own, new_largest, new_total = (), (), ()
            for dy in tl.static_range(SIZE):
                exists = in_row & (top + dy >= 0) & (top + dy < height)
                weight = (own_labels[dy] >= 0).to(WIDE)
                is_label = (own_labels[dy] == c).to(WIDE)
                v = _read(plane, rows[dy], columns, exists, UPSAMPLE, WIDE)
                e, _r, p = _sigmoid(v)
                if CROSS_ENTROPY:
                    one_more_largest, one_more_total = _add_class(v, largest[dy], total[dy])
                    new_own = new_own + (own[dy] + tl.where(own_labels[dy] == c, v, 0.0),)
                    new_largest, new_total = new_largest + (one_more_largest,), new_total + (one_more_total,)
                else:
                    # softplus(v) = max(v, 0) + log(1 + e). A sum of logarithms is one of a product; what 1 + e rounds
                    # off is added. Times the weight, not where: what is not finite stays so.
                    one_more = 1.0 + e
                    product *= tl.where(own_labels[dy] >= 0, one_more, 1.0)
                    positive = tl.where(v > 0, v, 0.0) - tl.where(own_labels[dy] == c, v, 0.0)
                    linear += (positive + (e - (one_more - 1.0))) * weight
                    if (dy + 1) % FACTORS == 0:
                        linear += tl.log(product)
                        product = zero + 1.0
                if POOL == "avg" or POOL == "max":
                    p *= weight
                    if CROSS_ENTROPY:
                        p = tl.where(exists, tl.where(p < OFFSET, OFFSET, p), 0.0)
                    if POOL == "avg":
                        pooled_p += p
                        pooled_y += is_label
                    else:
                        pooled_p = tl.where(p > pooled_p, p, pooled_p)
                        pooled_y = tl.where(is_label > pooled_y, is_label, pooled_y)
                        poison += p * 0.0  # NaN, which a maximum may drop
            if CROSS_ENTROPY:
                own, largest, total = new_own, new_largest, new_total
            if POOL == "avg" or POOL == "max":
                if POOL == "avg":
                    window_p = tl.sum(tl.reshape(pooled_p, [CELLS, SIDE]), axis=1) / (SIZE * SIZE)
                    window_y = tl.sum(tl.reshape(pooled_y, [CELLS, SIDE]), axis=1) / (SIZE * SIZE)
                else:
                    window_p = tl.max(tl.reshape(pooled_p, [CELLS, SIDE]), axis=1)
                    window_p += tl.sum(tl.reshape(poison, [CELLS, SIDE]), axis=1)
                    window_y = tl.max(tl.reshape(pooled_y, [CELLS, SIDE]), axis=1)
                if not CROSS_ENTROPY:
                    window_p += offset
                tl.store(probabilities + pooled, window_p, mask=is_pooled)
                tl.store(labels + pooled, window_y, mask=is_pooled)
                pooled += pooled_height * pooled_width
            plane += stride_c
        if not CROSS_ENTROPY:
            terms = (linear + tl.log(product)).to(tl.float64)
            pixel += terms * tl.load(class_weights + start) if WEIGHTED else terms
    if CROSS_ENTROPY:
        for dy in tl.static_range(SIZE):
            weight = _pixel_weight(class_weights, own_labels[dy], classes, WEIGHTED, WIDE)
            pixel += ((largest[dy] + tl.log(total[dy]) - own[dy]) * weight).to(tl.float64)
    tl.store(sums + tl.program_id(0), tl.sum(pixel, axis=0))


@triton.jit
def _interp(
    logits,  # (N, C, h, w), strided
    target,  # (N, H, W) int64
    valid,  # (N, H, W) uint8
    probabilities,  # (N, C, ph, pw) float32 or float64
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    classes,
    low_height,
    low_width,
    height,
    width,
    pooled_height,
    pooled_width,
    blocks,
    CELLS: tl.constexpr,
    CLAMP: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Probabilities resized bilinearly, corners aligned: four pixels for each value."""
    block = tl.program_id(0) % blocks
    c = (tl.program_id(0) // blocks % classes).to(tl.int64)
    n = (tl.program_id(0) // blocks // classes).to(tl.int64)
    cell = block * CELLS + tl.arange(0, CELLS)
    exists = cell < pooled_height * pooled_width
    top, bottom, down = _source(cell // pooled_width, height, pooled_height, True, WHOLE, WIDE)
    left, right, along = _source(cell % pooled_width, width, pooled_width, True, WHOLE, WIDE)
    plane = logits + n * stride_n + c * stride_c
    value = tl.zeros([CELLS], WIDE)
    for i in tl.static_range(4):
        y = top if i < 2 else bottom
        x = left if i % 2 == 0 else right
        rows = _axis(y, stride_h, low_height, height, UPSAMPLE, WHOLE, WIDE)
        columns = _axis(x, stride_w, low_width, width, UPSAMPLE, WHOLE, WIDE)
        _e, _r, p = _sigmoid(_read(plane, rows, columns, exists, UPSAMPLE, WIDE))
        p *= (_label(target, valid, n, y, x, exists, height, width) >= 0).to(WIDE)
        if CLAMP:
            p = tl.where(p < OFFSET, OFFSET, p)
        else:
            p += OFFSET
        p *= (1.0 - down) if i < 2 else down
        value += p * ((1.0 - along) if i % 2 == 0 else along)
    tl.store(probabilities + (n * classes + c) * pooled_height * pooled_width + cell, value, mask=exists)


@triton.jit
def _argmax(
    logits,  # (N, C, h, w), strided
    target,  # (N, H, W) int64
    valid,  # (N, H, W) uint8
    argmax,  # (N, C, ph, pw) int32
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    classes,
    low_height,
    low_width,
    height,
    width,
    pooled_height,
    pooled_width,
    cells,
    grid_width,
    tiles,
    groups,
    group,
    POOL: tl.constexpr,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Where in each window, row times SIZE plus column, is the first largest probability: that takes the gradient."""
    LANES: tl.constexpr = CELLS * SIDE
    first = (tl.program_id(0) % groups) * group
    tile = (tl.program_id(0) // groups) % tiles
    n = (tl.program_id(0) // groups // tiles).to(tl.int64)
    x, top, in_row = _lanes(tile, width, cells, grid_width, SIZE, PADDING, SIDE, CELLS)
    columns = _axis(x, stride_w, low_width, width, UPSAMPLE, WHOLE, WIDE)
    rows, weights = (), ()
    for dy in tl.static_range(SIZE):
        y = top + dy
        rows = rows + (_axis(y, stride_h, low_height, height, UPSAMPLE, WHOLE, WIDE),)
        exists = in_row & (y >= 0) & (y < height)
        weights = weights + ((_label(target, valid, n, y, x, exists, height, width) >= 0).to(WIDE),)
    cell = tile * CELLS + tl.arange(0, CELLS)
    row, column = cell // grid_width, cell % grid_width
    pooled = (n * classes + first) * pooled_height * pooled_width + row * pooled_width + column
    plane = logits + n * stride_n + first.to(tl.int64) * stride_c
    for _ in range(first, tl.minimum(first + group, classes)):
        best = tl.full([LANES], -1.0, WIDE)
        place = tl.full([LANES], SIZE * SIZE, tl.int32)
        for dy in tl.static_range(SIZE):
            exists = in_row & (top + dy >= 0) & (top + dy < height)
            _e, _r, p = _sigmoid(_read(plane, rows[dy], columns, exists, UPSAMPLE, WIDE))
            p = tl.where(exists, p * weights[dy], -1.0)
            place = tl.where(p > best, dy * SIZE + tl.arange(0, LANES) % SIDE, place)
            best = tl.where(p > best, p, best)
        best = tl.reshape(best, [CELLS, SIDE])
        place = tl.reshape(place, [CELLS, SIDE])
        place = tl.min(tl.where(best == tl.max(best, axis=1)[:, None], place, SIZE * SIZE), axis=1)
        tl.store(argmax + pooled, place, mask=(row < pooled_height) & (column < pooled_width))
        pooled += pooled_height * pooled_width
        plane += stride_c


@triton.jit
def _log_sum_exp(
    logits,  # (N, C, h, w), strided
    target,  # (N, H, W) int64
    valid,  # (N, H, W) uint8
    log_sums,  # (N, H, W) float32 or float64
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    classes,
    low_height,
    low_width,
    height,
    width,
    blocks,
    LANES: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Logarithm of the sum over classes of exponentials, of each pixel."""
    pixel = (tl.program_id(0) % blocks) * LANES + tl.arange(0, LANES)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    exists = pixel < height * width
    rows = _axis(pixel // width, stride_h, low_height, height, UPSAMPLE, WHOLE, WIDE)
    columns = _axis(pixel % width, stride_w, low_width, width, UPSAMPLE, WHOLE, WIDE)
    plane = logits + n * stride_n
    largest = tl.full([LANES], LOWEST, WIDE)
    total = tl.zeros([LANES], WIDE)
    for _ in range(classes):
        largest, total = _add_class(_read(plane, rows, columns, exists, UPSAMPLE, WIDE), largest, total)
        plane += stride_c
    tl.store(log_sums + n * height * width + pixel, largest + tl.log(total), mask=exists)


@triton.jit
def _share(
    position,
    size,
    pooled_size,
    POOL: tl.constexpr,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Along one axis: which pooled value takes from a pixel, with which weight, and the pixel's place in its window."""
    if POOL == "interp":
        # Two resized values are at least two pixels apart: none but the nearest can have taken from this pixel.
        last = tl.maximum(size - 1, 1)
        scaled = position.to(WHOLE) * (pooled_size - 1)
        index = (2 * scaled + last) // (2 * last)
        away = tl.abs(scaled - index * last).to(WIDE) / tl.cast(tl.maximum(pooled_size - 1, 1), WIDE)
        # A single row or column is taken from the first.
        away = tl.where(pooled_size > 1, away, position.to(WIDE))
        share = tl.where(away < 1, 1.0 - away, 0.0)
        place = position * 0
    else:
        index = (position + PADDING) // SIZE
        share = (index < pooled_size).to(WIDE)
        if POOL == "avg":
            share *= 1.0 / SIZE  # not in tl.where, whose constants are float32
        place = position + PADDING - index * SIZE
    return index, share, place


@triton.jit
def _gradient(
    v, label, c, grad_pixel, log_sum, through, POOL: tl.constexpr, CROSS_ENTROPY: tl.constexpr, WIDE: tl.constexpr
):
    """Gradient in full-size logits `v` of class `c`, given that in their probability through the pooled ones."""
    e, r, p = _sigmoid(v)
    is_label = label == c
    if CROSS_ENTROPY:
        direct = tl.exp(v - log_sum) - is_label.to(WIDE)
    else:
        # Probability minus label, without cancellation where the pixel is certain.
        direct = tl.where((v >= 0) != is_label, r, e * r) * tl.where(is_label, -1.0, 1.0)
    out = direct * grad_pixel
    if POOL != "none":
        slope = e * r * r
        if CROSS_ENTROPY:
            slope = tl.where(p < OFFSET, 0.0, slope)  # the gradient of clamping
        out += through * slope
    return out * (label >= 0).to(WIDE)  # not where: what is not finite stays so


@triton.jit
def _backward(
    logits,  # (N, C, H, W), strided
    target,  # (N, H, W) int64
    valid,  # (N, H, W) uint8
    gradient,  # (N, C, H, W), strided
    class_weights,  # (C,) float64, if WEIGHTED
    grad_pixel,  # (N,) float32 or float64
    grad_pooled,  # (N, C, ph, pw) float32 or float64
    argmax,  # (N, C, ph, pw) int32, if pooling is "max"
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    classes,
    low_height,
    low_width,
    height,
    width,
    out_n,
    out_c,
    out_h,
    out_w,
    pooled_height,
    pooled_width,
    cells,
    grid_width,
    tiles,
    groups,
    group,
    POOL: tl.constexpr,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    SIDE: tl.constexpr,
    CELLS: tl.constexpr,
    CROSS_ENTROPY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Gradient in full-size logits, of a tile of windows and a group of classes."""
    LANES: tl.constexpr = CELLS * SIDE
    first = (tl.program_id(0) % groups) * group
    tile = (tl.program_id(0) // groups) % tiles
    n = (tl.program_id(0) // groups // tiles).to(tl.int64)
    x, top, in_row = _lanes(tile, width, cells, grid_width, SIZE, PADDING, SIDE, CELLS)
    upstream = tl.load(grad_pixel + n).to(WIDE)
    plane = logits + n * stride_n + first.to(tl.int64) * stride_c
    out = gradient + n * out_n + first.to(tl.int64) * out_c
    pooled = (n * classes + first) * pooled_height * pooled_width
    zero = tl.zeros([LANES], WIDE)
    own_labels, log_sums, upstreams = (), (), ()
    for dy in tl.static_range(SIZE):
        y = top + dy
        exists = in_row & (y >= 0) & (y < height)
        label = _label(target, valid, n, y, x, exists, height, width)
        own_labels = own_labels + (label,)
        if CROSS_ENTROPY and WEIGHTED:
            upstreams = upstreams + (upstream * _pixel_weight(class_weights, label, classes, WEIGHTED, WIDE),)
        else:
            upstreams = upstreams + (upstream,)
    if CROSS_ENTROPY:
        # All classes are in this group. What is read here is mostly still in the cache below.
        for dy in tl.static_range(SIZE):
            exists = in_row & (top + dy >= 0) & (top + dy < height)
            at = plane + (top + dy).to(tl.int64) * stride_h + x.to(tl.int64) * stride_w
            largest = tl.full([LANES], LOWEST, WIDE)
            total = zero
            for _ in range(classes):
                largest, total = _add_class(tl.load(at, mask=exists, other=0.0).to(WIDE), largest, total)
                at += stride_c
            log_sums = log_sums + (largest + tl.log(total),)
    else:
        for _ in tl.static_range(SIZE):
            log_sums = log_sums + (zero,)
    column, share_x, place_x = _share(x, width, pooled_width, POOL, SIZE, PADDING, WHOLE, WIDE)
    # The row of windows, the same for all rows of pixels; "interp" has one for each.
    row, share_y, _y = _share(top, height, pooled_height, POOL, SIZE, PADDING, WHOLE, WIDE)

    for c in range(first, tl.minimum(first + group, classes)):
        if POOL == "avg" or POOL == "max":
            at = pooled + row * pooled_width + column
            mask = in_row & (share_y > 0) & (share_x > 0)
            grad_window = tl.load(grad_pooled + at, mask=mask, other=0.0)
            if POOL == "avg":
                grad_window *= share_y * share_x
            else:
                taken = tl.load(argmax + at, mask=mask, other=-1)
        # All loads before the first store: the compiler cannot know that they do not overlap.
        values = ()
        for dy in tl.static_range(SIZE):
            exists = in_row & (top + dy >= 0) & (top + dy < height)
            at = plane + (top + dy).to(tl.int64) * stride_h + x.to(tl.int64) * stride_w
            values = values + (tl.load(at, mask=exists, other=0.0).to(WIDE),)
        for dy in tl.static_range(SIZE):
            y = top + dy
            exists = in_row & (y >= 0) & (y < height)
            if POOL == "avg":
                through = grad_window
            elif POOL == "max":
                through = tl.where(taken == dy * SIZE + place_x, grad_window, 0.0)
            elif POOL == "interp":
                own_row, own_share, _y = _share(y, height, pooled_height, POOL, SIZE, PADDING, WHOLE, WIDE)
                mask = exists & (own_share > 0) & (share_x > 0)
                through = tl.load(grad_pooled + pooled + own_row * pooled_width + column, mask=mask, other=0.0)
                through *= own_share * share_x
            else:
                through = zero
            of_class = upstreams[dy]
            if WEIGHTED and not CROSS_ENTROPY:
                of_class *= tl.load(class_weights + c).to(WIDE)
            grad = _gradient(values[dy], own_labels[dy], c, of_class, log_sums[dy], through, POOL, CROSS_ENTROPY, WIDE)
            to = out + y.to(tl.int64) * out_h + x.to(tl.int64) * out_w
            tl.store(to, grad.to(gradient.dtype.element_ty), mask=exists)
        pooled += pooled_height * pooled_width
        plane += stride_c
        out += out_c


@triton.jit
def _interval(k, low_size, size, CORNERS: tl.constexpr, WHOLE: tl.constexpr):
    """The first pixel at or after small pixel number `k`, from -1 to the size."""
    if CORNERS:
        numerator = tl.cast(k, WHOLE) * (size - 1)
        denominator = low_size - 1
        alone = tl.where(k > 0, size, 0)  # a single small pixel is everybody's
    else:
        numerator = (2 * tl.cast(k, WHOLE) + 1) * size - low_size
        denominator = 2 * low_size
        alone = 0
    # Rounded up; what is not positive is the first pixel.
    start = (tl.maximum(numerator, 0) + denominator - 1) // tl.maximum(denominator, 1)
    return tl.cast(tl.minimum(tl.where(denominator > 0, start, alone), size), tl.int32)


@triton.jit
def _low_backward(
    logits,  # (N, C, h, w), strided
    target,  # (N, H, W) int64
    valid,  # (N, H, W) uint8
    gradient,  # (N, C, h, w), strided
    class_weights,  # (C,) float64, if WEIGHTED
    grad_pixel,  # (N,) float32 or float64
    grad_pooled,  # (N, C, ph, pw) float32 or float64
    argmax,  # (N, C, ph, pw) int32, if pooling is "max"
    log_sums,  # (N, H, W) float32 or float64, if the pixel loss is cross entropy
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    classes,
    low_height,
    low_width,
    height,
    width,
    out_n,
    out_c,
    out_h,
    out_w,
    pooled_height,
    pooled_width,
    bands,
    blocks,
    groups,
    group,
    POOL: tl.constexpr,
    SIZE: tl.constexpr,
    PADDING: tl.constexpr,
    CROSS_ENTROPY: tl.constexpr,
    WEIGHTED: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    WHOLE: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RUN: tl.constexpr,
):
    """Gradient in ROWS rows and COLUMNS - 1 columns of small logits, of a group of classes.

    Interval k holds the full-size rows between small rows k and k + 1, -1 and the last those beyond them; so with
    columns. A program walks down the intervals that touch its rows. Lanes are COLUMNS intervals of at most RUN pixels.
    """
    CORNERS: tl.constexpr = UPSAMPLE == "corners"
    LANES: tl.constexpr = COLUMNS * RUN
    first = (tl.program_id(0) % groups) * group
    block = tl.program_id(0) // groups % blocks
    band = tl.program_id(0) // groups // blocks % bands
    n = (tl.program_id(0) // groups // blocks // bands).to(tl.int64)
    upstream = tl.load(grad_pixel + n).to(WIDE)

    lane = tl.arange(0, LANES)
    interval = block * (COLUMNS - 1) - 1 + lane // RUN
    x = _interval(interval, low_width, width, CORNERS, WHOLE) + lane % RUN
    in_row = (x < _interval(interval + 1, low_width, width, CORNERS, WHOLE)) & (interval < low_width)
    left, right, along = _axis(x, stride_w, low_width, width, UPSAMPLE, WHOLE, WIDE)
    # Before the first column and after the last, all is theirs. Pixels before the first are interval -1's, whose second
    # column is the first.
    to_right = tl.where(interval < 0, 1.0, tl.where(interval >= low_width - 1, 0.0, along))
    column, share_x, place_x = _share(x, width, pooled_width, POOL, SIZE, PADDING, WHOLE, WIDE)
    number = tl.arange(0, COLUMNS)
    before = number[None, :] == number[:, None] - 1
    out_column = block * (COLUMNS - 1) - 1 + number
    writes = (number > 0) & (out_column < low_width)

    plane = logits + n * stride_n + first.to(tl.int64) * stride_c
    out = gradient + n * out_n + first.to(tl.int64) * out_c
    pooled = (n * classes + first) * pooled_height * pooled_width
    top_row = band * ROWS
    stop_row = tl.minimum(top_row + ROWS, low_height)
    # Row y is at (multiple * y + shift) / denominator of the small rows.
    if CORNERS:
        multiple, shift, denominator = low_height - 1, 0, tl.maximum(height - 1, 1)
    else:
        multiple, shift, denominator = 2 * low_height, low_height - height, 2 * height
    step = 1.0 / tl.cast(denominator, WIDE)
    zero = tl.zeros([LANES], WIDE)
    for c in range(first, tl.minimum(first + group, classes)):
        carried = zero  # what a row takes from the interval above it
        y_start = _interval(top_row - 1, low_height, height, CORNERS, WHOLE)
        for k in range(top_row - 1, stop_row):
            above = tl.maximum(k, 0)
            upper_row = plane + tl.cast(above, tl.int64) * stride_h
            lower_row = plane + tl.cast(tl.minimum(above + 1, low_height - 1), tl.int64) * stride_h
            upper = (1 - along) * tl.load(upper_row + left, mask=in_row, other=0.0).to(WIDE)
            upper += along * tl.load(upper_row + right, mask=in_row, other=0.0).to(WIDE)
            lower = (1 - along) * tl.load(lower_row + left, mask=in_row, other=0.0).to(WIDE)
            lower += along * tl.load(lower_row + right, mask=in_row, other=0.0).to(WIDE)
            to_next = zero
            y_stop = _interval(k + 1, low_height, height, CORNERS, WHOLE)
            for line in range(y_start, y_stop):
                y = line + lane * 0
                away = tl.cast(line, WHOLE) * multiple + shift - tl.cast(k, WHOLE) * denominator
                down = tl.where(k < 0, 0.0, tl.cast(away, WIDE) * step)
                v = (1 - down) * upper + down * lower
                label = _label(target, valid, n, y, x, in_row, height, width)
                log_sum = zero
                if CROSS_ENTROPY:
                    log_sum = tl.load(log_sums + (n * height + y) * width + x, mask=in_row, other=0.0)
                through = zero
                if POOL != "none":
                    row, share_y, place_y = _share(y, height, pooled_height, POOL, SIZE, PADDING, WHOLE, WIDE)
                    mask = in_row & (share_y > 0) & (share_x > 0)
                    at = pooled + row * pooled_width + column
                    through = tl.load(grad_pooled + at, mask=mask, other=0.0) * (share_y * share_x)
                    if POOL == "max":
                        taken = tl.load(argmax + at, mask=mask, other=-1)
                        through = tl.where(taken == place_y * SIZE + place_x, through, 0.0)
                of_class = upstream
                if WEIGHTED and CROSS_ENTROPY:
                    of_class *= _pixel_weight(class_weights, label, classes, WEIGHTED, WIDE)
                elif WEIGHTED:
                    of_class *= tl.load(class_weights + c).to(WIDE)
                grad = _gradient(v, label, c, of_class, log_sum, through, POOL, CROSS_ENTROPY, WIDE)
                to_lower = tl.where(k < 0, 1.0, tl.where(k >= low_height - 1, 0.0, down))
                carried += (1 - to_lower) * grad
                to_next += to_lower * grad
            # Pixels give to the columns left and right of them, and a column takes the latter from the one before.
            own = tl.sum(tl.reshape((1 - to_right) * carried, [COLUMNS, RUN]), axis=1)
            others = tl.sum(tl.reshape(to_right * carried, [COLUMNS, RUN]), axis=1)
            own += tl.sum(tl.where(before, others[None, :], 0.0), axis=1)
            at_row = out + tl.cast(above, tl.int64) * out_h
            mask = writes & (number * 0 + k >= top_row)
            tl.store(at_row + out_column.to(tl.int64) * out_w, own.to(gradient.dtype.element_ty), mask=mask)
            carried = to_next
            y_start = y_stop
        plane += stride_c
        out += out_c
        pooled += pooled_height * pooled_width
