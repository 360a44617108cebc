"""The RMI loss of soft targets, and of volumes, in ordinary PyTorch operations on any device.

The plain definition, a few classes of one sample at a time: beside the logits and their gradient there are only pooled
maps, and some copies of one block of full size. The backward pass computes the blocks again. Softmax cross entropy
needs all classes of a sample at once.

The same values and gradients as `rmiseg.functional`, whose notation is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg import functional
from rmiseg.functional import PROBABILITY_OFFSET, RMIOptions, computed_dtype, per_class, pooled_size
from rmiseg.kernels.interpolation import interpolation_matrix
from rmiseg.kernels.pieces import piece
from rmiseg.kernels.pooled import rmi_of_pooled

BLOCK = 1 << 19
"""Values of a block at full size: two megabytes in float32."""


def rmi_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    options: RMIOptions,
    with_gradient: bool,
    with_perfect: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `rmiseg.kernels.backends`."""
    blocks = _Blocks(logits, target, valid, class_weights, options.align_corners)
    pixel_sums = blocks.pixel_sums("ce") if options.pixel_loss == "ce" else blocks.zeros(len(logits))
    pooled = pooled_size(valid.shape[1:], options.pool, options.pool_size)
    probabilities, labels, certain = (blocks.zeros(*logits.shape[:2], *pooled) for _ in range(3))
    interpolated = with_perfect and options.pool == "interp"
    for at in blocks.of_classes():
        block = blocks.read(*at)
        if options.pixel_loss == "bce":
            pixel_sums[at[0]] += functional.binary_cross_entropy_sums(*block)[0]
        labels[at], probabilities[at] = (
            maps[0]
            for maps in functional.rmi_maps(
                *block[:3], pool=options.pool, pool_size=options.pool_size, clamp=options.pixel_loss == "ce"
            )
        )
        if interpolated:
            soft = functional.soft_targets(*block[1:3], block[0].shape[1], blocks.dtype)
            certain[at] = functional.upsample_logits(soft, pooled, align_corners=True)[0]
    return pixel_sums, *rmi_of_pooled(
        probabilities, labels, valid, lambda: certain, options, with_gradient, with_perfect
    )


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
    """See `rmiseg.kernels.backends`."""
    blocks = _Blocks(logits, target, valid, class_weights, options.align_corners)
    if options.pixel_loss == "ce":
        gradient = blocks.cross_entropy_gradient(grad_pixel)
    else:
        gradient = torch.zeros_like(logits, dtype=blocks.dtype)
    for n, classes in blocks.of_classes():
        x, _, valid_pixels, _ = block = blocks.read(n, classes)
        grad_maps = gradient_maps[n : n + 1, classes] * per_class(grad_rmi[n, classes], gradient_maps)
        p, q = x.sigmoid(), (-x).sigmoid()  # which both keep their digits
        weight = valid_pixels.unsqueeze(1).to(x.dtype)
        own = p * weight
        out = _unpool(grad_maps, own, options).mul_(p).mul_(q)
        if options.pixel_loss == "ce":
            out.mul_(own >= PROBABILITY_OFFSET)  # the gradient of clamping
        else:
            out.add_(_binary_gradient(block, p, q).mul_(grad_pixel[n]))
        gradient[n, classes] += blocks.narrowed(out.mul_(weight))[0]
    return gradient.to(logits.dtype)


