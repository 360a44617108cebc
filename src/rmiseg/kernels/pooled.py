"""RMI of pooled maps in ordinary operations, for those `backends` that have no kernels of their own for it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rmiseg.functional import RMIOptions
from rmiseg.kernels.perfect import perfect_rmi_of_maps
from rmiseg.kernels.regions import region_covariance, region_factor, region_gradient, rmi_of_factor


def rmi_of_pooled(
    probabilities: Tensor,
    labels: Tensor,
    certain: Callable[[], Tensor],
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rmi, present, perfect and gradient_maps, as the `rmi_forward` of ordinary operations returns them.

    Args:
        probabilities, labels: Pooled, (N, C, *size), float32 or float64.
        certain: Returns labels pooled as probabilities are, (N, C, *size); called for pool "interp" alone, where that
            makes a difference.
        options: See `functional.rmi_sums`.
        with_gradient, with_perfect: See `rmiseg.kernels.backends`.
    """
    covariance = region_covariance(probabilities, labels, options.region_size)
    factor = region_factor(covariance, options.alpha)
    perfect = covariance.new_empty((len(labels), 0))
    if with_perfect:
        perfect = perfect_rmi_of_maps(labels, certain() if options.pool == "interp" else labels, covariance, options)
    if with_gradient:
        gradient_maps = region_gradient(probabilities, labels, factor, options.region_size)
    else:
        gradient_maps = probabilities.new_empty((*labels.shape[:2], *(0,) * (labels.ndim - 2)))
    return rmi_of_factor(factor), labels.flatten(2).amax(dim=2) > 0, perfect, gradient_maps
