"""Models as programs of torch.export."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, metadata, traced
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import replacing


@register("export", "torch-export")
class TorchProgram:
    """model.pt2, for PyTorch without this package."""

    files = ("model.pt2",)

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        program = traced(segmenter)
        with replacing(out / "model.pt2") as temporary:
            file = io.BytesIO()  # PyTorch's writer of files ends the process where the disk is full
            torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata(segmenter))})
            temporary.write_bytes(file.getbuffer())
            with temporary.open("rb") as written:
                loaded = torch.export.load(written).module()
            return compare(segmenter, loaded, "the program that was read back")
