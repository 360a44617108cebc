"""A whole loss of class ids on a GPU: kernels alone, one after another, and no operation of PyTorch between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rmiseg.kernels.operators import without_autocast
from rmiseg.kernels.terms import WholeLoss
from rmiseg.kernels.triton.arguments import Batch, Reading
from rmiseg.kernels.triton.labels import tally_labels
from rmiseg.kernels.triton.launch import NO_POOLING, Problem, on_its_device, slices_of
from rmiseg.kernels.triton.launching import launch
from rmiseg.kernels.triton.regions import FUSED, Regions
from rmiseg.kernels.triton.total_kernels import sample_totals_kernel, upstream_kernel, whole_loss_kernel
from rmiseg.kernels.triton.totals import LANES, ROW_LANES

SETTINGS: dict[str, Any] = {**FUSED, "num_warps": 4}


@on_its_device
def loss_forward(
    logits: Tensor, target: Tensor, loss: WholeLoss, with_gradient: bool
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """See `rmiseg.kernels.backends.Backend`."""
    # Numbers that are arguments of a kernel are float32. A covariance for the batch is a sum of several launches.
    if logits.dtype == torch.float64 or loss.floor is None or (loss.regions is not None and loss.regions.batch):
        return None, ()
    target = target.long().contiguous()
    valid, tallies = tally_labels(target, logits.shape[1], loss.ignored)
    problem = _problem(logits, target, valid, loss)
    if len(slices_of(problem)) > 1:
        return None, ()
    rows, probabilities, labels = problem.forward()
    maps = rmi = None
    if loss.regions is not None:
        with without_autocast(logits):  # of large regions
            regions = Regions.of(probabilities, labels, loss.regions, with_gradient)
            rmi = regions.rmi
            if with_gradient:
                maps = torch.empty_like(probabilities)
                regions.write_gradient(maps)
    samples, columns = rows.shape
    totals, slopes = rows.new_empty((samples, 5)), logits.new_empty(2, dtype=torch.float32)
    value = slopes.new_empty(())
    sources = rows, tallies, rmi, totals, columns, tallies.shape[1], logits.shape[1], float(loss.floor)
    launch(sample_totals_kernel, samples, *sources, LANES=ROW_LANES, **SETTINGS)
    launch(whole_loss_kernel, 1, totals, value, slopes, samples, *loss.shares, LANES=LANES, **SETTINGS)
    return value, (target, valid, maps, slopes)


@on_its_device
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
    samples, classes = logits.shape[:2]
    grad_pixel = slopes.new_empty(samples)
    grad_rmi = None if maps is None else slopes.new_empty((samples, classes), dtype=torch.float64)
    programs, settings = -(-samples * classes // LANES), {"LANES": LANES, **FUSED, "num_warps": 1}
    # Samples without a pixel that counts have no gradient, whatever that in their RMI is.
    launch(upstream_kernel, programs, grad_loss, slopes, grad_pixel, grad_rmi, samples, samples * classes, **settings)
    _problem(logits, target, valid, loss).backward(grad_pixel, gradient, maps, grad_rmi)
    return gradient


def _problem(logits: Tensor, target: Tensor, valid: Tensor, loss: WholeLoss) -> Problem:
    if loss.regions is not None:
        return Problem.of(logits, target, valid, None, loss.regions)
    batch = Batch.of(logits, target, valid, None)
    return Problem(batch, Reading.of(batch, loss.align_corners), NO_POOLING, loss.pixel_loss == "ce")
