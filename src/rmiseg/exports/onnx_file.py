"""Models as ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, metadata, traced
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.extras import import_extra
from rmiseg.runtime.files import replacing


@register("export", "onnx")
class ONNXFile:
    """model.onnx, for ONNX Runtime and whatever else reads ONNX."""

    files = ("model.onnx",)

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        for module in ("onnx", "onnxscript"):
            import_extra(module, "onnx", "ONNX export")
        runtime = import_extra("onnxruntime", "onnx", "comparing the ONNX model with PyTorch")
        with patch("torch.nn.functional.adaptive_avg_pool2d", adaptive_mean):
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
        with replacing(out / "model.onnx") as temporary:
            onnx_program.save(temporary)
            session = runtime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
            return compare(
                segmenter,
                lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0]),
                "ONNX Runtime",
            )


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
