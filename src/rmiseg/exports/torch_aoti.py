"""Models as compiled libraries of PyTorch's AOTInductor."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from rmiseg.config.registry import register
from rmiseg.exports.common import compare, metadata, temporary_folder, traced
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import replacing


@register("export", "torch-aoti")
class TorchLibrary:
    """model-aoti.pt2: machine code for processors like the one that it was made on, for Python and C++.

    It is compiled by `torch._inductor.aoti_compile_and_package`. The package holds a library that is run as it is, so
    only files from people whom one trusts may be loaded.
    """

    files = ("model-aoti.pt2",)

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """See `ExportFormat.write`."""
        check_compiler()
        program = traced(segmenter)
        with temporary_folder(out) as folder, replacing(out / self.files[0]) as temporary:
            path = folder / self.files[0]
            options = {"aot_inductor.metadata": metadata(segmenter)}
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
            difference = compare(segmenter, torch._inductor.aoti_load_package(path), "the compiled library")
            os.replace(path, temporary)
        return difference


def check_compiler() -> None:
    """See whether there is a C++ compiler.

    Raises:
        ValueError: There is none.
    """
    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise ValueError(
            "torch-aoti needs a C++ compiler, and neither CXX nor g++ names one: install g++ or clang++, or export as "
            "torch-export, which is compiled where it is used"
        ) from error