def pixel_forward(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends.Backend`."""
    return _Blocks(logits, target, valid, class_weights, align_corners).pixel_sums(pixel_loss)


def pixel_backward(
    grad_pixel: Tensor,
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: Tensor | None,
    pixel_loss: str,
    align_corners: bool,
) -> Tensor:
    """See `rmiseg.kernels.backends`."""
    blocks = _Blocks(logits, target, valid, class_weights, align_corners)
    if pixel_loss == "ce":
        return blocks.cross_entropy_gradient(grad_pixel).to(logits.dtype)
    gradient = torch.empty_like(logits)
    for n, classes in blocks.of_classes():
        x, _, valid_pixels, _ = block = blocks.read(n, classes)
        out = _binary_gradient(block, x.sigmoid(), (-x).sigmoid()) * valid_pixels.unsqueeze(1)
        gradient[n, classes] = blocks.narrowed(out * grad_pixel[n])[0].to(gradient.dtype)
    return gradient


Block = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Some classes of one sample: full-size logits (1, K, *size), target, valid (1, *size), class weights (K,)."""


class _Blocks:
    """Cuts a batch into blocks."""

    def __init__(
        self, logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None, align_corners: bool
    ) -> None:
        self.logits, self.target, self.valid, self.class_weights = logits, target, valid, class_weights
        self.align_corners = align_corners
        self.dtype = computed_dtype(logits)
        low, size = logits.shape[2:], valid.shape[1:]
        self.matrices = None
        if low != size:
            self.matrices = [
                interpolation_matrix(source, side, align_corners).T.to(logits.device, self.dtype)
                for source, side in zip(low, size)
            ]

    def zeros(self, *shape: int) -> Tensor:
        return self.logits.new_zeros(shape, dtype=self.dtype)

    def of_classes(self) -> Iterator[tuple[int, slice]]:
        """Blocks of about BLOCK values: sample and classes."""
        classes = self.logits.shape[1]
        group = max(1, piece(BLOCK, self.valid.device) // max(1, self.valid[:1].numel()))
        for n in range(len(self.logits)):
            for first, stop in pairwise([*range(0, classes, group), classes]):
                yield n, slice(first, stop)

    def read(self, n: int, classes: slice) -> Block:
        valid = self.valid[n : n + 1]
        x = functional.upsample_logits(
            self.logits[n : n + 1, classes].to(self.dtype), valid.shape[1:], self.align_corners
        )
        x = functional.silenced(x, valid)
        if self.target.ndim == self.valid.ndim:
            target = self.target[n : n + 1] - classes.start
        else:
            target = self.target[n : n + 1, classes]
        return x, target, valid, None if self.class_weights is None else self.class_weights[classes]

    def narrowed(self, grad: Tensor) -> Tensor:
        """Gradient in logits (1, K, *low), from that in full-size ones (1, K, *size)."""
        # The transpose of the interpolation, axis by axis; torch's own is not deterministic on CUDA.
        for axis, matrix in enumerate(self.matrices or ()):
            grad = _along(grad, matrix, 2 + axis)
        return grad

    def pixel_sums(self, pixel_loss: str) -> Tensor:
        sums = self.zeros(len(self.logits))
        if pixel_loss == "ce":
            every = slice(0, self.logits.shape[1])
            for n in range(len(sums)):
                sums[n] = functional.cross_entropy_sums(*self.read(n, every))[0]
        else:
            for n, classes in self.of_classes():
                sums[n] += functional.binary_cross_entropy_sums(*self.read(n, classes))[0]
        return sums

    def cross_entropy_gradient(self, grad_pixel: Tensor) -> Tensor:
        gradient = torch.zeros_like(self.logits, dtype=self.dtype)
        for n in range(len(gradient)):
            x, target, valid, weights = self.read(n, slice(0, self.logits.shape[1]))
            labels = functional.soft_targets(target, valid, x.shape[1], x.dtype) * per_class(weights, x)
            out = x.softmax(dim=1).mul_(labels.sum(dim=1, keepdim=True)).sub_(labels)
            gradient[n] = self.narrowed(out.mul_(valid.unsqueeze(1)).mul_(grad_pixel[n]))[0]
        return gradient


def _binary_gradient(block: Block, p: Tensor, q: Tensor) -> Tensor:
    """Gradient of binary cross entropy in its logits, whose sigmoid is p = 1 - q, as if all pixels were valid."""
    x, target, valid, weights = block
    labels = functional.soft_targets(target, valid, x.shape[1], x.dtype)
    # (1 - labels) p - labels q rather than p - labels, so that certain pixels keep their digits.
    gradient = torch.lerp(p, -q, labels)
    return gradient if weights is None else gradient * per_class(weights, x)


def _unpool(grad: Tensor, probabilities: Tensor, options: RMIOptions) -> Tensor:
    """Gradient in probabilities (1, K, *size), given that in the pooled ones."""
    size, pool_size = probabilities.shape[2:], options.pool_size
    if pool_size == 1:
        return grad.clone()
    if options.pool == "interp":
        for axis, (side, pooled) in enumerate(zip(size, grad.shape[2:])):
            matrix = interpolation_matrix(side, pooled, align_corners=True)
            grad = _along(grad, matrix.T.to(grad.device, grad.dtype), 2 + axis)
        return grad.contiguous()
    padding = pool_size // 2
    if options.pool == "max":
        pool = F.max_pool2d if len(size) == 2 else F.max_pool3d
        _, places = pool(probabilities, pool_size, pool_size, padding, return_indices=True)
        spread = torch.zeros_like(probabilities).flatten(2)
        return spread.scatter_(2, places.flatten(2), grad.flatten(2)).view_as(probabilities)
    grad = grad / pool_size ** len(size)
    for axis, side in enumerate(size, start=2):
        windows = grad.repeat_interleave(pool_size, dim=axis)
        covered = min(side, windows.shape[axis] - padding)
        grad = windows.narrow(axis, padding, covered)
        if covered < side:  # the last window was cut off by the image, and did not count
            shape = list(grad.shape)
            shape[axis] = side - covered
            grad = torch.cat([grad, grad.new_zeros(shape)], dim=axis)
    return grad.contiguous()


def _along(maps: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Maps with the matrix (new, old) applied along one axis."""
    return (maps.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
