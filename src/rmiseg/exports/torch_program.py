"""Models as programs of torch.export."""

from __future__ import annotations

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
            with temporary.open("wb") as file:
                torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata(segmenter))})
            with temporary.open("rb") as file:
                loaded = torch.export.load(file).module()
            return compare(segmenter, loaded, "the program that was read back")
