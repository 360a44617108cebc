"""RMI of pooled maps, and its gradient, in closed form and without a copy of every region.

With z = [p; y] the 2d region values at one position, centered over all positions, G = sum z z^T, and a = alpha:

    rmi  = (logdet(G + aI) - logdet(Gpp + aI)) / 2d
    K    = d rmi / d G = ((G + aI)^-1 - blockdiag((Gpp + aI)^-1, 0)) / 2d
    d rmi / d z = 2 K z

With the Cholesky factor [[A, 0], [B, C]] of G + aI, and X = C^-1 B A^-1, the rows of 2 K that belong to p are
X^T [X, -C^-1] / d: no inverse of a matrix, and no difference of large ones. A prediction that equals the labels has
Gpp = Gpy = Gyy, and the value 1/2 ln a + (logdet(2 Gyy + aI) - logdet(Gyy + aI)) / 2d.

All of it in float64: at the paper's sizes the condition number of G + aI is near 3e7.

The values at row offset i of all regions are a slice of rows of the map, so only the R column offsets are copied, 2R
maps instead of 2R^2, and G is made of R (R + 1) / 2 products of 2R x 2R. In volumes, where "rows" are slices and a
"column offset" is one of R^2 pairs, 2R^2 maps instead of 2R^3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rmiseg.functional import RMIOptions, by_class, for_each_sample
from rmiseg.kernels.pieces import piece

BLOCK = 1 << 19
"""Copied values (float64) at a time: a few MB, which stay in cache."""


def region_covariance(probabilities: Tensor, labels: Tensor, region_size: int, counted: Tensor | None = None) -> Tensor:
    """G of every map: pooled maps (N, C, *size) to (N, C, 2d, 2d) float64, d = region_size^2, or ^3 of volumes.

    With `counted`, (N, C) or (N, 1) bool, that of all samples' regions, of the maps that count: (1, C, 2d, 2d).
    """
    size, columns_count = region_size, region_size ** (probabilities.ndim - 3)
    count = probabilities.shape[0] * probabilities.shape[1]
    # In the order (row offset, kind and column offset), twice.
    covariance = probabilities.new_empty((count, size, 2 * columns_count, size, 2 * columns_count), dtype=torch.float64)
    for maps, columns in _column_offsets(probabilities, labels, size):
        rows = _row_offsets(columns, size)
        sums = [values.sum(dim=2, keepdim=True) for values in rows]
        for i in range(size):
            for j in range(i, size):
                block = rows[i] @ rows[j].transpose(1, 2)
                # Centering is a rank-one correction: what cancels, at most the number of positions, leaves float64
                # with far more digits than alpha needs.
                if counted is None:
                    block.baddbmm_(sums[i], sums[j].transpose(1, 2), alpha=-1 / rows[i].shape[2])
                covariance[maps, i, :, j] = block
                covariance[maps, j, :, i] = block.transpose(1, 2)
    if counted is not None:
        means, number = _means(probabilities, labels, size, counted)
        covariance = (
            torch.unflatten(covariance, 0, probabilities.shape[:2]).mul_(counted[(..., *(None,) * 4)]).sum(dim=0)
        )
        covariance -= (number[:, None, None] * means)[..., None, None] * means[:, None, None]
    covariance = covariance.view(-1, size, 2, columns_count, size, 2, columns_count).permute(0, 2, 1, 3, 5, 4, 6)
    return covariance.reshape(-1, probabilities.shape[1], 2 * size * columns_count, 2 * size * columns_count)


def _means(probabilities: Tensor, labels: Tensor, size: int, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Means of all regions of each class, (C, R, 2K) by row and column offset, and their number (C,), float64."""
    weight = counted.double().expand(probabilities.shape[:2])
    shape = *probabilities.shape[:2], size, 2 * size ** (probabilities.ndim - 3)
    sums = probabilities.new_empty(shape, dtype=torch.float64)
    for maps, columns in _column_offsets(probabilities, labels, size):
        for i, values in enumerate(_row_offsets(columns, size)):
            sums.flatten(0, 1)[maps, i] = values.sum(dim=2)
    positions = math.prod([side - size + 1 for side in probabilities.shape[2:]])
    number = weight.sum(dim=0) * positions
    return (sums * weight[..., None, None]).sum(dim=0) / number.clamp(min=1)[:, None, None], number


def region_factor(covariance: Tensor, alpha: float) -> Tensor:
    """Cholesky factor of G + aI, of G (..., m, m) float64; NaN where that is not finite."""
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(_with_alpha(covariance, alpha))
    factor.masked_fill_((info != 0)[..., None, None], math.nan)
    return factor


def rmi_of_factor(factor: Tensor) -> Tensor:
    """RMI (...) float64 of `region_factor` (..., 2d, 2d)."""
    d = factor.shape[-1] // 2
    value: Tensor = factor.diagonal(dim1=-2, dim2=-1)[..., d:].log().sum(-1) / d
    return value


def rmi_of_covariance(covariance: Tensor, alpha: float) -> Tensor:
    """RMI (...) float64 of covariances (..., 2d, 2d); NaN where one is not finite."""
    return rmi_of_factor(region_factor(covariance, alpha))


def perfect_rmi(covariance: Tensor, alpha: float) -> Tensor:
    """RMI (...) float64 of predictions that equal the labels, from covariances (..., 2d, 2d)."""
    d = covariance.shape[-1] // 2
    labels = covariance[..., d:, d:]
    pivots = region_factor(torch.stack([2 * labels, labels]), alpha).diagonal(dim1=-2, dim2=-1)
    together, alone = (pivots.log().sum(-1) / d).unbind(0)
    return together - alone + 0.5 * math.log(alpha)


