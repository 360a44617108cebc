"""The RMI loss in strips of rows, in ordinary PyTorch operations on any device.

The logits are read twice, once forward and once backward, in strips of rows that stay in cache. Beside them and their
gradient, only pooled maps are needed: 2 / pool_size^2 of the logits' full size, half of it until the backward pass.
Logits below label resolution are interpolated strip by strip, so that full-size logits exist nowhere.

The same values and gradients as `rmiseg.functional`, whose notation is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.functional import PROBABILITY_OFFSET, RMIOptions, computed_dtype, pooled_size
from rmiseg.kernels.interpolation import Resampler, nearest_labels
from rmiseg.kernels.perfect import interpolated_classes
from rmiseg.kernels.pieces import piece
from rmiseg.kernels.pooled import rmi_of_pooled

STRIP = 1 << 19
"""Logits of a strip: two megabytes in float32. Smaller ones cost more in calls than they save in cache."""

PRODUCT = 64
"""Factors of at least 1/2 whose product is far from the smallest float32."""


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
    strips = _Strips(logits, target, valid, class_weights, options)
    probabilities = logits.new_zeros((*logits.shape[:2], *strips.pooled), dtype=strips.dtype)
    pixel_sums = strips.forward(probabilities)
    if options.pixel_loss == "bce":
        probabilities += strips.pooled_offset()
    labels = strips.pooled_labels()
    certain = partial(interpolated_classes, target, valid, labels)
    return pixel_sums, *rmi_of_pooled(probabilities, labels, valid, certain, options, with_gradient, with_perfect)


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
    strips = _Strips(logits, target, valid, class_weights, options)
    return _backward(strips, grad_pixel, gradient_maps * grad_rmi.to(strips.dtype)[..., None, None])


def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    return _Strips(logits, target, valid, class_weights, _pixels_alone(pixel_loss, align_corners)).forward(None)


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
    strips = _Strips(logits, target, valid, class_weights, _pixels_alone(pixel_loss, align_corners))
    return _backward(strips, grad_pixel, None)


def _pixels_alone(pixel_loss: str, align_corners: bool) -> RMIOptions:
    return RMIOptions(region_size=0, pool="avg", pool_size=1, pixel_loss=pixel_loss, align_corners=align_corners)


def _backward(strips: _Strips, grad_pixel: Tensor, grad_pooled: Tensor | None) -> Tensor:
    if strips.resampler:  # strips add to the same rows, which must not be rounded in between
        gradient = torch.zeros_like(strips.logits, dtype=strips.dtype)
    else:
        gradient = torch.empty_like(strips.logits)
    for strip in strips:
        strips.add_backward(strip, grad_pixel, grad_pooled, gradient)
    return gradient.to(strips.logits.dtype)


@dataclass(frozen=True)
class _Strip:
    """Rows of one sample, a whole number of pooling windows high.

    Attributes:
        n: The sample.
        cells: Rows of the pooled map.
        rows: Rows of the image. The first and last windows may reach beyond it.
        inside: The same rows, counted from the top of the strip's first window.
    """

    n: int
    cells: slice
    rows: slice
    inside: slice


class _Strips:
    """Cuts a batch into strips, and computes on one at a time in memory that is used again and again.

    Pooling windows of s x s cover the whole image on a grid that begins s // 2 above and left of it; a last row or
    column of windows that the image cuts off does not count in the pooled maps (floor mode). "interp" has no windows,
    and s is 1 here.
    """

    def __init__(
        self, logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, options: RMIOptions
    ) -> None:
        self.logits, self.target, self.valid, self.options = logits, target, valid, options
        self.dtype = computed_dtype(logits)
        self.classes = logits.shape[1]
        self.height, self.width = target.shape[-2:]
        self.size = 1 if options.pool == "interp" else options.pool_size
        self.padding = self.size // 2
        self.pooled = (
            (self.height, self.width)
            if options.pool_size == 1
            else pooled_size((self.height, self.width), options.pool, options.pool_size)
        )
        # Windows that begin inside the image, among them the cut ones.
        self.grid = tuple(-(-(side + self.padding) // self.size) for side in (self.height, self.width))
        self.all_valid = valid.flatten(1).all(dim=1).tolist()
        small = tuple(logits.shape[-2:]) != (self.height, self.width)
        self.resampler = (
            Resampler(logits.shape[-2:], (self.height, self.width), options.align_corners) if small else None
        )
        self.interp = (
            Resampler((self.height, self.width), self.pooled, align_corners=True) if options.pool == "interp" else None
        )
        self.cells_per_strip = max(1, piece(STRIP, logits.device) // (self.classes * self.size * self.width))
        rows = self.cells_per_strip * self.size
        # Windows with their padding; what lies outside of the image stays zero, or is never looked at.
        self.windows = logits.new_zeros((self.classes, rows, self.grid[1] * self.size), dtype=self.dtype)
        self.scratch = logits.new_zeros((2, self.classes, rows, self.width), dtype=self.dtype)
        self.labels = target.clamp(0, self.classes - 1)
        self.has_class = ((target >= 0) & (target < self.classes)).to(self.dtype)
        self.weight = valid.to(self.dtype)
        self.class_weights = None if class_weights is None else class_weights.to(self.dtype)

    def __iter__(self) -> Iterator[_Strip]:
        for n in range(len(self.logits)):
            for start in range(0, self.grid[0], self.cells_per_strip):
                stop = min(start + self.cells_per_strip, self.grid[0])
                top = start * self.size - self.padding
                rows = slice(max(top, 0), min(stop * self.size - self.padding, self.height))
                yield _Strip(n, slice(start, stop), rows, slice(rows.start - top, rows.stop - top))

    def read(self, strip: _Strip) -> Tensor:
        """Full-size logits (C, rows, W) of a strip, in the dtype of the computation; 0 where not valid."""
        logits = self.logits[strip.n]
        if self.resampler is None:
            x = logits[:, strip.rows].to(self.dtype)
        else:
            x = self.resampler.rows(logits, strip.rows, self.dtype)
        return x if self.all_valid[strip.n] else x.masked_fill(~self.valid[strip.n, strip.rows], 0)

    def forward(self, pooled: Tensor | None) -> Tensor:
        """The pixel losses of the samples (N,). Adds to the pooled probabilities as `add_forward` does."""
        sums = self.logits.new_zeros(len(self.logits), dtype=torch.float64)
        for strip in self:
            sums[strip.n] += self.add_forward(strip, pooled)
        return sums.to(self.dtype)

    def add_forward(self, strip: _Strip, pooled: Tensor | None) -> Tensor:
        """Add the strip to the pooled probabilities (N, C, h, w) less their offset, if any; returns its pixel loss."""
        x = self.read(strip)
        weight = self.weight[strip.n, strip.rows]
        height = strip.cells.stop - strip.cells.start
        windows = self.windows[:, : height * self.size]
        if x.shape[1] < windows.shape[1]:
            windows.zero_()
        p = windows[:, strip.inside, self.padding : self.padding + self.width]
        if pooled is not None or self.options.pixel_loss == "bce":
            torch.sigmoid(x, out=p)
        pixel = self._pixel_loss(strip, x, p)
        if pooled is None:
            return pixel
        if not self.all_valid[strip.n]:
            p.mul_(weight)
        if self.options.pixel_loss == "ce":
            p.clamp_(PROBABILITY_OFFSET, 1.0)
        if self.interp is not None:
            self.interp.add_reduced(p, strip.rows, pooled[strip.n])
        else:
            cells = slice(strip.cells.start, min(strip.cells.stop, self.pooled[0]))
            values = self._pool(windows, height)[:, : cells.stop - cells.start, : self.pooled[1]]
            pooled[strip.n, :, cells] = values
        return pixel

    def _pixel_loss(self, strip: _Strip, x: Tensor, p: Tensor) -> Tensor:
        labels, weight = self.labels[strip.n, strip.rows], self.weight[strip.n, strip.rows]
        own = x.gather(0, labels.unsqueeze(0)).squeeze(0) * self.has_class[strip.n, strip.rows]
        if self.options.pixel_loss == "ce":
            pixel = x.logsumexp(dim=0) - own
            if self.class_weights is not None:
                pixel *= self.class_weights[labels]
        else:
            # softplus(x) = max(x, 0) - log(max(p, 1 - p)), and a sum of logarithms is one logarithm of a product.
            scratch = self.scratch[0][:, : x.shape[1]]
            torch.sub(1, p, out=scratch)
            torch.maximum(p, scratch, out=scratch)
            if self.class_weights is None:
                logs = torch.stack([part.prod(dim=0) for part in torch.split(scratch, PRODUCT)]).log_().sum(dim=0)
                pixel = torch.clamp(x, min=0, out=scratch).sum(dim=0) - logs - own
            else:
                softplus = torch.clamp(x, min=0) - scratch.log_()
                pixel = torch.tensordot(self.class_weights, softplus, dims=1) - own * self.class_weights[labels]
        # Times, not where: what is not finite stays so.
        return (pixel * weight).sum(dtype=torch.float64)

    def _pool(self, windows: Tensor, height: int) -> Tensor:
        """(C, height * s, w * s) to (C, height, w)."""
        if self.size == 1:
            return windows
        stacked = torch.unflatten(windows, 1, (height, self.size))
        if self.options.pool == "max":
            return torch.unflatten(stacked.amax(dim=2), 2, (-1, self.size)).amax(dim=3)
        return torch.unflatten(stacked.sum(dim=2), 2, (-1, self.size)).sum(dim=3) / self.size**2

    def pooled_offset(self) -> Tensor | float:
        """The offset of the pooled probabilities: less where averages see the zeros around the image."""
        if self.options.pool != "avg" or self.size == 1:
            return PROBABILITY_OFFSET
        ones = self.logits.new_full((1, 1, self.height, self.width), PROBABILITY_OFFSET, dtype=self.dtype)
        return F.avg_pool2d(ones, self.size, self.size, self.padding)

    def pooled_labels(self) -> Tensor:
        """Pooled one-hot labels (N, C, h, w), which never exist at full size."""
        if self.interp is not None:
            return nearest_labels(self.target, self.valid, self.classes, self.pooled, self.dtype)
        pooled = self.logits.new_empty((*self.logits.shape[:2], *self.pooled), dtype=self.dtype)
        rows, columns = (
            (torch.arange(side, device=self.target.device) + self.padding) // self.size
            for side in (self.height, self.width)
        )
        cell = rows[:, None] * self.grid[1] + columns
        for n, (target, valid) in enumerate(zip(self.target, self.valid)):
            # Pixels that are not valid are counted as one class more.
            index = torch.where(valid, target, self.classes) * (self.grid[0] * self.grid[1]) + cell
            counts = torch.bincount(index.flatten(), minlength=(self.classes + 1) * self.grid[0] * self.grid[1])
            counts = counts.view(self.classes + 1, *self.grid)[:-1, : self.pooled[0], : self.pooled[1]]
            pooled[n] = counts.to(self.dtype) / self.size**2 if self.options.pool == "avg" else counts > 0
        return pooled

    def add_backward(self, strip: _Strip, grad_pixel: Tensor, grad_pooled: Tensor | None, gradient: Tensor) -> None:
        """Set the strip's part of the gradient (N, C, h, w), or add to it where strips share rows of small logits."""
        x = self.read(strip)
        height = strip.cells.stop - strip.cells.start
        p, scratch = (buffer[:, : height * self.size] for buffer in self.scratch)
        if grad_pooled is not None or self.options.pixel_loss == "bce":
            torch.sigmoid(x, out=p[:, strip.inside])
        if grad_pooled is not None:
            # Through the pooled map: its gradient times p (1 - p). All rows of a window share it.
            through_pooled, stacked_p = (buffer.unflatten(1, (height, self.size)) for buffer in (scratch, p))
            at_pixels = self._unpool(strip, grad_pooled[strip.n], p)
            torch.sub(1, stacked_p, out=through_pooled).mul_(stacked_p).mul_(at_pixels)
        p, scratch = p[:, strip.inside], scratch[:, strip.inside]
        if self.options.pixel_loss == "ce":
            if grad_pooled is not None:
                scratch.mul_(p >= PROBABILITY_OFFSET)  # the gradient of clamping
            torch.softmax(x, dim=0, out=p)
        # Through the pixel loss: probability minus one-hot, in this order, so that certain pixels keep their digits.
        labels = self.labels[strip.n, strip.rows]
        p.scatter_add_(0, labels.unsqueeze(0), -self.has_class[strip.n, None, strip.rows])
        p.mul_(grad_pixel[strip.n])
        if self.class_weights is not None:
            p.mul_(self.class_weights[labels] if self.options.pixel_loss == "ce" else self.class_weights[:, None, None])
        if grad_pooled is None:
            scratch.zero_()
        direct = self.resampler is None and gradient.dtype == self.dtype
        out = torch.add(scratch, p, out=gradient[strip.n, :, strip.rows] if direct else scratch)
        if not self.all_valid[strip.n]:
            out.mul_(self.weight[strip.n, strip.rows])
        if self.resampler is not None:
            self.resampler.add_rows_gradient(out, strip.rows, gradient[strip.n])
        elif not direct:
            gradient[strip.n, :, strip.rows] = out

    def _unpool(self, strip: _Strip, grad: Tensor, p: Tensor) -> Tensor:
        """Gradient in each pixel's probability, as (C, windows, 1 or s, W), from that in pooled ones (C, h, w)."""
        if self.interp is not None:
            return self.interp.expanded(grad, strip.rows).unsqueeze(2)
        height = strip.cells.stop - strip.cells.start
        grad = F.pad(
            grad[:, strip.cells], (0, self.grid[1] - self.pooled[1], 0, max(0, strip.cells.stop - self.pooled[0]))
        )
        columns = slice(self.padding, self.padding + self.width)
        if self.options.pool == "avg" or self.size == 1:
            spread = grad.repeat_interleave(self.size, dim=2)[..., columns]
            return (spread / self.size**2).unsqueeze(2)
        # The first largest value of a window takes its gradient, as in max_pool2d.
        values = p.new_full((self.classes, height * self.size, self.grid[1] * self.size), -1.0)
        values[:, strip.inside, columns] = p[:, strip.inside] * self.weight[strip.n, strip.rows]
        _, index = F.max_pool2d(values, self.size, return_indices=True)
        spread = torch.zeros_like(values).flatten(1).scatter_(1, index.flatten(1), grad.flatten(1)).view_as(values)
        return torch.unflatten(spread[..., columns], 1, (height, self.size))
