"""The RMI loss of volumes on the CPU: slices are images, which the compiled kernels serve.

Trilinear interpolation is linear interpolation between slices, followed by bilinear interpolation inside of each; a
window of pooling is one of several slices. What they leave is small; its regions are those of volumes. Pooling by
"interp" is left to `rmiseg.kernels.soft`.

The same values and gradients as `rmiseg.functional`, whose notation is used.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.functional import RMIOptions, computed_dtype, pooled_size
from rmiseg.kernels import native, soft
from rmiseg.kernels.interpolation import interpolation_matrix


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
    if options.pool == "interp":
        return soft.rmi_forward(logits, target, valid, class_weights, options, with_gradient, with_perfect)
    dtype, pooled = computed_dtype(logits), pooled_size(valid.shape[1:], options.pool, options.pool_size)
    pixel_sums = logits.new_empty(len(logits), dtype=dtype)
    probabilities, labels = (logits.new_empty((*logits.shape[:2], *pooled), dtype=dtype) for _ in range(2))
    for n in range(len(logits)):
        sums, *maps = native.pooled_maps(
            *_slices(logits, target, valid, options.align_corners, n), class_weights, options
        )
        pixel_sums[n] = sums.double().sum()
        probabilities[n], labels[n] = (_pool(each, options)[0] for each in maps)
    rmi, perfect, present, _ = native.regions(probabilities, labels, valid, options, with_gradient, with_perfect)
    gradient_maps = probabilities if with_gradient else probabilities.new_empty((*labels.shape[:2], 0, 0, 0))
    return pixel_sums, rmi, present, perfect, gradient_maps


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
    if options.pool == "interp":
        return soft.rmi_backward(grad_pixel, grad_rmi, logits, target, valid, class_weights, gradient_maps, options)
    gradient = torch.empty_like(logits)
    options = replace(options, batch=0)  # of slices, which are no samples
    for n in range(len(logits)):
        slices = _slices(logits, target, valid, options.align_corners, n)
        depth = len(slices[0])
        if options.pool == "max" and options.pool_size > 1:
            probabilities = native.pooled_maps(*slices, class_weights, options)[1]
            maps = _unpool_maxima(gradient_maps[n], probabilities, options)
        else:
            maps = _unpool_averages(gradient_maps[n], depth, options.pool_size)
        grad_sums = torch.stack([grad_pixel[n], torch.ones_like(grad_pixel[n])]).expand(depth, 2)
        found = native.rmi_backward(grad_sums, *slices, class_weights, grad_rmi[n].expand(depth, -1), maps, options)
        gradient[n] = _narrowed(found, logits, options.align_corners)
    return gradient


def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    sums = logits.new_empty(len(logits), dtype=computed_dtype(logits))
    for n in range(len(logits)):
        slices = _slices(logits, target, valid, align_corners, n)
        sums[n] = native.pixel_forward(*slices, class_weights, pixel_loss, align_corners).double().sum()
    return sums


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
    for n in range(len(logits)):
        slices = _slices(logits, target, valid, align_corners, n)
        grad = grad_pixel[n].expand(len(slices[0]))
        found = native.pixel_backward(grad, *slices, class_weights, pixel_loss, align_corners)
        gradient[n] = _narrowed(found, logits, align_corners)
    return gradient


def _slices(
    logits: Tensor, target: Tensor, valid: Tensor, align_corners: bool, n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A sample as a batch of slices: logits (D, C, h, w), target (D, H, W) or (D, C, H, W), and valid (D, H, W)."""
    volume, depth = logits[n], valid.shape[1]
    if volume.shape[1] != depth:
        matrix = interpolation_matrix(volume.shape[1], depth, align_corners).to(computed_dtype(logits))
        volume = torch.einsum("Dd,cdhw->cDhw", matrix, volume.to(matrix.dtype))
    own = target[n].transpose(0, 1) if target.ndim == logits.ndim else target[n]
    return volume.transpose(0, 1), own, valid[n]


def _narrowed(gradient: Tensor, logits: Tensor, align_corners: bool) -> Tensor:
    """The gradient in the logits of a sample, (C, d, h, w), from that in its slices (D, C, h, w)."""
    volume, low = gradient.transpose(0, 1), logits.shape[2]
    if volume.shape[1] == low:
        return volume
    matrix = interpolation_matrix(low, volume.shape[1], align_corners).to(volume.dtype)
    return torch.einsum("Dd,cDhw->cdhw", matrix, volume)


def _pool(maps: Tensor, options: RMIOptions) -> tuple[Tensor, Tensor | None]:
    """Maps of slices (D, C, h, w) pooled over the slices, (C, depth, h, w); and where the maxima are, if they are."""
    volume, size = maps.transpose(0, 1), options.pool_size
    window, padding = (size, 1, 1), (size // 2, 0, 0)
    if size == 1:
        return volume, None
    if options.pool == "avg":
        return F.avg_pool3d(volume, window, window, padding), None
    pooled, places = F.max_pool3d(volume, window, window, padding, return_indices=True)
    return pooled, places


def _unpool_averages(gradient: Tensor, depth: int, size: int) -> Tensor:
    """The gradient in the maps of slices (D, C, h, w), from that in pooled ones (C, depth, h, w)."""
    padding = size // 2
    spread = (gradient / size).repeat_interleave(size, dim=1)[:, padding : padding + depth]
    result = gradient.new_zeros((depth, gradient.shape[0], *gradient.shape[2:]))
    result[: spread.shape[1]] = spread.transpose(0, 1)  # slices after the last window are in none
    return result


def _unpool_maxima(gradient: Tensor, probabilities: Tensor, options: RMIOptions) -> Tensor:
    """The same, where each window has the largest of the probabilities (D, C, h, w); the first, of several."""
    places = _pool(probabilities, options)[1]
    assert places is not None
    spread = torch.zeros_like(probabilities.transpose(0, 1), memory_format=torch.contiguous_format).flatten(1)
    spread.scatter_(1, places.flatten(1), gradient.flatten(1))
    return spread.view(gradient.shape[0], len(probabilities), *gradient.shape[2:]).transpose(0, 1).contiguous()
