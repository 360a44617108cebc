"""Models as folders of NVIDIA Triton Inference Server.

Its configuration is described in docs/user_guide/model_configuration.md of triton-inference-server/server.
"""

from __future__ import annotations

import json
from pathlib import Path

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, copy_files, metadata, temporary_folder
from rmiseg.exports.onnx_file import onnx_runner, save_onnx
from rmiseg.inference.segmenter import Segmenter

REPOSITORY, MODEL = "triton-server", "segmenter"
MAX_BATCH_SIZE = 8

CONFIG = """\
# Model repository of NVIDIA Triton Inference Server: tritonserver --model-repository={repository}
name: "{model}"
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{ name: "image", data_type: TYPE_UINT8, dims: [{channels}, -1, -1] }}
]
output [
  {{ name: "logits", data_type: TYPE_FP32, dims: [{classes}, -1, -1], label_filename: "labels.txt" }}
]
# Requests with images of one size, which arrive at about the same time, are computed together.
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
# The folders of numbers are versions; the highest is served, so that a new model takes the next number.
version_policy {{ latest {{ num_versions: 1 }} }}
{parameters}"""


@register("export", "triton-server")
class TritonRepository:
    """triton-server/segmenter/: config.pbtxt, labels.txt and 1/model.onnx, a model repository with one model."""

    files = tuple(f"{REPOSITORY}/{MODEL}/{name}" for name in ("1/model.onnx", "labels.txt", "config.pbtxt"))

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        with temporary_folder(out) as folder:
            model, labels, config = (folder / Path(name).name for name in self.files)
            save_onnx(segmenter, model)
            difference = compare(segmenter, onnx_runner(model), "ONNX Runtime")
            labels.write_text("".join(f"{_line(name)}\n" for name in segmenter.classes.names), encoding="utf-8")
            config.write_text(configuration(segmenter), encoding="utf-8")
            copy_files(folder, out, self.files)
        return difference


def configuration(segmenter: Segmenter) -> str:
    """The text of config.pbtxt, with the metadata of the model as parameters, which clients can ask the server for."""
    parameters = "".join(
        f"parameters {{ key: {_quoted(name)} value {{ string_value: {_quoted(text)} }} }}\n"
        for name, text in metadata(segmenter).items()
    )
    return CONFIG.format(
        repository=REPOSITORY,
        model=MODEL,
        batch=MAX_BATCH_SIZE,
        channels=segmenter.network.in_channels,
        classes=len(segmenter.classes),
        parameters=parameters,
    )


def _quoted(text: str) -> str:
    """A string of protobuf's text format, which has the escapes that JSON uses here."""
    return json.dumps(text, ensure_ascii=False)


def _line(text: str) -> str:
    return " ".join(text.split())
