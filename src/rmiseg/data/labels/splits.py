"""Splits of imported images, and names for their files."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from pathlib import PurePosixPath

from rmiseg.data.labels.pictures import Picture
from rmiseg.data.labels.report import ImportReport
from rmiseg.data.sets.pairing import folded

DOUBTFUL = re.compile(r'[\x00-\x1f<>:"|?*]')
"""Characters that file systems do not take."""
LONGEST = 150
"""Bytes that a name may have, beside a suffix."""


def assign_splits(pictures: list[Picture], share: float, report: ImportReport) -> None:
    """Give each image its split: that of the source, or train and val.

    Which of them are val depends on their names alone, so that an image stays in its split when others are added.

    Args:
        pictures: The images.
        share: Share of the images without a split, or of those of train if there is no val, that become val.
        report: Where what was decided is noted.
    """
    given = {picture.split for picture in pictures} - {""}
    if given and "train" not in given:
        report.notes.append(f"the source has no split train, but {', '.join(sorted(given))}: images are divided anew")
        for picture in pictures:
            picture.split = ""
    for picture in pictures:
        picture.split = picture.split or "train"
    if any(picture.split == "val" for picture in pictures):
        return
    train = sorted((picture for picture in pictures if picture.split == "train"), key=_draw)
    if share == 0:
        return
    if len(train) < 2:
        report.notes.append("there is no split val, for which two images are needed")
        return
    count = sum(_draw(picture) < share for picture in train)
    for picture in train[: min(max(count, 1), len(train) - 1)]:
        picture.split = "val"


def _draw(picture: Picture) -> float:
    """A number from 0 to 1 that an image has by its name."""
    name = PurePosixPath(picture.labels.reference.replace("\\", "/")).name
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def unique_names(pictures: list[Picture]) -> list[str]:
    """Return the name of each image's files, without suffix: its own, with folders before it where two are alike."""
    names = [_parts(picture)[-1] for picture in pictures]
    for depth in range(2, 6):
        counts = Counter((picture.split, folded(name)) for picture, name in zip(pictures, names))
        if max(counts.values()) == 1:
            return names
        names = [
            "_".join(_parts(picture)[-depth:]) if counts[picture.split, folded(name)] > 1 else name
            for picture, name in zip(pictures, names)
        ]
    taken = set()
    for index, (picture, name) in enumerate(zip(pictures, names)):
        numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
        names[index] = next(each for each in numbered if (picture.split, folded(each)) not in taken)
        taken.add((picture.split, folded(names[index])))
    return names


def _parts(picture: Picture) -> list[str]:
    path = picture.path or PurePosixPath(picture.labels.reference.replace("\\", "/"))
    parts = [DOUBTFUL.sub("_", part) for part in path.with_suffix("").parts if part not in ("/", "..")]
    return [*parts[:-1], _short(parts[-1].lstrip(".") or "image")]


def _short(name: str) -> str:
    encoded = name.encode(errors="surrogateescape")
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.blake2b(encoded, digest_size=6).hexdigest()
    return f"{encoded[: LONGEST - 13].decode(errors='ignore')}-{digest}"
