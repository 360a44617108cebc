"""Arguments of the kernels: tensors, strides and sizes in tuples, and the settings that are compiled into them.

Triton takes a tuple as one argument and specializes each of its entries alike: whole numbers of 1, and None, become
constants.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from rmiseg.functional import computed_dtype


def power_of_2(number: int) -> int:
    """The least power of 2 that is not below a number, at least 1; Triton's own takes 10 microseconds."""
    return 1 << max(0, number - 1).bit_length()


class Batch(NamedTuple):
    """A batch, as every kernel reads it.

    Attributes:
        logits: (N, C, h, w) float16, bfloat16, float32 or float64, in any strides.
        target: (N, H, W) int64, contiguous.
        valid: (N, H, W) uint8, 1 where a pixel counts, contiguous.
        class_weights: (C,) float64, or None.
        stride_n, stride_c, stride_h, stride_w: Strides of the logits.
        classes: C.
        low_height, low_width: h and w.
        height, width: H and W.
    """

    logits: Tensor
    target: Tensor
    valid: Tensor
    class_weights: Tensor | None
    stride_n: int
    stride_c: int
    stride_h: int
    stride_w: int
    classes: int
    low_height: int
    low_width: int
    height: int
    width: int

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None) -> Batch:
        """The batch of the arguments of `rmiseg.kernels.rmi`."""
        return cls(
            logits,
            target.contiguous(),
            valid.contiguous().view(torch.uint8),
            class_weights,
            *logits.stride(),
            *logits.shape[1:],
            *target.shape[-2:],
        )

    @property
    def samples(self) -> int:
        """N."""
        return self.logits.shape[0]

    @property
    def is_small(self) -> bool:
        """True if the logits are smaller than the target, so that kernels interpolate them."""
        return (self.low_height, self.low_width) != (self.height, self.width)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return computed_dtype(self.logits)

    def empty(self, *shape: int) -> Tensor:
        """An empty tensor in the dtype of the computation."""
        return self.logits.new_empty(shape, dtype=self.dtype)


class Reading(NamedTuple):
    """Settings of reading logits, constants of a kernel.

    Attributes:
        upsample: "none", or the corner convention of the interpolation: "corners" (aligned) or "centers".
        whole: Triton's dtype of positions.
        offset: That of places in a map of logits, or of their gradient.
        wide: That of the computation, float32 or float64.
    """

    upsample: str
    whole: Any
    offset: Any
    wide: Any

    @classmethod
    def of(cls, batch: Batch, align_corners: bool) -> Reading:
        """The settings for a batch and a corner convention; its gradient is in memory as the logits are, or denser."""
        small = "corners" if align_corners else "centers"
        # Positions are fractions of whole numbers up to twice the product of two sides.
        whole = tl.int32 if max(batch.height, batch.width) < 1 << 14 else tl.int64
        _n, c, h, w = batch.logits.shape
        spread = max(h * w * c, (h - 1) * batch.stride_h + (w - 1) * batch.stride_w)
        offset = tl.int32 if spread < 1 << 31 else tl.int64
        wide = tl.float64 if batch.dtype == torch.float64 else tl.float32
        return cls(small if batch.is_small else "none", whole, offset, wide)


class Windows(NamedTuple):
    """Settings of pooling, constants of a kernel.

    Attributes:
        pool: "avg", "max", "interp" or "none".
        size: Side of the windows that tiles are made of; with "interp" and "none" any.
        padding: Rows above and columns left of the image that the first windows begin with.
    """

    pool: str
    size: int
    padding: int


class Pooled(NamedTuple):
    """Maps of pooled size (ph, pw). Each kernel takes some of them, and None for the others.

    Attributes:
        height, width: ph and pw.
        probabilities: (N, C, ph, pw) float32 or float64, pooled.
        labels: (N, C, ph, pw), the same.
        gradient: (N, C, ph, pw) float32 or float64, of each map's RMI in the pooled probabilities.
        upstream: (N, C) float64, the gradient in RMI.
        argmax: (N, C, ph, pw) int32, the place in each window, row times size plus column, of its largest probability.
    """

    height: int
    width: int
    probabilities: Tensor | None = None
    labels: Tensor | None = None
    gradient: Tensor | None = None
    upstream: Tensor | None = None
    argmax: Tensor | None = None


class Tiles(NamedTuple):
    """Programs of a grid of pooling windows: tiles of windows of one sample, times groups of classes.

    Attributes:
        cells: Windows of one sample.
        grid_width: Windows in a row.
        tiles: Tiles of one sample.
        groups: Groups of classes.
        group: Classes of a group.
    """

    cells: int
    grid_width: int
    tiles: int
    groups: int
    group: int


class Bands(NamedTuple):
    """Programs of a gradient in small logits: bands of rows, times blocks of columns, times packs of classes.

    Attributes:
        bands: Bands of one sample.
        blocks: Blocks of one band.
        packs: Packs of classes.
    """

    bands: int
    blocks: int
    packs: int


class Gradient(NamedTuple):
    """The gradient that is written, and that in the pixel loss.

    Attributes:
        out: (N, C, h, w), as the logits, in any strides.
        stride_n, stride_c, stride_h, stride_w: Its strides.
        pixel: (N,) float32 or float64, the gradient in each sample's sum of the pixel loss.
    """

    out: Tensor
    stride_n: int
    stride_c: int
    stride_h: int
    stride_w: int
    pixel: Tensor

    @classmethod
    def of(cls, out: Tensor, pixel: Tensor) -> Gradient:
        """Both, with the strides of what is written."""
        n, c, h, w = out.stride()
        return cls(out, n, c, h, w, pixel.contiguous())
