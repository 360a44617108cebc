"""Models for OpenVINO."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, copy_files, metadata, temporary_folder
from rmiseg.exports.onnx_file import save_onnx
from rmiseg.inference.segmenter import Segmenter


@register("export", "openvino")
class OpenVINOFiles:
    """model.xml and model.bin, with float32 weights.

    On processors with bfloat16 OpenVINO computes in it unless it is told otherwise: INFERENCE_PRECISION_HINT f32.
    """

    files = ("model.xml", "model.bin")

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        import openvino

        with temporary_folder(out) as folder:
            save_onnx(segmenter, folder / "model.onnx", antialias=False)  # which OpenVINO would do without
            model = openvino.convert_model(folder / "model.onnx")
            for name, text in metadata(segmenter).items():
                model.set_rt_info(text, ["rmiseg", name])
            openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
            compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

            def run(images: Tensor) -> Tensor:
                return torch.from_numpy(compiled(images.numpy())[0].copy())

            difference = compare(segmenter, run, "OpenVINO")
            copy_files(folder, out, self.files)
        return difference
