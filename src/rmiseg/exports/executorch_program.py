"""Models for ExecuTorch, PyTorch's runtime for phones and small devices."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

from torch import Tensor

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, metadata, temporary_folder, traced
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.extras import import_extra
from rmiseg.runtime.files import replacing


@register("export", "executorch")
class ExecuTorchProgram:
    """model.pte, in which XNNPACK computes what it can, and model.pte.json, the metadata."""

    files = ("model.pte", "model.pte.json")

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        exir, xnnpack, runtime = (
            import_extra(f"executorch.{module}", "executorch", "ExecuTorch export")
            for module in ("exir", "backends.xnnpack.partition.xnnpack_partitioner", "runtime")
        )
        program, name = self.files
        with temporary_folder(out) as folder:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # remarks on versions of operators
                edge = exir.to_edge_transform_and_lower(traced(segmenter), partitioner=[xnnpack.XnnpackPartitioner()])
                (folder / program).write_bytes(edge.to_executorch().buffer)
            loaded = runtime.Runtime.get().load_program(folder / program)
            method = loaded.load_method("forward")

            def run(images: Tensor) -> Tensor:
                logits: Tensor = method.execute([images])[0]
                return logits.clone()  # of memory that the next call takes

            difference = compare(segmenter, run, "ExecuTorch")
            (folder / name).write_text(json.dumps(metadata(segmenter), ensure_ascii=False, indent=2) + "\n", "utf-8")
            for each in self.files:
                with replacing(out / each) as temporary:
                    shutil.copyfile(folder / each, temporary)
        return difference
