"""The files that `rmiseg predict` writes, whole or row by row."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from rmiseg.config.recipes import shortened
from rmiseg.data import ClassTable
from rmiseg.data.classes import id_colors
from rmiseg.data.sets import cityscapes, voc
from rmiseg.inference.geotiff import TIFF, tiff_writer
from rmiseg.inference.pictures import colorize, overlay
from rmiseg.runtime.files import replacing
from rmiseg.runtime.words import some

PNG_COLOR_TYPES = {"L": 0, "RGB": 2, "P": 3}


@dataclass(frozen=True)
class PictureFormat:
    """A kind of picture.

    Attributes:
        mode: Pillow's name of a PNG: L (gray), P (palette) or RGB; or TIFF.
        path: Where the picture of an image is in the folder of the results, by the name of the image.
        render: From rows of the image (rows, W, 3) and their class ids (rows, W) to rows of the picture.
    """

    mode: str
    path: Callable[[Path], Path]
    render: Callable[[np.ndarray, np.ndarray], np.ndarray]


def picture_formats(names: Sequence[str], classes: ClassTable, opacity: float) -> dict[str, PictureFormat]:
    """The formats by the names that `rmiseg predict --write` has for them; probabilities are no picture.

    Raises:
        ValueError: The classes are not those of the test server, or the opacity is not from 0 to 1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, not {opacity}")
    label_ids = np.zeros(256, np.uint8)
    if "voc" in names:
        _same_classes("voc", classes, voc.CLASSES)
    if "cityscapes" in names:
        table = cityscapes.CLASSES["labelIds"]
        _same_classes("cityscapes", classes, table)
        label_ids[: len(table)] = table.values
    formats = {
        "index": PictureFormat("P", partial(_below, "index"), lambda pixels, ids: ids),
        "gray": PictureFormat("L", partial(_below, "gray"), lambda pixels, ids: ids),
        "color": PictureFormat("RGB", partial(_below, "color"), lambda pixels, ids: colorize(ids, classes)),
        "overlay": PictureFormat(
            "RGB", partial(_below, "overlay"), lambda pixels, ids: overlay(pixels, ids, classes, opacity)
        ),
        "geotiff": PictureFormat(TIFF, lambda name: Path("geotiff", f"{name}.tif"), lambda pixels, ids: ids),
        # comp6 is the competition in which other data may be trained on, be it ImageNet.
        "voc": PictureFormat(
            "P",
            lambda name: Path("results/VOC2012/Segmentation/comp6_test_cls", f"{name.name}.png"),
            lambda pixels, ids: ids,
        ),
        # The server finds the picture of an image by the beginning of its name: city, sequence and frame.
        "cityscapes": PictureFormat(
            "L",
            lambda name: Path("cityscapes", f"{name.name.removesuffix('_leftImg8bit')}_labelIds.png"),
            lambda pixels, ids: label_ids[ids],
        ),
    }
    return {name: formats[name] for name in dict.fromkeys(names) if name in formats}


def probabilities_path(name: Path) -> Path:
    """Return where the probabilities of an image are in the folder of the results."""
    return Path("probabilities", f"{name}.npz")


def save_probabilities(path: Path, probabilities: np.ndarray, classes: ClassTable) -> None:
    """Write probabilities (C, H, W) as float16, beside the names of the classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, probabilities=probabilities.astype(np.float16), classes=np.array(classes.names))


def _below(folder: str, name: Path) -> Path:
    return Path(folder, f"{name}.png")


def _same_classes(name: str, classes: ClassTable, expected: ClassTable) -> None:
    if classes.names != expected.names:
        raise ValueError(
            f"--write {name} is for models of the {len(expected)} classes {some(expected.names, 3)}; this "
            f"one has {len(classes)}: {shortened(', '.join(classes.names), 100)}"
        )


class Pictures:
    """The pictures of one image, which are written as its rows come.

    Args:
        paths: A file for each of `formats`.
        formats: The kinds of pictures.
        size: Height and width of the image.
        classes: The classes, for the palette.
        geography: Tags that say where on earth the image lies, see `geography_of`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        formats: Sequence[PictureFormat],
        size: tuple[int, int],
        classes: ClassTable,
        geography: Sequence[Any] = (),
    ) -> None:
        self.stack = ExitStack()
        self.formats = formats
        self.writers = []
        with ExitStack() as stack:
            for path, each in zip(paths, formats):
                path.parent.mkdir(parents=True, exist_ok=True)
                palette = id_colors(classes).tobytes()
                if each.mode == TIFF:
                    writer = tiff_writer(path, size, palette, geography)
                else:
                    writer = png_writer(path, size, each.mode, palette)
                self.writers.append(stack.enter_context(writer))
            self.stack = stack.pop_all()

    def write(self, pixels: np.ndarray, ids: np.ndarray) -> None:
        """Write the next rows: of the image (rows, W, 3), and of the class ids (rows, W)."""
        for writer, each in zip(self.writers, self.formats):
            writer(each.render(pixels, ids))

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.__exit__(*error)  # type: ignore[arg-type]


@contextmanager
def png_writer(
    path: Path, size: tuple[int, int], mode: str, palette: bytes = b""
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a PNG row by row, which Pillow does not.

    The file appears, whole, at the end; on an error, or when rows are missing, it does not.

    Args:
        path: The file.
        size: Height and width.
        mode: L, RGB or P.
        palette: The colors of mode P.

    Yields:
        A function that takes the next rows, uint8 (rows, W) or, of RGB, (rows, W, 3).
    """
    height, width = size
    # Photographs take five times as long at level 6, for files a fifth smaller; class ids take no time at any.
    packer = zlib.compressobj(1 if mode == "RGB" else 6)
    written = 0
    above = np.zeros((1, width * (3 if mode == "RGB" else 1)), np.uint8)

    with replacing(path) as temporary, open(temporary, "wb") as file:

        def write(rows: np.ndarray) -> None:
            nonlocal written, above
            flat = rows.reshape(len(rows), -1)
            if mode == "RGB":  # photographs pack better as differences to the row above (filter 2)
                flat, above = flat - np.concatenate([above, flat[:-1]]), flat[-1:]
            lines = np.empty((len(flat), flat.shape[1] + 1), np.uint8)
            lines[:, 0] = 2 if mode == "RGB" else 0
            lines[:, 1:] = flat
            _chunk(file, b"IDAT", packer.compress(lines.data))
            written += len(rows)

        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, PNG_COLOR_TYPES[mode], 0, 0, 0))
        if mode == "P":
            _chunk(file, b"PLTE", palette)
        yield write
        if written != height:
            raise ValueError(f"{written} of {height} rows were written to {path}")
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
