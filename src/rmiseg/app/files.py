"""Files to download: masks, and labels that labelling tools open."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rmiseg.app.views import Seen
from rmiseg.data.classes import ClassTable, index_image
from rmiseg.inference.labels import LabelFiles, writable_labels
from rmiseg.inference.sources import Source

MASK = "mask"
TOLERANCE = 1.0
"""Farthest that an outline may be from the edge of its region, in pixels, as in `rmiseg predict`."""


def kinds() -> list[str]:
    """Kinds of files that predictions can be downloaded as: masks, or a format of labels."""
    return [MASK, *writable_labels()]


def download(seen: Iterable[Seen], images: Sequence[Path], kind: str, classes: ClassTable) -> Path:
    """Write predictions into a folder of their own.

    Args:
        seen: A prediction of each image.
        images: The files of the images, of which the names count.
        kind: One of `kinds`: palette PNGs of class ids, or labels.
        classes: The classes.

    Returns:
        The file; a zip file if there are several.

    Raises:
        ModuleNotFoundError: The extra labels is not installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="rmiseg-"))
    stems = [image.stem for image in images]
    if len(set(stems)) < len(stems):
        stems = [f"{number:04}-{stem}" for number, stem in enumerate(stems)]
    if kind == MASK:
        files = [folder / f"{stem}.png" for stem in stems]
        for each, file in zip(seen, files):
            index_image(each.ids, classes).save(file)
    else:
        # As if each image lay beside its labels, where whoever downloads them puts it.
        sources = [Source(folder / kind / f"{stem}{image.suffix}", Path(stem)) for stem, image in zip(stems, images)]
        labels = LabelFiles(kind, sources, classes, TOLERANCE)
        for each, source in zip(seen, sources):
            labels.write(folder, source.name, each.ids)
        files = labels.finish(folder) or [folder / labels.path(source.name) for source in sources]
    return files[0] if len(files) == 1 else _zipped(files, folder / ("masks.zip" if kind == MASK else f"{kind}.zip"))


def _zipped(files: Sequence[Path], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
    return path
