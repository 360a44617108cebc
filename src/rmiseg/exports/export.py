"""Trained models as files for other programs.

All formats hold the same function, that of `Segmenter`: uint8 images of any size to logits of that size. Each file is
compared with PyTorch on images of other sizes before it gets its name. A format is a file in this folder, or a plugin.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from torch import nn

from rmiseg.config.registry import find
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import remove_leftovers


class ExportFormat(Protocol):
    """A format. It is registered as a class that takes no arguments: `@register("export", name)`.

    Attributes:
        files: Names of the files that it writes.
    """

    files: tuple[str, ...]

    def write(self, segmenter: Segmenter, out: Path) -> float:
        """Write `files` into the folder `out`, each whole or not at all.

        Args:
            segmenter: The model, on the CPU and in evaluation mode: images (N, 3, H, W) uint8 to logits (N, C, H, W).
            out: The folder, which exists.

        Returns:
            Largest difference between the logits of what was written and PyTorch's, as `rmiseg.exports.common.compare`
            finds it.

        Raises:
            ModuleNotFoundError: A package is missing.
            ValueError: What was written does not compute the same as PyTorch.
        """


@dataclass(frozen=True)
class Exported:
    """One format that was written.

    Attributes:
        files: What was written.
        difference: Largest difference between its logits and PyTorch's, on random images.
    """

    files: tuple[Path, ...]
    difference: float


def export_segmenter(segmenter: Segmenter, format: str, out: Path, overwrite: bool = False) -> Exported:
    """Write a model into the folder `out`, in one format.

    Args:
        segmenter: The model, on the CPU.
        format: A registered name: onnx (model.onnx), torch-export (model.pt2), safetensors (model.safetensors,
            config.json, README.md), or that of a plugin.
        out: Folder; made if it does not exist.
        overwrite: Replace files that exist.

    Raises:
        FileExistsError: A file exists, and `overwrite` is false.
        ModuleNotFoundError: A package of the extra onnx is missing.
        ValueError: There is no such format; or what was written does not compute the same as PyTorch, and has been
            removed again.
    """
    return _export(segmenter, _format(format), out, overwrite)


def export(
    run: str | Path,
    formats: str | Sequence[str] = ("onnx",),
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    model: nn.Module | None = None,
    console: Console | None = None,
) -> dict[str, Exported]:
    """Write the model of a run in formats that other programs read.

    Args:
        run: The folder of a run (its best checkpoint), or a checkpoint file.
        formats: Names of formats, see `export_segmenter`.
        out: Folder for the files; by default export in the folder of the run, or beside the checkpoint.
        overwrite: Replace files that exist.
        model: The network, if that of the run was given in Python.
        console: Where to say what is going on; by default nowhere.

    Returns:
        What was written, by format.

    Raises:
        ValueError, OSError, ModuleNotFoundError: As `export_segmenter` and `load_checkpoint`.
    """
    source = Path(run)
    checkpoint = load_checkpoint(source)
    names = [formats] if isinstance(formats, str) else formats
    chosen = {name: _format(name) for name in names}
    folder = Path(out) if out is not None else (source if source.is_dir() else source.parent) / "export"
    segmenter = Segmenter.from_checkpoint(checkpoint, model)
    exported = {}
    for name, each in chosen.items():
        with console.status(f"writing {name}, and comparing it with PyTorch") if console else nullcontext():
            exported[name] = _export(segmenter, each, folder, overwrite)
        if console:
            print_exported(exported[name], console)
    return exported


def print_exported(exported: Exported, console: Console) -> None:
    """The files with their sizes, and how well they agree with PyTorch."""
    for path in exported.files:
        console.print(f"{path}  {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    console.print(f"  largest difference to PyTorch's logits: {exported.difference:.1e}")


def _format(name: str) -> ExportFormat:
    made: ExportFormat = find("export", name).make()
    return made


def _export(segmenter: Segmenter, format: ExportFormat, out: Path, overwrite: bool) -> Exported:
    existing = [out / name for name in format.files if (out / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists; use --overwrite true or another --out")
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out, format.files)
    difference = format.write(segmenter.eval(), out)
    return Exported(tuple(out / name for name in format.files), difference)
