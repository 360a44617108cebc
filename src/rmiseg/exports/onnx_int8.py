"""Models as ONNX with integers of 8 bits."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import agreement, temporary_folder
from rmiseg.exports.onnx_file import onnx_runner, save_onnx
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import replacing

LEAST_AGREEMENT = 0.95
"""Smallest share of pixels that must get the class that PyTorch gives them."""


@register("export", "onnx-int8")
class ONNXInt8:
    """model-int8.onnx: convolutions in 8 bits, whose ranges are measured on training images (static quantisation).

    The first and the last convolution, of an ensemble those of every member, and those of single channels stay in
    float32: they are a small part of the arithmetic, and make most of the error.
    """

    files = ("model-int8.onnx",)
    calibrated = True

    def write(self, segmenter: Segmenter, out: Path, images: Sequence[Tensor]) -> float:
        """See `CalibratedFormat.write`."""
        import onnx
        from onnxruntime import quantization

        calibration, held_out = images[::2], images[1::2]
        with temporary_folder(out) as folder, replacing(out / self.files[0]) as temporary:
            save_onnx(segmenter, folder / "model.onnx")
            original = onnx.load(folder / "model.onnx")
            logging.getLogger().addFilter(_no_advice)
            try:
                quantization.quantize_static(
                    folder / "model.onnx",
                    folder / "quantized.onnx",
                    _reader(quantization, calibration),
                    op_types_to_quantize=["Conv"],
                    nodes_to_exclude=_sensitive(original),
                    per_channel=True,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                )
            finally:
                logging.getLogger().removeFilter(_no_advice)
            model = onnx.load(folder / "quantized.onnx")
            onnx.helper.set_model_props(model, {each.key: each.value for each in original.metadata_props})
            onnx.save(model, temporary)
            share = agreement(segmenter, onnx_runner(temporary), held_out)
            if share < LEAST_AGREEMENT:
                raise ValueError(
                    f"in 8 bits {100 * (1 - share):.1f} % of the pixels of {len(held_out)} training images get another "
                    f"class (allowed: {100 * (1 - LEAST_AGREEMENT):.0f} %); the file was not kept"
                )
        return share


def _sensitive(model: Any) -> list[str]:
    """Names of the convolutions that stay as they are."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    grouped = [node for node in convolutions if any(each.name == "group" and each.i > 1 for each in node.attribute)]
    members: dict[str, list[Any]] = {}
    for node in convolutions:
        found = re.search(r"\bmembers\.\d+\.", node.input[1])
        members.setdefault(found[0] if found else "", []).append(node)
    ends = [node for each in members.values() for node in (each[0], each[-1])]
    return list(dict.fromkeys(node.name for node in [*ends, *grouped]))


def _reader(quantization: Any, images: Sequence[Tensor]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # of a package without types
        def __init__(self) -> None:
            self.rest: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {"image": image.unsqueeze(0).numpy()}

    return Reader()


def _no_advice(record: logging.LogRecord) -> bool:
    """False for the advice to run shape inference first, which finds nothing in models of any size."""
    return "pre-processing before quantization" not in record.getMessage()
