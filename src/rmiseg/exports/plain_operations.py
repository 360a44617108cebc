"""Operations of networks in forms that runtimes have which lack the operations themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def plain_operations(antialias: bool = True) -> Iterator[None]:
    """Trace adaptive pooling as products of matrices, and if `antialias` is false, antialiased interpolation too."""
    with ExitStack() as stack:
        stack.enter_context(patch("torch.nn.functional.adaptive_avg_pool2d", adaptive_mean))
        if not antialias:
            stack.enter_context(patch("rmiseg.inference.segmenter.F.interpolate", _interpolate))
        yield


def adaptive_mean(maps: Tensor, bins: int | tuple[int, int]) -> Tensor:
    """Adaptive average pooling as products of matrices, for ONNX, whose pooling needs sizes known in advance."""
    rows, columns = (bins, bins) if isinstance(bins, int) else bins
    if rows == columns == 1:
        return maps.mean((2, 3), keepdim=True)
    return _bin_matrix(maps.shape[2], rows) @ maps @ _bin_matrix(maps.shape[3], columns).T


def _bin_matrix(size: int, bins: int) -> Tensor:
    """(bins, size): each row averages the cells from floor(i * size / bins) to ceil((i + 1) * size / bins)."""
    cell, index = torch.arange(size), torch.arange(bins).unsqueeze(1)
    inside = (cell >= index * size // bins) & (cell < ((index + 1) * size + bins - 1) // bins)
    return inside.float() / inside.sum(dim=1, keepdim=True)


def antialiased(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of (N, C, H, W) with antialiasing, as products of matrices."""
    return _triangles(maps.shape[2], size[0]) @ maps @ _triangles(maps.shape[3], size[1]).T


def _triangles(size: int, new: int) -> Tensor:
    """(new, size): each row averages the cells below a triangle two new ones wide, or two old ones if wider."""
    cell, index = torch.arange(size), torch.arange(new).unsqueeze(1)
    width: int = 2 * torch.sym_max(size, new)  # type: ignore[assignment]  # perhaps a symbol that stands for one
    distance = ((2 * cell + 1) * new - (2 * index + 1) * size).abs() / width
    height = (1 - distance).clamp(min=0)
    return height / height.sum(dim=1, keepdim=True)


_plain_interpolate = F.interpolate


def _interpolate(maps: Tensor, size: Sequence[int], *, antialias: bool = False, **options: Any) -> Tensor:
    return antialiased(maps, size) if antialias else _plain_interpolate(maps, size, **options)
