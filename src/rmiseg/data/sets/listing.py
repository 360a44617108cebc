"""Helpers of the data set modules: reading lists of names, and pairing images with masks."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rmiseg.config.recipes import read_text
from rmiseg.data.classes import ClassTable
from rmiseg.data.images import Sample, Split


class Entry(NamedTuple):
    """An image that should exist, and its mask, likewise; no mask where the split is for prediction only.

    ``source`` says what refers to the image, such as "train.txt, line 3".
    """

    name: str
    image: Path
    mask: Path | None
    source: str = ""


def first_existing(*paths: Path) -> Path:
    """The first of several places that exists; if none does, the first place."""
    return next((path for path in paths if path.exists()), paths[0])


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list with their numbers, without blank ones.

    Any line ending, surrounding blanks, a byte order mark, UTF-8 and UTF-16, and Windows' backslashes are understood.

    Raises:
        ValueError: the file is no such text.
    """
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, stripped.replace("\\", "/")) for number, line in lines if (stripped := line.strip())]


def pair_up(
    split: str,
    classes: ClassTable,
    entries: Iterable[Entry],
    masks: Iterable[Path] = (),
    problems: Iterable[str] = (),
) -> Split:
    """Sort entries into samples and what is wrong.

    Args:
        split: Name of the split.
        classes: The classes.
        entries: The images that the split should have.
        masks: All masks that lie where those of the split belong; one that no entry names has lost its image.
        problems: What is known to be wrong already.
    """
    exists = _existence()
    problems = list(problems)
    samples: dict[str, Sample] = {}
    unmasked: list[Path] = []
    named: set[Path | None] = set()
    for name, image, mask, source in entries:
        named.add(mask)
        if name in samples:
            problems.append(f"{image} is listed twice, the second time in {source}")
        elif ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            problems.append(f"{name!r}, listed in {source}, leads outside of the data set")
        elif not exists(image):
            problems.append(f"{image} is listed in {source}, but does not exist")
        elif mask is not None and not exists(mask):
            unmasked.append(image)
        else:
            samples[name] = Sample(name, image, mask)
    if lonely := sorted(set(masks) - named):
        problems.append(f"{len(lonely)} masks have no image, such as {lonely[0]}: are the images half unpacked?")
    return Split(split, tuple(samples.values()), classes, tuple(unmasked), problems=tuple(problems))


def _existence() -> Callable[[Path], bool]:
    """A test whether a file exists that looks at each folder once: asking for each file is slow on network drives."""

    @functools.cache
    def names(folder: Path) -> frozenset[str]:
        try:
            return frozenset(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    return lambda path: path.name in names(path.parent)
