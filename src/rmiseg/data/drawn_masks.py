"""Masks that a data set does not hold as files, but describes: drawn once, and kept in the user's cache.

The cache is $RMISEG_CACHE, or rmiseg in $XDG_CACHE_HOME, or ~/.cache/rmiseg. It can be deleted at any time. A folder
in it belongs to one annotation file, as it was then: another place or another content means another folder. Drawing
that was interrupted goes on where it was; several processes may draw at once, and each starts others to help it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from rmiseg.runtime.cores import made_by, usable_cores
from rmiseg.runtime.files import replacing, write_text
from rmiseg.runtime.progress import track

FORMAT = 2  # to be raised when the same annotations give other masks
Drawing: TypeAlias = Callable[[], NDArray[np.uint8] | None]
"""Makes one mask (H, W) uint8; None if the image is to be left out."""
WORTH_A_PROCESS = 200
"""Masks for which it is worth while to start a process that draws."""


def drawn_masks(
    annotations: Path,
    kind: str,
    drawings: Callable[[dict[str, Any]], dict[str, Drawing]],
    segments: Path | None = None,
) -> list[tuple[str, Path]]:
    """The masks that an annotation file describes.

    Args:
        annotations: A JSON file.
        kind: What is drawn, since one file may be drawn in several ways.
        drawings: Called with the content of the file, if the cache lacks it; returns what draws each image, by name.
        segments: Folder of files that the masks are drawn from too; with another size or time of one, they are drawn
            again.

    Returns:
        Names of images, as `drawings` gave them, and the mask of each; without those that were left out.

    Raises:
        ValueError: the file is damaged, or not what it should be.
    """
    folder = cache_folder() / "masks" / f"{annotations.stem}-{kind}-{_key(annotations, kind, segments)}"
    index = folder / "images.json"  # written last: where it is, all masks are
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        names = _draw(annotations, folder, drawings)
        write_text(index, json.dumps(names))
    return [(name, _mask_path(folder, name)) for name in json.loads(index.read_text())]


def _key(annotations: Path, kind: str, segments: Path | None) -> str:
    """Digest of all that the masks depend on, and of where it is: a copy elsewhere may go another way."""
    key = hashlib.blake2b(f"{FORMAT} {kind} ".encode() + os.fsencode(annotations.resolve()), digest_size=16)
    with open(annotations, "rb") as file:  # not its size and time, which two roots may share
        key.update(hashlib.file_digest(file, "blake2b").digest())
    if segments is not None:
        with os.scandir(segments) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                stat = entry.stat()
                key.update(os.fsencode(entry.name) + f"/{stat.st_size} {stat.st_mtime_ns}/".encode())
    return key.hexdigest()


def cache_folder() -> Path:
    """Return the folder of files that can be made again, see the top of this file."""
    if own := os.environ.get("RMISEG_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rmiseg"


def _draw(annotations: Path, folder: Path, drawings: Callable[[dict[str, Any]], dict[str, Drawing]]) -> list[str]:
    console = Console(stderr=True)
    console.print(f"Drawing the masks of {annotations}, once, into {folder}", soft_wrap=True, highlight=False)
    try:
        work = list(drawings(json.loads(annotations.read_bytes())).items())
        made = made_by(partial(_drawn, folder=folder), work, min(usable_cores(), len(work) // WORTH_A_PROCESS))
        kept = track(made, f"drawing {annotations.stem}", console, total=len(work))
        return [name for is_kept, (name, _) in zip(kept, work) if is_kept]
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{annotations} is damaged, it may be cut short: {error}") from error
    except ValueError as error:
        raise ValueError(f"{annotations}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{annotations} does not hold the annotations that its name says: {type(error).__name__} {error}"
        ) from error


def _drawn(entry: tuple[str, Drawing], folder: Path) -> bool:
    """Draw the mask of an image, unless it is there; False if the image is to be left out."""
    name, draw = entry
    path = _mask_path(folder, name)
    if path.exists():
        return True
    mask = draw()
    if mask is not None:
        with replacing(path) as temporary:
            Image.fromarray(mask).save(temporary, format="PNG")
    return mask is not None


def _mask_path(folder: Path, name: str) -> Path:
    return folder / PurePosixPath(name).with_suffix(".png").as_posix().replace("/", "-")
