"""The plain definition of every loss, in ordinary autograd PyTorch.

Nothing here is clever: these functions say what the losses are, and every fast implementation is tested against them.
Half-precision logits are computed in float32 and float64 logits in float64; region covariances always in float64.

Notation: logits (N, C, *size) floating, where size is (H, W) of images or (D, H, W) of volumes; target either class ids
(N, *size) int64, of which C stands for a pixel that counts but belongs to no class, or soft targets
(N, C, *size), probabilities of every class; valid (N, *size) bool, the pixels that count; class_weights (C,) or None,
all ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RMI_ALPHA = 5e-4
"""The a of Zhao et al. 2019, section 3.3: keeps covariances positive definite."""

RMI_FLOOR = 0.5 * math.log(RMI_ALPHA)
"""Bound of the RMI value of a class, -3.8005; exactly what a class absent from the labels contributes.

A class that is present and perfectly predicted is up to 1/2 ln 2 above it, see `perfect_rmi`.
"""

PROBABILITY_OFFSET = 1e-6

WITHOUT_FLOAT64 = ("mps",)
"""Devices whose tensors cannot be float64, as region covariances must: the loss is computed on the CPU."""


def upsample_logits(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Logits (N, C, *low) interpolated (bi- or trilinear) to `size`; logits of that size are returned as they are."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(logits, size=tuple(size), mode=mode, align_corners=align_corners)


def computed_dtype(logits: Tensor) -> torch.dtype:
    """The dtype of the computation: float64 for float64 logits, float32 for everything else."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def widened(logits: Tensor) -> Tensor:
    """Logits in the dtype of the computation."""
    return logits.to(computed_dtype(logits))


def valid_pixels(target: Tensor, num_classes: int, ignored: Sequence[int]) -> Tensor:
    """Pixels whose label is one of the classes and not ignored: bool (N, *size)."""
    valid = (target >= 0) & (target < num_classes)
    for value in ignored:
        if 0 <= value < num_classes:
            valid = valid & (target != value)
    return valid


