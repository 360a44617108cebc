"""Models for ExecuTorch, the runtime for phones and small devices."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import COMPARED_SIZES, compare, metadata, quiet, traced
from rmiseg.exports.plain_operations import plain_operations
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import replacing

LARGEST_SIDE = 1024
"""Memory is reserved for images of so many pixels square when a program is loaded; larger ones are refused."""


@register("export", "executorch")
class ExecuTorchFile:
    """model.pte, for processors through XNNPACK: one image at a time, of sides up to `LARGEST_SIDE`.

    Its method "metadata" returns the text of a JSON object as bytes, for a program cannot return strings.
    """

    files = ("model.pte",)

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`; a model that makes images smaller first is refused."""
        if segmenter.image_scale != 1:
            raise ValueError(
                f"executorch: the model makes images smaller by data.image_scale {segmenter.image_scale:g} first, and "
                "ExecuTorch cannot compute their sizes; take another format, such as onnx, or train with 1"
            )
        with quiet("torch.utils._pytree"):
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
            from executorch.runtime import Runtime

            with plain_operations():
                program = traced(segmenter, LARGEST_SIDE)
            about = torch.frombuffer(bytearray(json.dumps(metadata(segmenter)).encode()), dtype=torch.uint8)
            lowered = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods={"metadata": about}
            )
            with replacing(out / self.files[0]) as temporary:
                temporary.write_bytes(lowered.to_executorch().buffer)
                method = Runtime.get().load_program(temporary).load_method("forward")

                def run(images: Tensor) -> Tensor:
                    logits: Tensor = method.execute([images])[0]
                    return logits

                return compare(segmenter, run, "ExecuTorch", [(1, *sides) for _, *sides in COMPARED_SIZES])
