"""The files that a labelling tool exported, read strictly; they name no file outside of their folder."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rmiseg.config.recipes import read_text, read_yaml, shortened
from rmiseg.data.sets.pairing import ARCHIVES, IMAGE_SUFFIXES, folded, walk
from rmiseg.data.spread import spread
from rmiseg.runtime.files import parse_json

JSON_SUFFIXES = (".json", ".geojson")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Words in the names of files and folders that say of which split they are."""
IMPORT_FILE = "import.json"
"""File that says from where a data set was imported; a folder with it may be replaced, and is no source."""
HASHED = re.compile(r"^[0-9a-f]{8}-")
"""Beginning that Label Studio gives the names of images."""


class Documents:
    """The files of a source.

    Args:
        source: A folder, or one file.
        images: Folder of the images, if they are not in the source.

    Attributes:
        damaged: Reasons why files cannot be read, of those that were looked at to recognize the format.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It is an archive.
    """

    def __init__(self, source: Path, images: Path | None = None) -> None:
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist; name the file or folder that the labelling tool wrote")
        if source.is_file() and source.suffix.lower() in ARCHIVES:
            raise ValueError(
                f"{source} is an archive: unpack it, and name the folder. Of regions of ImageJ (RoiSet.zip) name that "
                "which it lies in"
            )
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"the folder of images {images} does not exist")
        self.source = source
        self.root = source if source.is_dir() else source.parent
        self.images = images
        self.damaged: dict[Path, str] = {}
        self._json: dict[Path, Any] = {}

    @cached_property
    def names(self) -> list[str]:
        """Paths of all files below the folder, sorted; of one file, its name."""
        return _walked(self.root) if self.source.is_dir() else [self.source.name]

    def files(self, *suffixes: str) -> list[Path]:
        """Return the files of some suffixes, in lower case."""
        return [self.root / name for name in self.names if name.lower().endswith(suffixes)]

    def image_files(self) -> list[Path]:
        """Return all images of the source, and of the folder of images."""
        others = [self.images / name for name in _walked(self.images)] if self.images else []
        return [path for path in [*self.files(*IMAGE_SUFFIXES), *others] if path.suffix.lower() in IMAGE_SUFFIXES]

    def split_of(self, path: Path) -> str:
        """Return the split that the name of a file, or else of a folder of it, says; "" if none does."""
        for part in reversed(path.relative_to(self.root).with_suffix("").parts):
            for word in re.split(r"[^a-z]+", part.lower()):
                if word in SPLITS:
                    return SPLITS[word]
        return ""

    def split_of_folder(self, path: Path) -> str:
        """Return the split that a folder of a file says, whose own name is that of an image; "" if none does."""
        return self.split_of(path.parent / "_")

    def json(self, path: Path) -> Any:
        """Read a JSON file.

        Raises:
            ValueError: It is damaged, not UTF-8, or holds numbers that are none.
        """
        if path not in self._json:
            if len(self._json) > 100:  # of which many are small, and few are large
                self._json.clear()
            self._json[path] = read_json(path)
        return self._json[path]

    def peek(self, most: int = 20) -> list[Any]:
        """Return the contents of a few JSON files, from the first to the last, as far as they can be read."""
        found, paths = [], self.files(*JSON_SUFFIXES)
        for path in [paths[index] for index in spread(len(paths), most)]:
            try:
                found.append(self.json(path))
            except ValueError as error:  # if it is of the format that is found, reading says so
                self.damaged.setdefault(path, str(error))
        return found

    def find_image(self, reference: str, document: Path) -> Path | None:
        """Find an image that a document names.

        It is looked up from the document, then in the folder of images, then by its name alone, wherever it is below
        these folders. Addresses of servers are looked up by their name alone.

        Returns:
            The file; None if there is none of that name.

        Raises:
            ValueError: The reference leads outside of the folders, or there are several images of that name.
        """
        name = self._relative(reference, document)
        folders = [document.parent, self.root, *([self.images] if self.images else [])]
        places = [Path(os.path.normpath(folder / name)) for folder in folders]
        for found in places:
            if self.is_inside(found) and found.is_file():
                return found
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
        last = parts[-1] if parts else ""
        # Where a path leads outside, only the folder that somebody named is searched for the name alone.
        outside = PurePosixPath(name).is_absolute() or not self.is_inside(
            Path(os.path.normpath(document.parent / name))
        )
        index = self._images_of_images if outside else self._images_by_name
        candidates = index.get(last) or index.get(HASHED.sub("", last)) or index.get(f"/{_plain(last)}") or []
        if not candidates and not last.lower().endswith(IMAGE_SUFFIXES):  # as CVAT calls the frames of a video
            candidates = index.get(f"/{_plain(last)}/") or []
            there = ([each for each in candidates if each.with_suffix("") == place] for place in places)
            candidates = next(filter(None, there), candidates)
        if len(candidates) > 1:
            candidates = most_alike(parts, candidates)
        if len(candidates) > 1:
            raise ValueError(
                f"{document} names the image {_shown(reference)}, of which there are several: {candidates[0]} and "
                f"{candidates[1]}; leave one, or name its folder with --images"
            )
        if outside and not candidates:
            raise ValueError(
                f"{document} names the image {_shown(reference)}, which lies outside of {self.root} and is not read: "
                f"name the folder of the images with --images"
            )
        return candidates[0] if candidates else None

    def _relative(self, reference: str, document: Path) -> str:
        """The path of a reference with forward slashes; of an address, what names the image in it."""
        name = reference.replace("\\", "/")
        if "\0" in name or not name.strip("/. "):
            raise ValueError(f"{document} names the image {_shown(reference)}, which is no name of a file")
        address = urlsplit(name) if re.match(r"[a-z][a-z0-9+-]+://|/data/", name) else None
        if address is None:
            return name[2:] if re.match(r"[A-Za-z]:", name) else name
        local = parse_qs(address.query).get("d", [""])[0]
        # Only the last part says something here; the rest is a place on a server.
        return local.lstrip("/") or PurePosixPath(unquote(address.path)).name

    def is_inside(self, path: Path) -> bool:
        """Tell whether a path lies below the folder, or below that of the images."""
        folders = [self.root, *([self.images] if self.images else [])]
        return any(Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)) for folder in folders)

    @cached_property
    def _images_by_name(self) -> dict[str, list[Path]]:
        below = [self.root / name for name in _walked(self.root)]
        return _by_name([*below, *([self.images / name for name in _walked(self.images)] if self.images else [])])

    @cached_property
    def _images_of_images(self) -> dict[str, list[Path]]:
        return _by_name([self.images / name for name in _walked(self.images)] if self.images else [])