def one_hot(target: Tensor, valid: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot labels (N, C, *size) in `dtype`, zero in every class where a pixel is not valid."""
    classes = torch.arange(num_classes, device=target.device).view(1, -1, *(1,) * (target.ndim - 1))
    return ((target.unsqueeze(1) == classes) & valid.unsqueeze(1)).to(dtype)


def soft_targets(target: Tensor, valid: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Soft targets (N, C, *size) in `dtype`, of either kind; zero in every class where a pixel is not valid."""
    if target.ndim == valid.ndim:
        return one_hot(target, valid, num_classes, dtype)
    # Where not valid there may be anything.
    return torch.where(valid.unsqueeze(1), target.to(dtype), 0)


def silenced(logits: Tensor, valid: Tensor) -> Tensor:
    """Logits (N, C, *size) with 0 for what is not finite at pixels that are not valid, where it does no harm then.

    A gradient that is not finite reaches these pixels still, see `kernels.means.spread_non_finite`.
    """
    return logits.where(valid.unsqueeze(1), logits.nan_to_num(0, 0, 0))


def per_class(class_weights: Tensor | None, like: Tensor) -> Tensor | float:
    """Class weights that can be multiplied with (N, C, *size)."""
    return 1.0 if class_weights is None else class_weights.to(like.dtype).view(1, -1, *(1,) * (like.ndim - 2))


def cross_entropy_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross entropy, each class's logarithm times its weight, summed over each sample's valid pixels: (N,).

    With label smoothing (Szegedy et al., CVPR 2016, arXiv:1512.00567, section 7) that share of a pixel is of all
    classes alike.
    """
    logits = silenced(logits, valid)
    if target.ndim == valid.ndim:
        weights = None if class_weights is None else class_weights.to(logits.dtype)
        labels = target.masked_fill(~valid, 0)
        pixel = F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=label_smoothing)
    else:
        classes = logits.shape[1]
        soft = soft_targets(target, valid, classes, logits.dtype) * (1 - label_smoothing) + label_smoothing / classes
        pixel = -(soft * per_class(class_weights, logits) * logits.log_softmax(dim=1)).sum(dim=1)
    return (pixel * valid).flatten(1).sum(dim=1)


def focal_sums(
    logits: Tensor, target: Tensor, valid: Tensor, gamma: float, class_weights: Tensor | None = None
) -> Tensor:
    """Focal loss of the softmax, times the weight of the class, summed over each sample's valid pixels: (N,).

    Args:
        logits: (N, C, *size).
        target: (N, *size) class ids.
        valid: (N, *size) bool.
        gamma: The exponent.
        class_weights: (C,) or None.
    """
    labels = target.masked_fill(~valid, 0)
    entropy = F.cross_entropy(silenced(logits, valid), labels, reduction="none")
    pixel = (-(-entropy).expm1()).clamp(min=torch.finfo(entropy.dtype).tiny) ** gamma * entropy
    if class_weights is not None:
        pixel = pixel * class_weights.to(pixel.dtype)[labels]
    return (pixel * valid).flatten(1).sum(dim=1)


def cross_entropy_counts(target: Tensor, valid: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Divisors of `cross_entropy_sums`: the valid pixels of each sample, times the weight of their class: (N,).

    int64 without class weights, else float64 (float32 on devices without it).
    """
    if class_weights is None:
        return valid.flatten(1).sum(dim=1)
    weights = class_weights.to(widest(class_weights.device))
    if target.ndim == valid.ndim:
        pixel = weights[target.clamp(0, len(weights) - 1)]
    else:
        pixel = (soft_targets(target, valid, len(weights), weights.dtype) * per_class(weights, target)).sum(dim=1)
    return (pixel * valid).flatten(1).sum(dim=1)


def widest(device: torch.device) -> torch.dtype:
    """float64, where there is such a thing."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def binary_cross_entropy_sums(
    logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """One-vs-rest sigmoid cross entropy, times the weight of the class, summed over valid pixels and classes: (N,)."""
    logits = silenced(logits, valid)
    labels = soft_targets(target, valid, logits.shape[1], logits.dtype)
    weight = valid.unsqueeze(1) * per_class(class_weights, logits)
    pixel = F.binary_cross_entropy_with_logits(logits, labels, weight=weight.to(logits.dtype), reduction="none")
    return pixel.flatten(1).sum(dim=1)


PIXEL_SUMS = {"ce": cross_entropy_sums, "bce": binary_cross_entropy_sums}


def pooled_size(size: Sequence[int], pool: str, pool_size: int) -> tuple[int, ...]:
    """Size of the maps that `pool_maps` makes of maps of `size`."""
    if pool == "interp":
        return tuple(side // pool_size for side in size)
    return tuple((side + 2 * (pool_size // 2) - pool_size) // pool_size + 1 for side in size)


POOLING: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("avg", 2): F.avg_pool2d,
    ("avg", 3): F.avg_pool3d,
    ("max", 2): F.max_pool2d,
    ("max", 3): F.max_pool3d,
}


def pool_maps(labels: Tensor, probabilities: Tensor, pool: str, pool_size: int) -> tuple[Tensor, Tensor]:
    """Downsample labels and probabilities (N, C, *size) alike by `pool_size` (Zhao et al. 2019, section 3.4)."""
    if pool_size == 1:
        return labels, probabilities
    if pool == "interp":
        size = pooled_size(labels.shape[2:], pool, pool_size)
        return (
            F.interpolate(labels, size=size, mode="nearest"),
            upsample_logits(probabilities, size, align_corners=True),
        )
    pooling, padding = POOLING[pool, labels.ndim - 2], pool_size // 2
    return pooling(labels, pool_size, pool_size, padding), pooling(probabilities, pool_size, pool_size, padding)


def region_vectors(maps: Tensor, region_size: int) -> Tensor:
    """Every full R x R (x R) window of (N, C, *size) maps as a column: (N, C, d, positions)."""
    dims = maps.ndim - 2
    for dim in range(2, maps.ndim):
        maps = maps.unfold(dim, region_size, 1)
    return maps.flatten(2 + dims).flatten(2, 1 + dims).transpose(2, 3)


def rmi_per_class(
    labels: Tensor,
    probabilities: Tensor,
    region_size: int,
    alpha: float = RMI_ALPHA,
    counted: Tensor | None = None,
) -> Tensor:
    """1/2 logdet(M + aI) / d of pooled maps (N, C, *size): (N, C) float64, never below 1/2 ln a.

    M = Syy - Syp (Spp + aI)^-1 Spy is the posterior covariance of the label regions given the predicted ones (Zhao et
    al. 2019, equation 14). M + aI is the Schur complement of Spp + aI in S + aI, where S is the joint covariance of
    both, so its Cholesky factor is the lower right block of the factor of S + aI. This needs no inverse and no
    difference of large matrices. Where the maps are not finite the value is NaN; no exception is raised.

    Without `counted` every map has a covariance of its own. With it, (N, C) or (N, 1) bool, the regions of a class in
    all maps that count make up one, whose RMI is that of each sample.
    """
    d = region_size ** (labels.ndim - 2)
    regions = torch.cat([region_vectors(m.double(), region_size) for m in (probabilities, labels)], dim=2)
    if counted is None:
        regions = regions - regions.mean(dim=3, keepdim=True)
        covariance = regions @ regions.transpose(2, 3)
    else:
        weight = counted.double()[..., None, None]
        number = (weight.sum(dim=0) * regions.shape[3]).clamp(min=1)
        regions = (regions - (regions * weight).sum(dim=(0, 3)).unsqueeze(2) / number) * weight
        covariance = (regions @ regions.transpose(2, 3)).sum(dim=0, keepdim=True)
    identity = torch.eye(2 * d, dtype=torch.float64, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(covariance + alpha * identity)
    pivots = factor.diagonal(dim1=2, dim2=3)[..., d:]
    value: Tensor = pivots.log().sum(dim=2) / d
    return value.masked_fill(info != 0, math.nan).expand(labels.shape[:2])


def rmi_maps(
    logits: Tensor, target: Tensor, valid: Tensor, *, pool: str, pool_size: int, clamp: bool
) -> tuple[Tensor, Tensor]:
    """Pooled label maps and pooled sigmoid probabilities, both (N, C, *pooled size).

    Probabilities are kept from zero by an offset of 1e-6, or by clamping to [1e-6, 1] if `clamp`; the original does the
    former beside binary cross entropy and the latter beside softmax cross entropy.
    """
    probabilities = silenced(logits, valid).sigmoid() * valid.unsqueeze(1)
    if clamp:
        probabilities = probabilities.clamp(PROBABILITY_OFFSET, 1.0)
    else:
        probabilities = probabilities + PROBABILITY_OFFSET
    labels = soft_targets(target, valid, logits.shape[1], logits.dtype)
    return pool_maps(labels, probabilities, pool, pool_size)


@dataclass(frozen=True)
class RMIOptions:
    """The settings of `RMILoss` that `rmi_sums` depends on."""

    region_size: int
    pool: str
    pool_size: int
    pixel_loss: str
    align_corners: bool
    alpha: float = RMI_ALPHA
    batch: int = 0
    """Number of classes, of each of which all samples have one covariance together; 0 if each sample has its own."""


def by_class(maps: Tensor, num_classes: int) -> Tensor:
    """Maps (N, C, ...), also those of multilabel masks, which are (N * C, 1, ...)."""
    return maps.reshape(-1, num_classes, *maps.shape[2:])


def for_each_sample(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Values of the classes (C,) once for every sample: `shape` is (N, C), or (N * C, 1) of multilabel masks."""
    return values.repeat(math.prod(shape) // len(values)).view(shape)


def counted_maps(valid: Tensor, maps: Tensor, options: RMIOptions) -> Tensor:
    """Maps with a valid pixel, of `by_class`: bool (N, 1), or (N, C) of multilabel masks."""
    return valid.flatten(1).any(dim=1).view(-1, options.batch // maps.shape[1])


def rmi_of_maps(labels: Tensor, probabilities: Tensor, valid: Tensor, options: RMIOptions) -> Tensor:
    """`rmi_per_class` of pooled maps (N, C, *size) as the options say: (N, C) float64. valid (N, ...) is not pooled."""
    size, alpha = options.region_size, options.alpha
    if not options.batch:
        return rmi_per_class(labels, probabilities, size, alpha)
    maps = by_class(labels, options.batch), by_class(probabilities, options.batch)
    rmi = rmi_per_class(*maps, size, alpha, counted_maps(valid, labels, options))
    return rmi.reshape(labels.shape[:2])


def present_classes(labels: Tensor, options: RMIOptions) -> Tensor:
    """Maps (N, C, *size) of labels that are not zero, or whose class is there in any sample: (N, C) bool."""
    present = labels.flatten(2).amax(dim=2) > 0
    if not options.batch:
        return present
    return for_each_sample(by_class(present, options.batch).any(dim=0), present.shape)


def rmi_sums(
    logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, options: RMIOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel loss and RMI of a batch.

    Args:
        logits: (N, C, *low), any floating dtype, at label resolution or below.
        target: (N, *size) int64, or soft (N, C, *size) floating; where not valid, anything.
        valid: (N, *size) bool.
        class_weights: (C,), weights of the classes in the pixel loss; None for ones.
        options: See `RMILoss`.

    Returns:
        The sums of the pixel loss over each sample's valid pixels (N,), float32 or float64; RMI of every map (N, C)
        float64, not weighted; and which classes are present in each sample (N, C) bool. Gradients flow through the
        first two.
    """
    logits = upsample_logits(widened(logits), valid.shape[1:], options.align_corners)
    pixel_sums = PIXEL_SUMS[options.pixel_loss](logits, target, valid, class_weights)
    labels, probabilities = rmi_maps(
        logits, target, valid, pool=options.pool, pool_size=options.pool_size, clamp=options.pixel_loss == "ce"
    )
    rmi = rmi_of_maps(labels, probabilities, valid, options)
    return pixel_sums, rmi, present_classes(labels, options)


def perfect_rmi(target: Tensor, valid: Tensor, num_classes: int, options: RMIOptions, dtype: torch.dtype) -> Tensor:
    """RMI (N, C) float64 of a perfect prediction, whose probabilities are the target; see `rmi_sums`."""
    labels = soft_targets(target, valid, num_classes, dtype)
    return rmi_of_maps(*pool_maps(labels, labels, options.pool, options.pool_size), valid, options)


def resize_target(target: Tensor, valid: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels and valid pixels (N, H, W) resized to `size` by nearest neighbor."""
    # Class ids survive the detour through float exactly: they are small integers.
    labels = target.masked_fill(~valid, -1).unsqueeze(1).float()
    resized = F.interpolate(labels, size=tuple(size), mode="nearest").squeeze(1).to(target.dtype)
    return resized, resized >= 0


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
    """Triples (pixel, neighbor, class) across a label edge: bool (N, 8, C, h, w)."""
    labels = one_hot(target, valid, num_classes, torch.float32)
    return shifted_neighbors(labels) != labels.unsqueeze(1)


def affinity_sums(logits: Tensor, edge: Tensor, valid: Tensor) -> Tensor:
    """Penalties summed over the triples of `affinity_edges` across a label edge, and over the others, of each
    sample: (N, 2).

    The divergence between the predictions for a pixel and for its neighbor must be large across a label edge and small
    elsewhere (Ke et al. 2018, equations 3 and 4).
    """
    own = (silenced(logits, valid).softmax(dim=1) * valid.unsqueeze(1)).clamp(AFFINITY_MIN, 1.0)
    neighbor = shifted_neighbors(own).clamp(AFFINITY_MIN, 1.0)
    own = own.unsqueeze(1)
    own_rest, neighbor_rest = 1 - own + AFFINITY_MIN, 1 - neighbor + AFFINITY_MIN
    divergence = neighbor * (neighbor.log() - own.log()) + neighbor_rest * (neighbor_rest.log() - own_rest.log())
    across = (AFFINITY_MARGIN - divergence).clamp(min=0) * edge
    return torch.stack([across.flatten(1).sum(dim=1), (divergence * ~edge).flatten(1).sum(dim=1)], dim=1)
