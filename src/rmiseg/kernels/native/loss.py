"""A whole loss of class ids on the CPU in one call of the compiled library, and another for its gradient."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from rmiseg.functional import computed_dtype, pooled_size
from rmiseg.kernels.native import ELEMENTS, NO_STRIDES, PIXEL_LOSSES, POOLS, WHOLE, memory
from rmiseg.kernels.native.library import call
from rmiseg.kernels.terms import WholeLoss


def loss_forward(
    logits: Tensor, target: Tensor, loss: WholeLoss, with_gradient: bool
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """See `rmiseg.kernels.backends.Backend`."""
    if loss.regions is not None and loss.regions.pool == "interp":  # whose labels are pooled elsewhere
        return None, ()
    target = target.contiguous() if target.dtype in WHOLE else target.long().contiguous()
    size, dtype = target.shape, computed_dtype(logits)
    ids = None if target.dtype == torch.int64 else memory(size, torch.int64)
    maps, pooled = None, tuple[int, ...]((0, 0))
    if loss.regions is not None:
        pooled = pooled_size(size[1:], loss.regions.pool, loss.regions.pool_size)
        maps = memory((*logits.shape[:2], *pooled), dtype) if with_gradient else None
    valid, slopes, value = memory(size, torch.bool), memory(2, dtype), memory((), dtype)
    found = _call("rmiseg_loss_forward", loss, pooled, logits, target, ids, valid, maps, slopes, value, None)
    return value if found else None, (target if ids is None else ids, valid, maps, slopes)


def loss_backward(
    grad_loss: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    maps: Tensor | None,
    slopes: Tensor,
    loss: WholeLoss,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    gradient = torch.empty_like(logits)
    pooled = (0, 0) if maps is None else maps.shape[2:]
    _call("rmiseg_loss_backward", loss, pooled, logits, target, None, valid, maps, slopes, grad_loss, gradient)
    return gradient


def _call(
    function: str,
    loss: WholeLoss,
    pooled: Sequence[int],
    logits: Tensor,
    target: Tensor,
    ids: Tensor | None,
    valid: Tensor,
    maps: Tensor | None,
    slopes: Tensor,
    value: Tensor,
    gradient: Tensor | None,
) -> bool:
    """Call a function that takes a `Loss`, with its fields in the order of native/interface.h."""
    (n, classes, h, w), (_, height, width) = logits.shape, target.shape
    pool, pool_size, region_size, alpha = 0, 0, 1, 1.0
    if (regions := loss.regions) is not None:
        pool, pool_size = POOLS[regions.pool], regions.pool_size
        region_size, alpha = regions.region_size, regions.alpha
    ignored, shares = array("q", loss.ignored), loss.shares
    fields = (
        *(torch.get_num_threads(), n, classes, h, w, height, width),
        *(ELEMENTS[logits.dtype], WHOLE[target.dtype], loss.align_corners, PIXEL_LOSSES[loss.pixel_loss]),
        *(pool, pool_size, *pooled),
        *(region_size, regions is not None and regions.batch > 0, len(ignored), loss.floor is None, shares.extra),
        *logits.stride(),
        *(NO_STRIDES if gradient is None else gradient.stride()),
        *(alpha, loss.floor or 0.0, shares.pixel, shares.regions or 0.0),
        *(ignored.buffer_info()[0], logits.data_ptr(), target.data_ptr()),
        0 if ids is None else ids.data_ptr(),
        valid.data_ptr(),
        0 if maps is None else maps.data_ptr(),
        *(slopes.data_ptr(), value.data_ptr()),
        0 if gradient is None else gradient.data_ptr(),
    )
    return bool(call(function, fields))
