"""RMI of pooled maps in ordinary operations, for those `backends` that have no kernels of their own for it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rmiseg.functional import RMIOptions, by_class, counted_maps, present_classes
from rmiseg.kernels.perfect import perfect_rmi_of_maps
from rmiseg.kernels.regions import region_covariance, region_factor, region_gradient, rmi_of_factor


def rmi_of_pooled(
    probabilities: Tensor,
    labels: Tensor,
    valid: Tensor,
    certain: Callable[[], Tensor],
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rmi, present, perfect and gradient_maps, as the `rmi_forward` of ordinary operations returns them.

    Args:
        probabilities, labels: Pooled, (N, C, *size), float32 or float64.
        valid: (N, ...) bool, not pooled.
        certain: Returns labels pooled as probabilities are, (N, C, *size); called for pool "interp" alone, where that
            makes a difference.
        options: See `functional.rmi_sums`.
        with_gradient, with_perfect: See `rmiseg.kernels.backends`.
    """
    shape, present = labels.shape, present_classes(labels, options)
    counted = counted_maps(valid, labels, options) if options.batch else None
    exact = certain() if with_perfect and options.pool == "interp" else labels
    if options.batch:
        probabilities, labels, exact = (by_class(maps, options.batch) for maps in (probabilities, labels, exact))
    covariance = region_covariance(probabilities, labels, options.region_size, counted)
    factor = region_factor(covariance, options.alpha)
    found = [rmi_of_factor(factor)]
    if with_perfect:
        found.append(perfect_rmi_of_maps(labels, exact, covariance, options, counted))
    rmi, *others = (values.expand(labels.shape[:2]).contiguous().view(shape[:2]) for values in found)
    if with_gradient:
        gradient_maps = region_gradient(probabilities, labels, factor, options.region_size, counted).view(shape)
    else:
        gradient_maps = probabilities.new_empty((*shape[:2], *(0,) * (labels.ndim - 2)))
    return rmi, present, others[0] if others else rmi.new_empty((len(rmi), 0)), gradient_maps
