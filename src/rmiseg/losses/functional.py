"""The plain definition of every loss, in ordinary autograd PyTorch.

Nothing here is clever: these functions say what the losses are, and every fast implementation is tested against them.
Half-precision logits are computed in float32 and float64 logits in float64; region covariances always in float64.

Notation: logits (N, C, H, W) floating; target (N, H, W) int64 class ids; valid (N, H, W) bool, the pixels that count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RMI_ALPHA = 5e-4
"""The a of Zhao et al. 2019, section 3.3: keeps covariances positive definite."""

RMI_FLOOR = 0.5 * math.log(RMI_ALPHA)
"""Least RMI value of a class, -3.8005; exactly what a class absent from labels and predictions contributes."""

PROBABILITY_OFFSET = 1e-6


def upsample_logits(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinearly interpolate logits (N, C, h, w) to `size` = (H, W); logits of that size are returned as they are."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)


def computed_dtype(logits: Tensor) -> torch.dtype:
    """The dtype of the computation: float64 for float64 logits, float32 for everything else."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def widened(logits: Tensor) -> Tensor:
    """Logits in the dtype of the computation."""
    return logits.to(computed_dtype(logits))


def valid_pixels(target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Pixels whose label is one of the classes and not `ignore_index`: bool (N, H, W)."""
    valid = (target >= 0) & (target < num_classes)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        valid = valid & (target != ignore_index)
    return valid


def one_hot(target: Tensor, valid: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot labels (N, C, H, W) in `dtype`, zero in every class where a pixel is not valid."""
    classes = torch.arange(num_classes, device=target.device).view(1, -1, 1, 1)
    return ((target.unsqueeze(1) == classes) & valid.unsqueeze(1)).to(dtype)


def cross_entropy_sum(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Softmax cross entropy summed over the valid pixels: scalar."""
    return F.cross_entropy(logits, target.masked_fill(~valid, -100), ignore_index=-100, reduction="sum")


def binary_cross_entropy_sum(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """One-vs-rest sigmoid cross entropy summed over the valid pixels and all classes: scalar."""
    labels = one_hot(target, valid, logits.shape[1], logits.dtype)
    return F.binary_cross_entropy_with_logits(
        logits, labels, weight=valid.unsqueeze(1).to(logits.dtype), reduction="sum"
    )


PIXEL_SUMS = {"ce": cross_entropy_sum, "bce": binary_cross_entropy_sum}


def pooled_size(size: tuple[int, int], pool: str, pool_size: int) -> tuple[int, int]:
    """Size (h, w) of the maps that `pool_maps` makes of maps of `size` = (H, W)."""
    if pool == "interp":
        return size[0] // pool_size, size[1] // pool_size
    height, width = ((side + 2 * (pool_size // 2) - pool_size) // pool_size + 1 for side in size)
    return height, width


def pool_maps(labels: Tensor, probabilities: Tensor, pool: str, pool_size: int) -> tuple[Tensor, Tensor]:
    """Downsample labels and probabilities (N, C, H, W) alike by `pool_size` (Zhao et al. 2019, section 3.4)."""
    if pool_size == 1:
        return labels, probabilities
    if pool == "interp":
        size = pooled_size((labels.shape[-2], labels.shape[-1]), pool, pool_size)
        return (
            F.interpolate(labels, size=size, mode="nearest"),
            F.interpolate(probabilities, size=size, mode="bilinear", align_corners=True),
        )
    pooling = F.avg_pool2d if pool == "avg" else F.max_pool2d
    padding = pool_size // 2
    return pooling(labels, pool_size, pool_size, padding), pooling(probabilities, pool_size, pool_size, padding)


def region_vectors(maps: Tensor, region_size: int) -> Tensor:
    """Every full R x R window of (N, C, h, w) maps as a column: (N, C, R*R, (h-R+1)*(w-R+1))."""
    windows: Tensor = maps.unfold(2, region_size, 1).unfold(3, region_size, 1)
    return windows.flatten(4).flatten(2, 3).transpose(2, 3)


def rmi_per_class(labels: Tensor, probabilities: Tensor, region_size: int) -> Tensor:
    """1/2 logdet(M + aI) / d of pooled maps (N, C, h, w): (N, C) float64, never below `RMI_FLOOR`.

    M = Syy - Syp (Spp + aI)^-1 Spy is the posterior covariance of the label regions given the predicted ones (Zhao et
    al. 2019, equation 14). M + aI is the Schur complement of Spp + aI in S + aI, where S is the joint covariance of
    both, so its Cholesky factor is the lower right block of the factor of S + aI. This needs no inverse and no
    difference of large matrices. Where the maps are not finite the value is NaN; no exception is raised.
    """
    d = region_size**2
    regions = torch.cat([region_vectors(m.double(), region_size) for m in (probabilities, labels)], dim=2)
    regions = regions - regions.mean(dim=3, keepdim=True)
    covariance = regions @ regions.transpose(2, 3)
    identity = torch.eye(2 * d, dtype=torch.float64, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(covariance + RMI_ALPHA * identity)
    pivots = factor.diagonal(dim1=2, dim2=3)[..., d:]
    value: Tensor = pivots.log().sum(dim=2) / d
    return value.masked_fill(info != 0, math.nan)


def rmi_maps(
    logits: Tensor, target: Tensor, valid: Tensor, *, pool: str, pool_size: int, clamp: bool
) -> tuple[Tensor, Tensor]:
    """Pooled one-hot labels and pooled sigmoid probabilities, both (N, C, h, w).

    Probabilities are kept from zero by an offset of 1e-6, or by clamping to [1e-6, 1] if `clamp`; the original does the
    former beside binary cross entropy and the latter beside softmax cross entropy.
    """
    probabilities = logits.sigmoid() * valid.unsqueeze(1)
    if clamp:
        probabilities = probabilities.clamp(PROBABILITY_OFFSET, 1.0)
    else:
        probabilities = probabilities + PROBABILITY_OFFSET
    return pool_maps(one_hot(target, valid, logits.shape[1], logits.dtype), probabilities, pool, pool_size)


@dataclass(frozen=True)
class RMIOptions:
    """The settings of `RMILoss` that `rmi_sums` depends on."""

    region_size: int
    pool: str
    pool_size: int
    pixel_loss: str
    align_corners: bool


def rmi_sums(logits: Tensor, target: Tensor, valid: Tensor, options: RMIOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel loss and RMI of a batch.

    Args:
        logits: (N, C, h, w), any floating dtype, at label resolution or below.
        target: (N, H, W) int64; where not valid, anything.
        valid: (N, H, W) bool.
        options: See `RMILoss`.

    Returns:
        The sum of the pixel loss over valid pixels (scalar, float32 or float64), RMI of every map (N, C) float64, and
        which classes are present in each sample (N, C) bool. Gradients flow through the first two.
    """
    logits = upsample_logits(widened(logits), (target.shape[-2], target.shape[-1]), options.align_corners)
    pixel_sum = PIXEL_SUMS[options.pixel_loss](logits, target, valid)
    labels, probabilities = rmi_maps(
        logits, target, valid, pool=options.pool, pool_size=options.pool_size, clamp=options.pixel_loss == "ce"
    )
    return pixel_sum, rmi_per_class(labels, probabilities, options.region_size), labels.amax(dim=(2, 3)) > 0


def resize_pair(
    logits: Tensor, target: Tensor, size: tuple[int, int], align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits (N, C, H, W), bilinearly, and labels (N, H, W), by nearest neighbor, resized to `size`."""
    if tuple(target.shape[-2:]) == size:
        return logits, target
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners), resize_labels(target, size)


def resize_labels(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) resized to `size` by nearest neighbor."""
    # Class ids survive the detour through float exactly: they are small integers.
    return F.interpolate(target.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).to(target.dtype)


AFFINITY_MIN = 1e-4
AFFINITY_MARGIN = 3.0


def shifted_neighbors(maps: Tensor) -> Tensor:
    """The 8 neighbors at distance 1 of every pixel of (N, C, h, w) maps, zero outside: (N, 8, C, h, w)."""
    h, w = maps.shape[-2:]
    padded = F.pad(maps, (1, 1, 1, 1))
    return torch.stack(
        [padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3) if (i, j) != (1, 1)], dim=1
    )


def affinity_edges(target: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Which triples (pixel, neighbor, class) lie across a label edge: bool (N, 8, C, h, w)."""
    labels = one_hot(target, valid, num_classes, torch.float32)
    return shifted_neighbors(labels) != labels.unsqueeze(1)


def affinity_sums(logits: Tensor, edge: Tensor, valid: Tensor) -> Tensor:
    """Penalties summed over the triples of `affinity_edges` across a label edge, and over the others: (2,).

    The divergence between the predictions for a pixel and for its neighbor must be large across a label edge and small
    elsewhere (Ke et al. 2018, equations 3 and 4).
    """
    own = (logits.softmax(dim=1) * valid.unsqueeze(1)).clamp(AFFINITY_MIN, 1.0)
    neighbor = shifted_neighbors(own).clamp(AFFINITY_MIN, 1.0)
    own = own.unsqueeze(1)
    own_rest, neighbor_rest = 1 - own + AFFINITY_MIN, 1 - neighbor + AFFINITY_MIN
    divergence = neighbor * (neighbor.log() - own.log()) + neighbor_rest * (neighbor_rest.log() - own_rest.log())
    across = ((AFFINITY_MARGIN - divergence).clamp(min=0) * edge).sum()
    elsewhere = (divergence * ~edge).sum()
    return torch.stack([across, elsewhere])
