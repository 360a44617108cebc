"""Models as ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, metadata, quiet, traced
from rmiseg.exports.plain_operations import plain_operations
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
    with plain_operations(antialias):
        program = traced(segmenter)
    with quiet("torch.onnx"), warnings.catch_warnings(action="ignore"):
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
