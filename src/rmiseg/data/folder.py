"""Anybody's own images and masks, in folders.

    root/
      dataset.yaml                     names of the classes, see `read_description`
      images/  a.jpg  b.png ...        or  images/train/  images/val/ ...
      masks/   a.png  b.png ...        or  masks/train/   masks/val/ ...

masks/ may be called labels/ or annotations/. Likewise train/images/ and train/masks/, val/images/ and val/masks/, ...;
and imagesTr/ and labelsTr/, imagesTs/ and labelsTs/. The split val may lie in folders called valid or validation.

An image and its mask have the same path below their folders, but for the suffix, or paths that differ in the same way
throughout, see `rmiseg.data.pairing`. Splits are, in this order of precedence:

1. lists: root/train.txt, val.txt, test.txt, trainval.txt; a line is the path of an image below images/, with or
   without its suffix;
2. subfolders of images/, one a split; or folders with images/ and masks/ in them;
3. neither: train and val are made. The images that the option `val` names are val; without it a fifth of the images,
   those whose names have the lowest hash. This depends on nothing but the names. Neighboring frames of a video are too
   alike to be on both sides: name whole sequences, as a training without a recipe does (`rmiseg.planning.splits`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable
from rmiseg.data.description import read_description
from rmiseg.data.held_out import named
from rmiseg.data.images import Sample, Split
from rmiseg.data.layout import Layout
from rmiseg.data.listing import first_existing, read_lines
from rmiseg.data.pairing import (
    IMAGE_SUFFIXES,
    LOSSY_SUFFIXES,
    MASK_SUFFIXES,
    Listing,
    describe_others,
    folded,
    index_files,
    pair,
    walk,
)

LISTS = ("train", "val", "test", "trainval")
OTHER_NAMES = {"val": ("valid", "validation"), "train": ("training",), "test": ("testing",)}
"""Other names that folders of the splits have elsewhere."""
MASK_FOLDERS = ("masks", "labels", "annotations")


class Place(NamedTuple):
    """Folders of the images and masks of a split, or of all.

    Attributes:
        images: Folder of the images.
        masks: Folder of the masks.
        below: Folder in both that holds the split; "" if they hold nothing else.
    """

    images: Path
    masks: Path
    below: str = ""


@dataclass
class FolderOptions:
    """Options of anybody's own folders."""

    val: list[str] | None = None
    """Names of the images of the split val, relative paths without suffix, where neither lists nor subfolders say it;
    the others are train. A name that ends in * stands for all that begin so. By default a fifth, those whose names have
    the lowest hash."""


