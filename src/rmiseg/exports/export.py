"""Trained models as files for other programs: ONNX, torch.export, and safetensors with a description.

All hold the same function, that of `Segmenter`: uint8 images of any size to logits of that size. Each file is compared
with PyTorch on images of other sizes before it gets its name.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.inference.checkpoint import PRETRAINED_CONFIG, PRETRAINED_WEIGHTS, load_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.extras import import_extra
from rmiseg.runtime.files import replacing

TOLERANCE = 1e-4
"""Largest difference to PyTorch's logits, relative to the largest logit where that is above 1."""

TRACED_SIZE = (2, 3, 97, 131)  # batch and sides that no stride divides, so that nothing is taken for constant
COMPARED_SIZES = ((1, 3, 120, 81), (3, 3, 75, 160))


@dataclass(frozen=True)
class Exported:
    """One format that was written.

    Attributes:
        files: What was written.
        difference: Largest difference between its logits and PyTorch's, on random images.
    """

    files: tuple[Path, ...]
    difference: float


def export(segmenter: Segmenter, format: str, out: Path, overwrite: bool = False) -> Exported:
    """Write a model into the folder `out`, in one of the formats in `FORMATS`.

    Args:
        segmenter: The model, on the CPU.
        format: onnx (model.onnx), torch-export (model.pt2) or safetensors (model.safetensors, config.json, README.md).
        out: Folder; made if it does not exist.
        overwrite: Replace files that exist.

    Raises:
        FileExistsError: A file exists, and `overwrite` is false.
        ModuleNotFoundError: A package of the extra onnx is missing.
        ValueError: What was written does not compute the same as PyTorch; it has been removed again.
    """
    write, names = FORMATS[format]
    existing = [out / name for name in names if (out / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists; use --overwrite true or another --out")
    out.mkdir(parents=True, exist_ok=True)
    difference = write(segmenter.eval(), out)
    return Exported(tuple(out / name for name in names), difference)


def metadata(segmenter: Segmenter) -> dict[str, str]:
    """What a user of an exported program needs to know; all but the plain words are JSON."""
    classes, network = segmenter.classes, segmenter.network
    return {
        "classes": json.dumps(classes.names),
        "palette": json.dumps(classes.palette),
        "ignore_index": json.dumps(IGNORE_INDEX),
        "model": segmenter.description.model.name,
        "backbone": segmenter.description.model.backbone or "",
        "input": "RGB images, uint8 (batch, 3, height, width)",
        "output": "logits, float32 (batch, classes, height, width)",
        # The graph does it itself. The values are for whoever builds a preprocessing of their own.
        "normalization": "inside",
        "image_mean": json.dumps(network.image_mean),
        "image_std": json.dumps(network.image_std),
        "image_scale": json.dumps(segmenter.image_scale),
    }


def _write_onnx(segmenter: Segmenter, out: Path) -> float:
    for module in ("onnx", "onnxscript"):
        import_extra(module, "onnx", "ONNX export")
    runtime = import_extra("onnxruntime", "onnx", "comparing the ONNX model with PyTorch")
    with patch("torch.nn.functional.adaptive_avg_pool2d", _adaptive_mean):
        program = _traced(segmenter)
    with _quiet():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            verbose=False,
        )
    onnx_program.model.metadata_props.update(metadata(segmenter))
    with replacing(out / "model.onnx") as temporary:
        onnx_program.save(temporary)
        session = runtime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        return _compare(
            segmenter, lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0]), "ONNX Runtime"
        )


def _write_torch_export(segmenter: Segmenter, out: Path) -> float:
    program = _traced(segmenter)
    with replacing(out / "model.pt2") as temporary:
        with temporary.open("wb") as file:
            torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata(segmenter))})
        with temporary.open("rb") as file:
            loaded = torch.export.load(file).module()
        return _compare(segmenter, loaded, "the program that was read back")


def _write_safetensors(segmenter: Segmenter, out: Path) -> float:
    with _temporary_folder(out) as folder:
        segmenter.save_pretrained(folder)
        loaded = Segmenter.from_checkpoint(load_checkpoint(folder))
        difference = _compare(segmenter, loaded, "the model that was read back")
        for name in FORMATS["safetensors"][1]:
            with replacing(out / name) as temporary:
                shutil.copyfile(folder / name, temporary)  # a copy has the usual permissions
    return difference


FORMATS: dict[str, tuple[Callable[[Segmenter, Path], float], tuple[str, ...]]] = {
    "onnx": (_write_onnx, ("model.onnx",)),
    "torch-export": (_write_torch_export, ("model.pt2",)),
    "safetensors": (_write_safetensors, (PRETRAINED_WEIGHTS, PRETRAINED_CONFIG, "README.md")),
}
"""Each format's writer, which returns the largest difference to PyTorch, and its files."""


def _traced(segmenter: Segmenter) -> torch.export.ExportedProgram:
    """The program of a model, for batches and images of any size."""
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(TRACED_SIZE, dtype=torch.uint8)
    shapes = {"image": {0: dynamic, 2: dynamic, 3: dynamic}}
    with patch("timm.layers.padding.get_same_padding", _same_padding):
        return torch.export.export(segmenter, (example,), dynamic_shapes=shapes)


def _same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
    """timm's function of this name in integers: its float division and maximum are symbols that never get simpler."""
    extent = (kernel_size - 1) * dilation + 1
    padding = ((x + stride - 1) // stride - 1) * stride + extent - x
    return padding if extent >= stride else max(padding, 0)


def _compare(segmenter: Segmenter, other: Callable[[Tensor], Tensor], name: str) -> float:
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for size in COMPARED_SIZES:
        images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        with torch.no_grad():
            expected, found = segmenter(images), other(images)
        difference = (found - expected).abs().max().item()
        bound = TOLERANCE * max(1.0, expected.abs().max().item())
        if found.shape != expected.shape or not difference <= bound:
            raise ValueError(
                f"{name} differs from PyTorch by {difference:.2g} (allowed: {bound:.2g}) on images of the size "
                f"{size[2]} x {size[3]}; the file was not kept"
            )
        largest = max(largest, difference)
    return largest


def _adaptive_mean(maps: Tensor, bins: int | tuple[int, int]) -> Tensor:
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
def _temporary_folder(out: Path) -> Iterator[Path]:
    folder = out / f".export.{os.getpid()}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