def _walked(folder: Path) -> list[str]:
    """Paths of all files below a folder, but for data sets that an earlier import wrote there."""
    names = walk(folder)
    made = tuple(name.removesuffix(IMPORT_FILE) for name in names if name.endswith(f"/{IMPORT_FILE}"))
    return [name for name in names if not name.startswith(made)] if made else names


def _plain(name: str) -> str:
    """A name without what systems make of it: of addresses, of uploads, of other capitals and forms of Unicode."""
    return folded(HASHED.sub("", unquote(name.partition("?")[0])).replace(" ", "_"))


def _by_name(paths: list[Path]) -> dict[str, list[Path]]:
    """Images by their names, behind a slash, which no name holds, by these as they are `_plain`, and without suffix."""
    index: dict[str, list[Path]] = {}
    for path in dict.fromkeys(Path(os.path.normpath(path)) for path in paths):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            index.setdefault(path.name, []).append(path)
            index.setdefault(f"/{_plain(path.name)}", []).append(path)
            index.setdefault(f"/{_plain(path.stem)}/", []).append(path)
    return index


def most_alike(parts: Sequence[str], candidates: list[Path]) -> list[Path]:
    """Return those of several files whose last folders are most like those of a path, which is given in parts."""

    def alike(path: Path) -> int:
        pairs = zip(reversed(parts[:-1]), reversed(path.parts[:-1]))
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(parts), len(path.parts)) - 1)

    most = max(map(alike, candidates), default=0)
    return [path for path in candidates if alike(path) == most]


def _shown(reference: str) -> str:
    return shortened(repr(reference), 200)


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not blank, without blanks around them; see `read_text`."""
    return [stripped for line in read_text(path).splitlines() if (stripped := line.strip())]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: It is damaged, not UTF-8, names a key twice, or holds NaN or Infinity.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        message = str(error)
        is_whole = message.startswith("it is ")
        raise ValueError(f"{path} {message.removeprefix('it ')}" if is_whole else f"{path}: {message}") from error


def read_xml(path: Path) -> ElementTree.Element:
    """Read an XML file.

    Raises:
        ValueError: It is damaged, not UTF-8, or declares entities.
    """
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path} declares a document type or entities, which labels do not need; it is not read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is damaged, it may be cut short: {error}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ValueError: It holds something else.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold names and values, not {shortened(repr(content), 100)}")
    return {str(key): value for key, value in content.items()}