@register("dataset", "folder", options=FolderOptions)
class Folder(Layout):
    """Anybody's own images and masks, see the top of this file.

    Args:
        val: See `FolderOptions`.
    """

    TREE = """
        {root}/
          dataset.yaml                 names of the classes
          images/  a.jpg  b.png ...    or images/train/, images/val/, ...
          masks/   a.png  b.png ...    or masks/train/, masks/val/, ...
    """

    def __init__(self, val: Sequence[str] | None = None) -> None:
        self.val = val
        self._files: dict[Path, list[str]] = {}
        self._pairs: dict[Place, tuple[Listing, Listing, dict[str, str], list[str]]] = {}

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """The splits, see the top of this file, and what they need."""
        return {
            split: (*([root / f"{split}.txt"] if _has_list(root, split) else []), place.images, place.masks)
            for split, place in self._places(root).items()
        }

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up.

        Raises:
            ValueError: dataset.yaml is missing or wrong.
        """
        places = self._places(root)
        place = places[split]
        listed = _has_list(root, split)
        made = _is_made(root, split, places)
        images, masks, pairs, notes = self._found(place)
        problems = [*images.problems, *masks.problems]
        if jpeg := next((first for suffix, (_, first) in masks.others.items() if suffix in LOSSY_SUFFIXES), None):
            problems.append(f"{jpeg} is a JPEG file, which does not keep mask values exactly: save masks as PNG")
        lonely = sorted(masks.files.keys() - set(pairs.values()))
        if listed:
            keys, lonely = _listed(root, split, place.images, images.files, problems), []
        elif made:
            val = self._val(images.files, problems)
            keys = [key for key in images.files if (key in val) == (split == "val")]
            lonely = lonely if split == "train" else []  # in neither split: name each once
        else:
            keys = list(images.files)
        if self.val is not None and not made:
            problems.append(
                f"the option val names {len(self.val)} images of the split val, but lists or folders in {root} say "
                "which image belongs to which split: leave data.options.val out, or remove those"
            )
        others = (describe_others(images, place.images, "images"), describe_others(masks, place.masks, "masks"))
        description = read_description(root, masks.files.values())
        return Split(
            name=split,
            samples=tuple(Sample(key, images.files[key], masks.files[pairs[key]]) for key in keys if key in pairs),
            classes=description.classes,
            images_without_mask=tuple(images.files[key] for key in keys if key not in pairs),
            masks_without_image=tuple(masks.files[key] for key in lonely),
            problems=tuple(problems),
            notes=(*_unusual(root, split, place), *_choice(place), *notes),
            warnings=tuple(other for other in others if other),
            description=description,
            bands=description.bands,
        )

    def makes_splits(self, root: Path) -> bool:
        """Tell whether nothing in a folder says which image belongs to which split."""
        places = self._places(root)
        return "val" in places and _is_made(root, "val", places)

    def _val(self, images: Iterable[str], problems: list[str]) -> set[str]:
        """The images of the split val, where nothing in the folder says it."""
        names = sorted(images)
        if self.val is None:
            return set(sorted(names, key=_hash)[: (len(names) + 3) // 5])  # of two images, one is val
        found, unknown = named(self.val, names)
        problems += [f"the option val names the image {entry!r}, and there is none of that name" for entry in unknown]
        return found

    def _found(self, place: Place) -> tuple[Listing, Listing, dict[str, str], list[str]]:
        """Images, masks, pairs, and what was decided on these; once for all splits that lie in the same place."""
        if place not in self._pairs:
            images = index_files(place.images, self._names(place.images, place.below), IMAGE_SUFFIXES)
            masks = index_files(place.masks, self._names(place.masks, place.below), MASK_SUFFIXES)
            self._pairs[place] = (images, masks, *pair(images.files, masks.files))
        return self._pairs[place]

    def _names(self, folder: Path, below: str) -> list[str]:
        """Paths of the files in folder/below, from folder; each folder is listed once."""
        if folder not in self._files:
            self._files[folder] = walk(folder)
        names = self._files[folder]
        return [name for name in names if name.startswith(f"{below}/")] if below else names

    def _places(self, root: Path) -> dict[str, Place]:
        folders = {entry.name for entry in os.scandir(root) if entry.is_dir()}
        inside = {name: _images_and_masks(root / name) for name in sorted(folders) if (root / name / "images").is_dir()}
        if "images" not in folders and inside:
            return {_usual_name(name, inside): place for name, place in _usual_first(inside).items()}
        if "images" not in folders and "imagesTr" in folders:
            train, test = (Place(root / f"images{part}", root / f"labels{part}") for part in ("Tr", "Ts"))
            splits = dict.fromkeys(_lists(root) or ["train", "val"], train)
            return {**splits, **({"test": test} if "imagesTs" in folders and "test" not in splits else {})}
        both = _images_and_masks(root)
        if lists := _lists(root):
            return dict.fromkeys(lists, both)
        names = self._names(both.images, "")
        subfolders = sorted({name.partition("/")[0] for name in names if "/" in name} | _folders(both.images))
        loose = (name for name in names if "/" not in name and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
        if subfolders and (stray := next(loose, None)):
            raise ValueError(
                f"{both.images} holds both subfolders ({', '.join(subfolders[:3])}) and images ({stray}): move "
                f"the images into the subfolders, which are the splits, or write the lists train.txt and val.txt"
            )
        divided = _usual_first({name: both._replace(below=name) for name in subfolders})
        return {_usual_name(name, divided): place for name, place in divided.items()} or dict.fromkeys(
            ("train", "val"), both
        )


def _is_made(root: Path, split: str, places: dict[str, Place]) -> bool:
    """Tell whether several splits lie in one folder, and nothing says which image belongs to which."""
    place = places[split]
    several = sum(each.images == place.images for each in places.values()) > 1
    return several and not place.below and not _has_list(root, split)


def read_classes(root: Path) -> ClassTable:
    """Return the classes of a data set; see `read_description`."""
    return read_description(root).classes


def _images_and_masks(folder: Path) -> Place:
    masks = first_existing(*(folder / name for name in MASK_FOLDERS))
    return Place(folder / "images", masks)


def _folders(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _lists(root: Path) -> list[str]:
    return [name for name in LISTS if _has_list(root, name)]


def _has_list(root: Path, split: str) -> bool:
    return (root / f"{split}.txt").is_file()


def _usual_name(name: str, folders: dict[str, Place]) -> str:
    """The split that lies in a folder of that name."""
    usual = next((split for split, others in OTHER_NAMES.items() if name.lower() in others), name)
    return name if usual in folders else usual


def _usual_first(folders: dict[str, Place]) -> dict[str, Place]:
    order = [name for split in LISTS for name in (split, *OTHER_NAMES.get(split, ())) if name in folders]
    return {name: folders[name] for name in [*order, *(name for name in folders if name not in order)]}


def _unusual(root: Path, split: str, place: Place) -> list[str]:
    """Say what was decided on the folders, if they are not called as usual."""
    if place.images == root / "images" and place.masks.name == "masks" and place.below in ("", split):
        return []
    folders = [(folder / place.below).relative_to(root).as_posix() for folder in (place.images, place.masks)]
    return [f"split {split}: images in {folders[0]}/, masks in {folders[1]}/"]


def _choice(place: Place) -> list[str]:
    """Say which folder was taken for the masks, if there are several."""
    others = [name for name in MASK_FOLDERS if name != place.masks.name and (place.masks.parent / name).is_dir()]
    return [f"masks are read from {place.masks}, and not from {' or '.join(others)}/ beside it"] if others else []


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape")).digest()


def _listed(root: Path, split: str, folder: Path, images: dict[str, Path], problems: list[str]) -> list[str]:
    by_file = {path.relative_to(folder).as_posix(): key for key, path in images.items()}
    by_form = {folded(key): key for key in images} | {folded(name): key for name, key in by_file.items()}
    keys: dict[str, int] = {}  # with the line of each
    for number, name in read_lines(root / f"{split}.txt"):
        where = f"{root / split}.txt, line {number}"
        key = name if name in images else by_file.get(name) or by_form.get(folded(name))
        if key is None:
            problems.append(f"{where}: there is no image {name!r} in {folder}")
        elif key in keys:
            problems.append(f"{where}: {name!r} is already in line {keys[key]}")
        else:
            keys[key] = number
    return list(keys)
