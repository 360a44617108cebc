"""Trained models as files for other programs.

All formats hold the same function, that of `Segmenter`: uint8 images of any size to logits of that size. Each file is
compared with PyTorch before it gets its name. A format is a file in this folder, or a plugin.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from torch import Tensor, nn
from typing_extensions import TypeIs

from rmiseg.config.registry import find
from rmiseg.data.spread import spread
from rmiseg.exports import hub
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.extras import require_for_export
from rmiseg.runtime.files import remove_leftovers
from rmiseg.runtime.places import check_places, check_room, writable_folder


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


class CalibratedFormat(Protocol):
    """A format whose numbers are less precise, so that it needs images of the kind that the model is for.

    Attributes:
        files: Names of the files that it writes.
        calibrated: True, by which it is known.
    """

    files: tuple[str, ...]
    calibrated: bool

    def write(self, segmenter: Segmenter, out: Path, images: Sequence[Tensor]) -> float:
        """Write `files` into the folder `out`, each whole or not at all.

        Args:
            segmenter: See `ExportFormat.write`.
            out: The folder, which exists.
            images: Training images (3, H, W) uint8.

        Returns:
            The share of pixels to which what was written and PyTorch give the same class, on images that nothing was
            measured on.

        Raises:
            ModuleNotFoundError, ValueError: As `ExportFormat.write`.
        """


@dataclass(frozen=True)
class Exported:
    """One format that was written.

    Attributes:
        files: What was written.
        difference: Largest difference between its logits and PyTorch's, on random images; None of a calibrated format.
        agreement: Share of pixels with the class that PyTorch gives them, of a calibrated format.
    """

    files: tuple[Path, ...]
    difference: float | None
    agreement: float | None = None


def export_segmenter(
    segmenter: Segmenter, format: str, out: Path, overwrite: bool = False, images: Sequence[Tensor] = ()
) -> Exported:
    """Write a model into the folder `out`, in one format.

    Args:
        segmenter: The model, on the CPU.
        format: A registered name: onnx (model.onnx), onnx-int8 (model-int8.onnx), openvino (model.xml, model.bin),
            executorch (model.pte), torch-export (model.pt2), torch-aoti (model-aoti.pt2), triton-server (a folder of
            that name), safetensors (model.safetensors, config.json, README.md), or that of a plugin.
        out: Folder; made if it does not exist.
        overwrite: Replace files that exist.
        images: Training images (3, H, W) uint8, two or more, which calibrated formats (onnx-int8) need.

    Raises:
        FileExistsError: A file exists, and `overwrite` is false.
        ModuleNotFoundError: A package of an extra is missing.
        ValueError: There is no such format, or it needs images; or what was written does not compute the same as
            PyTorch, and has been removed again.
    """
    return _export(segmenter, _format(format), out, overwrite, lambda: images)


def export(
    run: str | Path,
    formats: str | Sequence[str] = ("onnx",),
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    images: int = 64,
    root: str | Path | None = None,
    model: nn.Module | None = None,
    license: str | None = None,
    push: str | None = None,
    private: bool = True,
    console: Console | None = None,
) -> dict[str, Exported]:
    """Write the model of a run in formats that other programs read.

    Args:
        run: The folder of a run (its best checkpoint), or a checkpoint file.
        formats: Names of formats, see `export_segmenter`.
        out: Folder for the files; by default export in the folder of the run, or beside the checkpoint.
        overwrite: Replace files that exist.
        images: Number of training images that calibrated formats (onnx-int8) measure and compare on.
        root: Folder of the data set with these images, if it is no longer where the run found it.
        model: The network, if that of the run was given in Python.
        license: Identifier of the model's licence for the model card, such as cc-by-4.0.
        push: Repository of a model hub, OWNER/NAME, to send the files to; safetensors must be among the formats.
        private: Make that repository private, if it does not exist.
        console: Where to say what is going on; by default nowhere.

    Returns:
        What was written, by format.

    Raises:
        ValueError, OSError, ModuleNotFoundError: As `export_segmenter`, `load_checkpoint`, `card_facts`, `check_push`
            and `rmiseg.exports.hub.push`.
    """
    console = console or Console(quiet=True)
    source = Path(run)
    checkpoint = load_checkpoint(source)
    names = [formats] if isinstance(formats, str) else formats
    chosen = {name: _format(name) for name in names}
    files = [file for each in chosen.values() for file in each.files]
    if push is not None:
        hub.check_push(push, files)
    folder = Path(out) if out is not None else (source if source.is_dir() else source.parent) / "export"
    check_free(folder, files, overwrite)
    check_room(folder)
    segmenter = Segmenter.from_checkpoint(checkpoint, model)
    if hub.CARD in files:
        segmenter.facts = hub.card_facts(source, checkpoint, license, console)
    elif license is not None:
        raise ValueError("a licence is for the model card, which safetensors writes: --format safetensors")
    exported = {}

    @functools.cache
    def read_images() -> list[Tensor]:
        split = checkpoint.load_split(checkpoint.data.train_split, None if root is None else str(root))
        places = spread(len(split), images)
        return [torch.from_numpy(split.read_image(place)).permute(2, 0, 1) for place in places]

    for name, each in chosen.items():
        with console.status(f"writing {name}, and comparing it with PyTorch"):
            exported[name] = _export(segmenter, each, folder, overwrite, read_images)
        print_exported(exported[name], console)
    if push is not None:
        with console.status(f"sending to {push}"):
            address = hub.push(push, folder, files, private)
        console.print(f"Sent to {address}", soft_wrap=True)
    return exported


def check_free(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """See whether nothing is in the way of files in a folder.

    Raises:
        FileExistsError: One exists, and `overwrite` is false.
        OSError: One is a folder, or a file is in the place of a folder.
    """
    check_places([(out / name).parent for name in names])
    existing = [out / name for name in names if (out / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists; use --overwrite true or another --out")
    check_places(files=existing)


def print_exported(exported: Exported, console: Console) -> None:
    """The files with their sizes, and how well they agree with PyTorch."""
    for path in exported.files:
        console.print(f"{path}  {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    if exported.agreement is not None:
        changed = 100 * (1 - exported.agreement)
        console.print(f"  {changed:.2f} % of the pixels of training images get another class than from PyTorch")
    else:
        console.print(f"  largest difference to PyTorch's logits: {exported.difference:.1e}")


def _format(name: str) -> ExportFormat | CalibratedFormat:
    component = find("export", name)
    require_for_export(name)
    made: ExportFormat | CalibratedFormat = component.make()
    return made


def _export(
    segmenter: Segmenter,
    format: ExportFormat | CalibratedFormat,
    out: Path,
    overwrite: bool,
    read_images: Callable[[], Sequence[Tensor]],
) -> Exported:
    check_free(out, format.files, overwrite)
    writable_folder(out)
    remove_leftovers(out, format.files)
    files = tuple(out / name for name in format.files)
    if not _is_calibrated(format):
        return Exported(files, format.write(segmenter.eval(), out))
    images = read_images()
    if len(images) < 2:
        raise ValueError(f"this format needs two training images or more to measure and compare on, not {len(images)}")
    return Exported(files, None, format.write(segmenter.eval(), out, images))


def _is_calibrated(format: ExportFormat | CalibratedFormat) -> TypeIs[CalibratedFormat]:
    return getattr(format, "calibrated", False)
