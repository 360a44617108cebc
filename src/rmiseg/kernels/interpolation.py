"""Bilinear interpolation between two sizes, a few rows at a time.

Along one axis it is a matrix with at most two entries a row. Strips of rows need a small block of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.functional import one_hot, soft_targets


class Resampler:
    """Bilinear interpolation of maps from `source` = (h, w) to `size` = (H, W), as F.interpolate defines it.

    Args:
        source: Size (h, w) of the maps that are interpolated.
        size: Size (H, W) of the result.
        align_corners: Whether the centers of the corner pixels, rather than their outer edges, coincide.
    """

    def __init__(self, source: Sequence[int], size: Sequence[int], align_corners: bool) -> None:
        self.source = source
        self.row_matrix = interpolation_matrix(source[0], size[0], align_corners)
        self.column_matrix = interpolation_matrix(source[1], size[1], align_corners)

    def rows(self, maps: Tensor, rows: slice, dtype: torch.dtype) -> Tensor:
        """Rows of the result (C, rows, W), of maps (C, h, w)."""
        block, used = self._block(self.row_matrix[rows], maps.device, dtype)
        columns = self._columns(maps.device, dtype)
        return block @ (maps[:, used].to(dtype) @ columns.T)

    def add_rows_gradient(self, grad: Tensor, rows: slice, gradient: Tensor) -> None:
        """Add to the gradient in the maps (C, h, w) what comes from that in rows of the result (C, rows, W)."""
        block, used = self._block(self.row_matrix[rows], grad.device, grad.dtype)
        gradient[:, used] += (block.T @ (grad @ self._columns(grad.device, grad.dtype))).to(gradient.dtype)

    def add_reduced(self, maps: Tensor, rows: slice, result: Tensor) -> None:
        """Add to the result (C, H, W) what comes from rows of the maps, (C, rows, w)."""
        block, used = self._block(self.row_matrix[:, rows].T, maps.device, maps.dtype)
        result[:, used] += block.T @ (maps @ self._columns(maps.device, maps.dtype).T)

    def expanded(self, grad: Tensor, rows: slice) -> Tensor:
        """Gradient in rows of the maps (C, rows, w), from that in the result (C, H, W)."""
        block, used = self._block(self.row_matrix[:, rows].T, grad.device, grad.dtype)
        return block @ (grad[:, used] @ self._columns(grad.device, grad.dtype))

    def _columns(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self.column_matrix.to(device, dtype)

    @staticmethod
    def _block(matrix: Tensor, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, slice]:
        """The columns of the matrix between its first and last entry that is not zero."""
        nonzero = matrix.any(dim=0).nonzero().flatten()
        if len(nonzero) == 0:
            return matrix[:, :0].to(device, dtype), slice(0, 0)
        used = slice(int(nonzero[0]), int(nonzero[-1]) + 1)
        return matrix[:, used].to(device, dtype), used


def nearest_target(target: Tensor, valid: Tensor, num_classes: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """`nearest_labels` of class ids (N, H, W), or of soft targets (N, C, H, W)."""
    if target.ndim == valid.ndim:
        return nearest_labels(target, valid, num_classes, size, dtype)
    soft = soft_targets(target, valid, num_classes, dtype)
    return F.interpolate(soft, tuple(size), mode="nearest").contiguous()


def nearest_labels(target: Tensor, valid: Tensor, num_classes: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """One-hot labels (N, C, h, w) at the pixels nearest to those of `size`; see `functional.one_hot`."""
    target, valid = (
        F.interpolate(a.unsqueeze(1).float(), tuple(size), mode="nearest").squeeze(1) for a in (target, valid)
    )
    return one_hot(target.long(), valid.bool(), num_classes, dtype)


def interpolation_matrix(source: int, size: int, align_corners: bool) -> Tensor:
    """Weights (size, source) float64 on the CPU, of each source pixel in each pixel of the result."""
    position = torch.arange(size, dtype=torch.float64, device="cpu")
    if align_corners:
        position = position * ((source - 1) / (size - 1) if size > 1 else 0.0)
    else:
        position = ((position + 0.5) * source / size - 0.5).clamp(min=0)
    low = position.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    weight = (position - low).unsqueeze(1)
    matrix = position.new_zeros(size, source)
    matrix.scatter_add_(1, low.unsqueeze(1), 1 - weight)
    return matrix.scatter_add_(1, high.unsqueeze(1), weight)
