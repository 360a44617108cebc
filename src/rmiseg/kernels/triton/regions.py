"""Region covariance, RMI and their gradient as Triton kernels: as `rmiseg.kernels.regions`, in few launches.

Let M_0, M_1 be the pooled probabilities and labels of one map, h x w, in float64, and let u = (k, i, j) name the values
of M_k at offset (i, j) of all R x R windows. The uncentered covariance of u and v = (k', i', j') is the sum of
M_k[r - a, s] * M_k'[r, s + b] over r in [i', i' + h - R] and s in [j, j + w - R], with the lags a = i' - i, b = j' - j.
Pairs with equal kinds and lags differ only in how far the sum reaches into the outermost R - 1 rows and columns. So
the products are summed once a lag, 53 sums for R = 3 instead of the 171 of the direct way, with each of the outer rows
and columns apart; `assemble_kernel` puts the sums together and eliminates, all in registers.

A program of `lag_sums_kernel` and `maps_gradient_kernel` is one warp that walks down the rows of a map: every row is
loaded once, while the one before it is worked on, and kept for the next R - 1. Each of the R - 1 first and last columns
has a lane of its own; other lanes have some adjacent inner columns, since neighbors share most of what they load and
convert to float64, and since the fewer warps a row takes, the fewer sums over lanes there are. 129 columns (513 pooled
by 4) are 4 edges and 25 times 5. Rows come in bands; for the lag sums, each of the R - 1 first and last is one alone.

Where a class has one covariance in all samples, their sums are added up before `assemble_kernel`, and the same weights
give the gradient of each sample's maps.

Larger regions than MAX_REGION_SIZE would need more registers than there are; `regions` serves them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions, by_class, counted_maps, for_each_sample
from rmiseg.kernels import regions
from rmiseg.kernels.perfect import perfect_rmi_of_maps
from rmiseg.kernels.pooled import rmi_of_pooled
from rmiseg.kernels.triton.arguments import power_of_2
from rmiseg.kernels.triton.launching import MOST, launch
from rmiseg.kernels.triton.region_gradient import maps_gradient_kernel, taps_kernel
from rmiseg.kernels.triton.region_kernels import LANES, MapsCut, SumsCut, assemble_kernel, lag_sums_kernel

MAX_REGION_SIZE = 7
"""The covariances of larger regions do not fit into the registers of a program."""

AT_ONCE = 3
"""R = 3 takes 55 sums of float64, two registers each, of the 255 registers a thread may have. Larger regions are gone
through once for each pair of kinds: 92 sums for R = 7."""

VALUES = 104
"""Values of float64 that a thread of the lag sums has registers for beside addresses."""

COLUMNS = 6
"""The most columns of a lane."""

TILE_VALUES = 8
"""Values of a tile of the covariance for each thread that eliminates in it."""

ROWS = 21
"""Rows of an inner band: enough that the sums over lanes at its end cost little, few enough to fill a GPU."""

GRADIENT_ROWS = 33
"""Rows of a band of the gradient, for which 2 (R - 1) more are read."""

GRADIENT_COLUMNS = 6
"""The most columns of a lane in the gradient."""

GRADIENT_REGISTERS = 168
"""The most registers of a thread of the gradient, so that an SM holds twelve warps."""

GRADIENT_VALUES = 50
"""Values of float64 that fit into these; more columns would also take the compiler half a minute where R = 5."""

FUSED = {"enable_fp_fusion": True}
"""For every kernel: multiply and add in one instruction, which newer versions of Triton do only if told to."""

PASS_BYTES = 1 << 27
"""Memory for the sums of the maps that are worked on at a time."""


@dataclass(frozen=True)
class _Cut:
    """The cut of one side of the maps: `edges` lines of their own, and `inner` lines between them.

    Lines 0 to R - 2 and the last R - 1 are edges, numbered in order; all lines are edges where there are fewer.
    `single` of the edges count at any one offset, beginning with edge number `offset`.
    """

    side: int
    region_size: int

    @property
    def inner(self) -> int:
        return max(0, self.side - 2 * (self.region_size - 1))

    @property
    def edges(self) -> int:
        return self.side - self.inner

    @property
    def single(self) -> int:
        return self.side - self.region_size + 1 - self.inner


@dataclass(frozen=True)
class Regions:
    """RMI of pooled maps, and what its gradient is made of.

    Attributes:
        probabilities, labels: Pooled, (N, C, h, w) float32 or float64.
        region_size, alpha: See `functional.rmi_sums`.
        rmi: (N, C) float64; (1, C) of each class in all samples, and so what follows.
        present: (N, C) bool, the classes that are.
        covariance: (N, C, 2d, 2d) float64.
        weights: (N, C, d, 2d + 1) float64, which the gradient is made of; None without it, and for large regions.
    """

    probabilities: Tensor
    labels: Tensor
    region_size: int
    alpha: float
    rmi: Tensor
    present: Tensor
    covariance: Tensor
    weights: Tensor | None

    @classmethod
    def of(
        cls,
        probabilities: Tensor,
        labels: Tensor,
        options: RMIOptions,
        with_gradient: bool,
        counted: Tensor | None = None,
    ) -> Regions:
        """Those of every map; or with `counted`, (N, C) float64 of 0 and 1, of each class in all samples that count.

        The latter is for regions up to MAX_REGION_SIZE.
        """
        size, alpha = options.region_size, options.alpha
        if size > MAX_REGION_SIZE:
            covariance = regions.region_covariance(probabilities, labels, size)
            rmi, present = regions.rmi_of_covariance(covariance, alpha), labels.amax(dim=(2, 3)) > 0
            return cls(probabilities, labels, size, alpha, rmi, present, covariance, None)
        n, c, d = len(probabilities) if counted is None else 1, probabilities.shape[1], size**2
        covariance = probabilities.new_empty((n, c, 2 * d, 2 * d), dtype=torch.float64)
        weights = covariance.new_empty((n, c, d, 2 * d + 1)) if with_gradient else None
        rmi, present = covariance.new_empty((n, c)), probabilities.new_empty((n, c), dtype=torch.uint8)
        cuts = _Cuts.of(probabilities.shape, size, ROWS, COLUMNS, GRADIENT_COLUMNS)
        maps, results, of_classes = (probabilities, labels), (covariance, rmi, present, weights), list[Tensor]()
        for some in cuts.passes(1 if counted is None else c):
            sums = _lag_sums(cuts, some, *_part(cuts, some, *maps))
            if counted is None:
                _assemble(cuts, sums, _part(cuts, some, *results), None, alpha)
            else:
                sums *= counted.reshape(-1, 1, 1, 1)[some]
                of_classes.append(torch.unflatten(sums, 0, (-1, c)).sum(dim=0))
        if counted is not None:
            samples = counted.sum(dim=0).clamp(min=1)
            _assemble(cuts, functools.reduce(torch.add, of_classes), results, samples, alpha)
        return cls(probabilities, labels, size, alpha, rmi, present.view(torch.bool), covariance, weights)

    def write_gradient(self, out: Tensor) -> None:
        """Write the gradient of every map's RMI in its probabilities: (N, C, h, w) contiguous, in their dtype."""
        size = self.region_size
        if self.weights is None:
            factor = regions.region_factor(self.covariance, self.alpha)
            out.copy_(regions.region_gradient(self.probabilities, self.labels, factor, size))
            return
        cuts, span = _Cuts.of(self.probabilities.shape, size, ROWS, COLUMNS, GRADIENT_COLUMNS), 2 * size - 1
        weights = self.weights.expand(len(self.probabilities), -1, -1, -1).contiguous()
        taps = self.weights.new_empty((cuts.maps, span, 2 * span**2 + 1, span))
        settings: dict[str, Any] = {"R": size, "TAPS": power_of_2(taps.shape[2]), **FUSED, "num_warps": 4}
        settings["CLASSES"] = power_of_2(span)
        launch(taps_kernel, cuts.maps * span, weights, taps, cuts.of_maps, **settings)
        lanes, bands = cuts.gradient_lanes, -(-self.probabilities.shape[2] // GRADIENT_ROWS)
        cut = cuts.of_maps._replace(rows=GRADIENT_ROWS, bands=bands, chunks=lanes.chunks)
        settings = {"COLUMNS": lanes.columns, "R": size, **FUSED, "num_warps": 1, "maxnreg": GRADIENT_REGISTERS}
        sources = self.probabilities, self.labels, taps, out, cut
        launch(maps_gradient_kernel, cuts.maps * bands * lanes.chunks, *sources, **settings)


def rmi_of_batch(
    probabilities: Tensor,
    labels: Tensor,
    valid: Tensor,
    certain: Callable[[], Tensor],
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`rmi_of_pooled`, where each class has one covariance in all samples."""
    if options.region_size > MAX_REGION_SIZE or not len(labels):
        return rmi_of_pooled(probabilities, labels, valid, certain, options, with_gradient, with_perfect)
    shape, counted = labels.shape, counted_maps(valid, labels, options)
    probabilities, labels = (by_class(maps, options.batch) for maps in (probabilities, labels))
    found = Regions.of(probabilities, labels, options, with_gradient, counted.double().expand(labels.shape[:2]))
    rmi, present = (for_each_sample(each[0], shape[:2]) for each in (found.rmi, found.present))
    perfect = rmi.new_empty((len(rmi), 0))
    if with_perfect:
        exact = by_class(certain(), options.batch) if options.pool == "interp" else labels
        of_classes = perfect_rmi_of_maps(labels, exact, found.covariance, options, counted)
        perfect = for_each_sample(of_classes[0], shape[:2])
    gradient_maps = probabilities.new_empty(shape if with_gradient else (*shape[:2], 0, 0))
    if with_gradient:
        found.write_gradient(gradient_maps)
    return rmi, present, perfect, gradient_maps


def _part(cuts: _Cuts, some: slice, *tensors: Tensor | None) -> tuple[Any, ...]:
    """Some maps of tensors (N, C, ...), as (maps, ...); of all of them the tensors as they are."""
    if some.stop - some.start == cuts.maps:
        return tensors
    return tuple(None if each is None else each.flatten(0, 1)[some] for each in tensors)


def _lag_sums(cuts: _Cuts, some: slice, probabilities: Tensor, labels: Tensor) -> Tensor:
    """Sums of some maps, see `lag_sums_kernel`."""
    size, count = cuts.region_size, some.stop - some.start
    sums = labels.new_empty((count, cuts.bands, cuts.lags, cuts.columns), dtype=torch.float64)
    settings: dict[str, Any] = {"COLUMNS": cuts.lanes.columns, "R": size}
    settings |= {"PAIRS": 4 if size <= AT_ONCE else 1, **FUSED, "num_warps": 1}
    for first in range(0, 4, settings["PAIRS"]):
        settings["FIRST"] = first
        programs = count * cuts.bands * cuts.chunks
        launch(lag_sums_kernel, programs, probabilities, labels, sums, cuts.of_maps, **settings)
    return sums


def _assemble(
    cuts: _Cuts,
    sums: Tensor,
    results: tuple[Tensor | None, ...],
    samples: Tensor | None,
    alpha: float,
) -> None:
    """Write covariance, rmi, present and weights of some maps, from their sums; see `assemble_kernel`."""
    settings = {"R": cuts.region_size, "TILE": cuts.tile, "ALPHA": alpha, **FUSED, "num_warps": cuts.warps}
    launch(assemble_kernel, len(sums), sums, *results, samples, cuts.of_sums, **settings)


class _Lanes:
    """The lanes of a row: `columns` inner columns or one edge each, in `chunks` of LANES.

    Of at most `most` columns, as many as cost least, for which a thread `needs` no more values than there is room for.
    """

    def __init__(self, cut: _Cut, most: int, room: int, needs: Callable[[int], int]) -> None:
        def chunks(columns: int) -> int:
            return -(-(cut.edges - (-cut.inner // columns)) // int(LANES.value))

        possible = [columns for columns in range(most, 1, -1) if needs(columns) <= room]
        # A row takes time for each column of a lane, and some for each lane.
        self.columns = min([*possible, 1], key=lambda columns: chunks(columns) * (columns + 1))
        self.chunks = chunks(self.columns)


class _Cuts:
    """The cuts of pooled maps (N, C, h, w) for one region size, in bands of `rows` inner rows."""

    def __init__(self, shape: tuple[int, ...], region_size: int, rows: int, most: int, gradient_most: int) -> None:
        height, width = shape[2:]
        self.maps, self.region_size = shape[0] * shape[1], region_size
        self.rows, columns, span = _Cut(height, region_size), _Cut(width, region_size), 2 * region_size - 1
        kinds = 2 if region_size <= AT_ONCE else 1
        sums = kinds**2 * region_size * span
        self.lanes = _Lanes(columns, most, VALUES, lambda p: sums + kinds * (region_size * p + span))
        self.gradient_lanes = _Lanes(columns, gradient_most, GRADIENT_VALUES, lambda p: span * p + 2 * (p + span))
        blocks = -(-self.rows.inner // rows)
        self.bands, self.chunks = self.rows.edges + blocks, self.lanes.chunks
        self.columns = columns.edges + self.chunks
        self.lags = 4 * region_size * span + 2
        self.tile = max(2, power_of_2(2 * region_size**2))
        self.warps = max(1, min(16, self.tile**2 // (32 * TILE_VALUES)))
        self.of_maps = MapsCut(height, width, self.rows.inner, columns.inner, rows, self.bands, self.chunks)
        self.of_sums = SumsCut(
            positions=(height - region_size + 1) * (width - region_size + 1),
            bands=self.bands,
            row_edges=self.rows.edges,
            row_single=self.rows.single,
            row_blocks=blocks,
            column_edges=columns.edges,
            column_single=columns.single,
            chunks=self.chunks,
        )

    @staticmethod
    @functools.lru_cache(maxsize=MOST)
    def of(shape: tuple[int, ...], region_size: int, *constants: int) -> _Cuts:
        """The same for the same arguments: they are from step to step."""
        return _Cuts(shape, region_size, *constants)

    def passes(self, together: int) -> list[slice]:
        """Slices of the maps whose sums fit into PASS_BYTES, but for so many that stay together."""
        group = together * max(1, PASS_BYTES // (8 * self.bands * self.lags * self.columns * together))
        return [slice(start, min(start + group, self.maps)) for start in range(0, self.maps, group)]
