"""Kernels of `rmiseg.kernels.triton.totals`, which says what they compute."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def strided_sum(
    values,  # (count,) of any numbers, in any stride
    stride,
    count,
    LANES: tl.constexpr,
):
    """The sum of numbers in memory, float64."""
    total = tl.zeros([LANES], tl.float64)
    for start in range(0, count, LANES):
        at = start + tl.arange(0, LANES)
        total += tl.load(values + at.to(tl.int64) * stride, mask=at < count, other=0).to(tl.float64)
    return tl.sum(total, axis=0)


@triton.jit
def row_sums_kernel(
    rows,  # (N, columns) float64
    out,  # (N,) float32 or float64, written
    columns,
    LANES: tl.constexpr,
):
    """The sum of one row."""
    n = tl.program_id(0).to(tl.int64)
    tl.store(out + n, strided_sum(rows + n * columns, 1, columns, LANES).to(out.dtype.element_ty))


@triton.jit
def join_kernel(
    pixel,  # (N,) float32
    rmi,  # (N, classes) float64
    perfect,  # (N, classes) float64, or None
    map_weights,  # (N, classes) float64 or int64, in any strides
    out,  # (N, 2) float32, written
    floor,
    classes,
    stride_n,  # of map_weights
    stride_c,
    LANES: tl.constexpr,
):
    """Both sums of a sample: that of the pixel loss, and RMI from its floor, times the weights of its maps."""
    n = tl.program_id(0).to(tl.int64)
    total = tl.zeros([LANES], tl.float64)
    for start in range(0, classes, LANES):
        c = start + tl.arange(0, LANES)
        value = tl.load(rmi + n * classes + c, mask=c < classes, other=0.0) - floor
        if perfect is not None:
            value -= tl.load(perfect + n * classes + c, mask=c < classes, other=0.0)
        total += value * tl.load(map_weights + n * stride_n + c * stride_c, mask=c < classes, other=0.0)
    tl.store(out + 2 * n, tl.load(pixel + n))
    tl.store(out + 2 * n + 1, tl.sum(total, axis=0).to(tl.float32))


@triton.jit
def _slopes(pixels, counted, pixel_share, extra, region_share):
    """Derivatives of a loss in the sums of the pixel loss and of RMI, float32; see `rmiseg.kernels.terms.Shares`."""
    divisor = pixels + extra
    slope = (pixel_share / tl.where(divisor > 0, divisor, 1.0)).to(tl.float32)
    region_slope = slope * 0.0
    if region_share is not None:
        counts_any = (pixels > 0) & (counted > 0)
        region_slope = tl.where(counts_any, region_share / tl.where(counts_any, counted, 1.0), 0.0).to(tl.float32)
    return slope, region_slope


@triton.jit
def loss_kernel(
    sums,  # (N, K) float32, in any strides, as the counts
    counts,  # (N, K) int64 or float64
    unknown,  # (M,) bool or int64, in any stride, or None
    loss,  # () float32, written
    gradient,  # (K, N) float32, written: of the loss in the sums
    strides,  # of sums, counts and unknown: 2, 2 and 1
    samples,
    maps,
    pixel_share,  # the fields of `rmiseg.kernels.terms.Shares`
    extra,
    region_share,
    LANES: tl.constexpr,
):
    """The loss of a batch, see `rmiseg.kernels.means.loss_of_sums`."""
    pixels = strided_sum(counts, strides[2], samples, LANES)
    counted = pixels * 0.0
    if region_share is not None:
        counted = strided_sum(counts + strides[3], strides[2], samples, LANES)
    slope, region_slope = _slopes(pixels, counted, pixel_share, extra, region_share)
    value = strided_sum(sums, strides[0], samples, LANES) * slope
    if region_share is not None:
        value += strided_sum(sums + strides[1], strides[0], samples, LANES) * region_slope
    value = value.to(tl.float32)
    if unknown is not None:
        value = tl.where(strided_sum(unknown, strides[4], maps, LANES) > 0, float("nan"), value)
    # As `spread_non_finite` has it: infinity times 0 is NaN.
    spread = 1.0 + value * 0.0
    tl.store(loss, value * spread)
    for start in range(0, samples, LANES):
        n = start + tl.arange(0, LANES)
        tl.store(gradient + n, (slope * spread) + n * 0.0, mask=n < samples)
        if region_share is not None:
            tl.store(gradient + samples + n, (region_slope * spread) + n * 0.0, mask=n < samples)


@triton.jit
def sample_totals_kernel(
    rows,  # (N, columns) float64: sums of programs of the pixel loss
    tallies,  # (N, blocks, 2) int32: pixels that count, and those whose label is unknown
    rmi,  # (N, classes) float64, or None
    totals,  # (N, 5) float64, written: pixel loss, RMI from its floor, both kinds of pixels, and 1 if a pixel counts
    columns,
    blocks,
    classes,
    floor,
    LANES: tl.constexpr,
):
    """Sums of one sample, of which the loss is made."""
    n = tl.program_id(0).to(tl.int64)
    pixels = strided_sum(tallies + n * blocks * 2, 2, blocks, LANES)
    tl.store(totals + 5 * n, strided_sum(rows + n * columns, 1, columns, LANES))
    if rmi is not None:
        above = strided_sum(rmi + n * classes, 1, classes, LANES) - classes * floor
        tl.store(totals + 5 * n + 1, tl.where(pixels > 0, above, 0.0))
    tl.store(totals + 5 * n + 2, pixels)
    tl.store(totals + 5 * n + 3, strided_sum(tallies + n * blocks * 2 + 1, 2, blocks, LANES))
    tl.store(totals + 5 * n + 4, (pixels > 0).to(tl.float64))


@triton.jit
def whole_loss_kernel(
    totals,  # (N, 5) float64, see `sample_totals_kernel`
    loss,  # () float32, written
    slopes,  # (2,) float32, written: derivatives of the loss in the pixel loss and in RMI of all samples
    samples,
    pixel_share,  # the fields of `rmiseg.kernels.terms.Shares`
    extra,
    region_share,
    LANES: tl.constexpr,
):
    """The loss of a batch, see `rmiseg.kernels.means.loss_of_sums`; NaN if a label is unknown."""
    pixels, counted = strided_sum(totals + 2, 5, samples, LANES), strided_sum(totals + 4, 5, samples, LANES)
    slope, region_slope = _slopes(pixels, counted, pixel_share, extra, region_share)
    value = strided_sum(totals, 5, samples, LANES) * slope
    if region_share is not None:
        value += strided_sum(totals + 1, 5, samples, LANES) * region_slope
    value = tl.where(strided_sum(totals + 3, 5, samples, LANES) > 0, float("nan"), value.to(tl.float32))
    # As `spread_non_finite` has it: infinity times 0 is NaN.
    spread = 1.0 + value * 0.0
    tl.store(loss, value * spread)
    tl.store(slopes, slope * spread)
    tl.store(slopes + 1, region_slope * spread)


@triton.jit
def upstream_kernel(
    grad_loss,  # () float32
    slopes,  # (2,) float32
    grad_pixel,  # (N,) float32, written
    grad_rmi,  # (maps,) float64, written, or None
    samples,
    maps,
    LANES: tl.constexpr,
):
    """The gradients in the pixel loss of each sample, and in RMI of each map."""
    at = tl.program_id(0) * LANES + tl.arange(0, LANES)
    grad = tl.load(grad_loss)
    tl.store(grad_pixel + at, grad * tl.load(slopes) + at * 0.0, mask=at < samples)
    if grad_rmi is not None:
        tl.store(grad_rmi + at, (grad * tl.load(slopes + 1)).to(tl.float64) + at * 0.0, mask=at < maps)
