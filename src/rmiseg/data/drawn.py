"""Masks that a data set does not hold as files, but describes: drawn once, and kept in the user's cache.

The cache is $RMISEG_CACHE, or rmiseg in $XDG_CACHE_HOME, or ~/.cache/rmiseg. It can be deleted at any time. A folder
in it belongs to one annotation file, as it was then: another size or time of the file means another folder. Drawing
that was interrupted goes on where it was; several processes may draw at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from rmiseg.runtime.files import replacing
from rmiseg.runtime.progress import track

FORMAT = 1  # to be raised when the same annotations give other masks
Drawing: TypeAlias = Callable[[], NDArray[np.uint8] | None]
"""Makes one mask (H, W) uint8; None if the image is to be left out."""


def drawn_masks(
    annotations: Path, kind: str, drawings: Callable[[dict[str, Any]], dict[str, Drawing]]
) -> list[tuple[str, Path]]:
    """The masks that an annotation file describes.

    Args:
        annotations: A JSON file.
        kind: What is drawn, since one file may be drawn in several ways.
        drawings: Called with the content of the file, if the cache lacks it; returns what draws each image, by name.

    Returns:
        Names of images, as `drawings` gave them, and the mask of each; without those that were left out.

    Raises:
        ValueError: the file is damaged, or not what it should be.
    """
    stat = annotations.stat()
    key = hashlib.blake2b(f"{FORMAT} {kind} {stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=6).hexdigest()
    folder = cache_folder() / "masks" / f"{annotations.stem}-{kind}-{key}"
    index = folder / "images.json"  # written last: where it is, all masks are
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        names = _draw(annotations, folder, drawings)
        with replacing(index) as temporary:
            temporary.write_text(json.dumps(names))
    return [(name, _mask_path(folder, name)) for name in json.loads(index.read_text())]


def cache_folder() -> Path:
    """Return the folder of files that can be made again, see the top of this file."""
    if own := os.environ.get("RMISEG_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rmiseg"


def _draw(annotations: Path, folder: Path, drawings: Callable[[dict[str, Any]], dict[str, Drawing]]) -> list[str]:
    console = Console(stderr=True)
    console.print(f"Drawing the masks of {annotations}, once, into {folder}", soft_wrap=True, highlight=False)
    names = []
    try:
        work = drawings(json.loads(annotations.read_bytes()))
        for name, draw in track(work.items(), f"drawing {annotations.stem}", console, total=len(work)):
            path = _mask_path(folder, name)
            if not path.exists():
                mask = draw()
                if mask is None:
                    continue
                with replacing(path) as temporary:
                    Image.fromarray(mask).save(temporary, format="PNG")
            names.append(name)
    except json.JSONDecodeError as error:
        raise ValueError(f"{annotations} is damaged, it may be cut short: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{annotations} does not hold the annotations that its name says: {type(error).__name__} {error}"
        ) from error
    return names


def _mask_path(folder: Path, name: str) -> Path:
    return folder / PurePosixPath(name).with_suffix(".png").as_posix().replace("/", "-")
