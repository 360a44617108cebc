"""Common parts of the export formats: the traced program, its metadata, and the comparison with PyTorch."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from rmiseg.data.classes import IGNORE_INDEX
from rmiseg.inference.segmenter import Segmenter
from rmiseg.runtime.files import remove_leftovers, replacing

TOLERANCE = 1e-4
"""Largest difference to PyTorch's logits, relative to the largest logit where that is above 1."""

TRACED_SIZE = (2, 129, 193)
"""Batch and sides of the images that a program is traced with: such that nothing is taken for constant.

No stride divides the sides, and they are odd before each of six halvings that round up. At a pooling with `ceil_mode`
AOTInductor (torch 2.15, `torch._inductor.lowering.pooling_size`) takes a size that is even in the trace for even in all
images, and the library does not check it: with other images it read and wrote beyond the end of its memory.
"""
COMPARED_SIZES = ((1, 120, 81), (3, 96, 160))


def metadata(segmenter: Segmenter) -> dict[str, str]:
    """Return what a user of an exported program needs to know; all but the plain words are JSON."""
    classes, network = segmenter.classes, segmenter.network
    in_order = segmenter.description.data.picture in (None, (1, 2, 3))
    kind = "RGB images" if network.in_channels == 3 and in_order else f"images of {network.in_channels} bands"
    return {
        "classes": json.dumps(classes.names),
        "palette": json.dumps(classes.palette),
        "ignore_index": json.dumps(IGNORE_INDEX),
        "model": segmenter.description.model.name,
        "members": json.dumps(segmenter.description.members),
        "backbone": segmenter.description.model.backbone or "",
        "input": f"{kind}, uint8 (batch, {network.in_channels}, height, width)",
        "output": "logits, float32 (batch, classes, height, width)",
        # The graph does it itself. The values are for whoever builds a preprocessing of their own.
        "normalization": "inside",
        "image_mean": json.dumps(network.image_mean),
        "image_std": json.dumps(network.image_std),
        "image_scale": json.dumps(segmenter.image_scale),
        # Values that become 0 and 255 in images of more than 8 bits, before they are the input: of all bands, or a pair
        # for each; null for none.
        "value_range": json.dumps(segmenter.description.data.value_range),
    }


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Keep the remarks of another package's logger to itself, but for errors."""
    logged = logging.getLogger(logger)
    level = logged.level
    logged.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logged.setLevel(level)


def traced(segmenter: Segmenter, largest: int | None = None) -> torch.export.ExportedProgram:
    """The program of a model, for batches and images of any size.

    Args:
        segmenter: The model.
        largest: Only for one image at a time, whose sides have at most so many pixels.
    """
    batch, *sides = TRACED_SIZE
    dynamic = torch.export.Dim.DYNAMIC(max=largest)
    shapes = {"image": {2: dynamic, 3: dynamic} if largest else {0: dynamic, 2: dynamic, 3: dynamic}}
    example = torch.zeros(1 if largest else batch, segmenter.network.in_channels, *sides, dtype=torch.uint8)
    with patch("timm.layers.padding.get_same_padding", _same_padding):
        return torch.export.export(segmenter, (example,), dynamic_shapes=shapes)


def _same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
    """timm's function of this name in integers: its float division and maximum are symbols that never get simpler."""
    extent = (kernel_size - 1) * dilation + 1
    padding = ((x + stride - 1) // stride - 1) * stride + extent - x
    return padding if extent >= stride else max(padding, 0)


def compare(
    segmenter: Segmenter,
    other: Callable[[Tensor], Tensor],
    name: str,
    sizes: Sequence[tuple[int, ...]] = COMPARED_SIZES,
) -> float:
    """Return the largest difference between the logits of two functions of images, on random images.

    Args:
        segmenter: The model.
        other: What was made of it.
        name: What to call that.
        sizes: Batch, height and width of the images.

    Raises:
        ValueError: They differ by more than `TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, *sides in sizes:
        size = (batch, segmenter.network.in_channels, *sides)
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


def agreement(segmenter: Segmenter, other: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> float:
    """The share of the pixels of images (3, H, W) uint8 to which both give the same class."""
    same = pixels = 0
    for image in images:
        with torch.no_grad():
            expected, found = (each(image.unsqueeze(0)).argmax(dim=1) for each in (segmenter, other))
        same += int((expected == found).sum())
        pixels += expected.numel()
    return same / pixels


@contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """A folder inside of `out`, removed at the end."""
    remove_leftovers(out, ["export"])
    folder = out / f".export.{os.getpid()}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_files(folder: Path, out: Path, names: Iterable[str]) -> None:
    """Copy files of a temporary folder to their places below `out`, each whole or not at all.

    A copy has the usual permissions, which files of such a folder have not.
    """
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(out / name) as temporary:
            shutil.copyfile(folder / Path(name).name, temporary)
