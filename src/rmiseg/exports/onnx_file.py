"""Models as ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, metadata, traced
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import replacing


@register("export", "onnx")
class ONNXFile:
    """model.onnx, for ONNX Runtime and whatever else reads ONNX."""

    files = ("model.onnx",)

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        with replacing(out / "model.onnx") as temporary:
            save_onnx(segmenter, temporary)
            return compare(segmenter, onnx_runner(temporary), "ONNX Runtime")


def save_onnx(segmenter: Segmenter, path: Path, antialias: bool = True) -> None:
    """Write the model as ONNX, with its metadata.

    Args:
        segmenter: The model.
        path: The file.
        antialias: False keeps to what ONNX had before opset 18: no antialiased Resize, but products of matrices.
    """
    with patch("torch.nn.functional.adaptive_avg_pool2d", adaptive_mean), ExitStack() as stack:
        if not antialias:
            stack.enter_context(patch("rmiseg.inference.segmenter.F.interpolate", _interpolate))
        program = traced(segmenter)
    with _quiet():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            verbose=False,
        )
    assert onnx_program is not None  # as it is with dynamo
    onnx_program.model.metadata_props.update(metadata(segmenter))
    onnx_program.save(path)


def onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    """The function from images to logits that ONNX Runtime makes of a file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on operator versions and other packages to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