def region_weights(factor: Tensor) -> Tensor:
    """The rows of 2 K that belong to p, (..., d, 2d) float64, of `region_factor` (..., 2d, 2d)."""
    d = factor.shape[-1] // 2
    own, cross, rest = factor[..., :d, :d], factor[..., d:, :d], factor[..., d:, d:]
    identity = torch.eye(d, dtype=factor.dtype, device=factor.device).expand_as(rest)
    solved = torch.linalg.solve_triangular(rest, torch.cat([cross, identity], dim=-1), upper=False)
    x = torch.linalg.solve_triangular(own, solved[..., :d], upper=False, left=False)
    weights: Tensor = (x.mT / d) @ torch.cat([x, -solved[..., d:]], dim=-1)
    return weights


def region_gradient(
    probabilities: Tensor, labels: Tensor, factor: Tensor, region_size: int, counted: Tensor | None = None
) -> Tensor:
    """Gradient of the RMI of every map in its probabilities: (N, C, *size), in their dtype; see `region_factor`.

    With `counted`, that of a class in the probabilities of all samples; see `region_covariance`.
    """
    size, columns_count = region_size, region_size ** (probabilities.ndim - 3)
    height, *width = (side - size + 1 for side in probabilities.shape[2:])
    # In the order (i, j, p column, kind and y column).
    weights = region_weights(factor).view(-1, size, columns_count, 2, size, columns_count)
    weights = weights.permute(0, 1, 4, 2, 3, 5).reshape(-1, size, size, columns_count, 2 * columns_count)
    common = None
    if counted is not None:
        samples = len(probabilities)
        weights = weights.repeat(samples, 1, 1, 1, 1)
        common = _means(probabilities, labels, size, counted)[0].repeat(samples, 1, 1).unsqueeze(3)
    gradient = torch.zeros_like(probabilities, dtype=torch.float64).flatten(0, 1)
    for maps, columns in _column_offsets(probabilities, labels, size):
        rows = _row_offsets(columns, size)
        if common is None:
            means = [values.mean(dim=2, keepdim=True) for values in rows]
        else:
            means = [common[maps, i] for i in range(size)]
        for i in range(size):
            center = weights[maps, i, 0] @ means[0]
            for j in range(1, size):
                center = center + weights[maps, i, j] @ means[j]
            at_windows = torch.baddbmm(center, weights[maps, i, 0], rows[0], beta=-1)
            for j in range(1, size):
                at_windows.baddbmm_(weights[maps, i, j], rows[j])
            by_column = torch.unflatten(at_windows, 2, (height, *width)).unbind(1)
            for place, values in zip(_places(width, size), by_column):
                gradient[(maps, slice(i, i + height), *place)] += values
    gradient = gradient.view_as(probabilities)
    if counted is not None:
        gradient *= counted[(..., *(None,) * (gradient.ndim - 2))]
    return gradient.to(probabilities.dtype)


def gradient_in_rmi(grad_sums: Tensor, map_weights: Tensor, options: RMIOptions) -> Tensor:
    """Gradient in the RMI of every map, (N, C) float64, of that in `joined_sums`, (N, 2).

    Where RMI is that of a class in all samples, so is its gradient.
    """
    gradient = grad_sums[:, 1:].double() * map_weights
    if not options.batch:
        return gradient
    return for_each_sample(by_class(gradient, options.batch).sum(dim=0), gradient.shape)


def joined_sums(pixel: Tensor, rmi: Tensor, perfect: Tensor, map_weights: Tensor, floor: float | None) -> Tensor:
    """`rmiseg.kernels.rmi.RMISums.sums`, of pixel sums (N,) and RMI (N, C)."""
    if floor is None:
        rmi = rmi - perfect
    elif floor != 0:
        rmi = rmi - floor
    return torch.stack([pixel, (rmi * map_weights).sum(dim=1).to(pixel.dtype)], dim=1)


def _places(width: Sequence[int], size: int) -> Iterator[tuple[slice, ...]]:
    """Slices of a row (or of a slice of a volume) at each column offset of `width` regions."""
    for offsets in itertools.product(range(size), repeat=len(width)):
        yield tuple(slice(offset, offset + side) for offset, side in zip(offsets, width))


def _column_offsets(probabilities: Tensor, labels: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Copies of the maps at each column offset, a few maps at a time: (maps, (m, 2K, h, *width) float64), K offsets.

    The same memory is used again and again.
    """
    sources = probabilities.flatten(0, 1), labels.flatten(0, 1)
    count, height = sources[0].shape[:2]
    width = [side - size + 1 for side in sources[0].shape[2:]]
    places = list(_places(width, size))
    group = min(count, max(1, piece(BLOCK, probabilities.device) // (2 * len(places) * height * math.prod(width))))
    buffer = probabilities.new_empty((group, 2 * len(places), height, *width), dtype=torch.float64)
    for start in range(0, count, max(1, group)):
        maps = slice(start, min(start + group, count))
        columns = buffer[: maps.stop - start]
        for kind, source in enumerate(sources):
            for j, place in enumerate(places):
                columns[:, kind * len(places) + j] = source[(maps, slice(None), *place)]
        yield maps, columns


def _row_offsets(columns: Tensor, size: int) -> list[Tensor]:
    """The values at each row offset: R views (m, 2K, positions) of (m, 2K, h, *width)."""
    height = columns.shape[2] - size + 1
    return [columns[:, :, i : i + height].flatten(2) for i in range(size)]


def _with_alpha(covariance: Tensor, alpha: float) -> Tensor:
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return covariance + alpha * identity
