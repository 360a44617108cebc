"""Anybody's own images and masks, in folders.

    root/
      dataset.yaml                     names of the classes, see `read_description`
      images/  a.jpg  b.png ...        or  images/train/  images/val/ ...
      masks/   a.png  b.png ...        or  masks/train/   masks/val/ ...

Other names and layouts that are understood stand in `rmiseg.data.sets.places`. An image and its mask have the same
path below their folders, but for the suffix, or paths that differ in the same way throughout, see
`rmiseg.data.sets.pairing`.
Splits are, in this order of precedence:

1. lists: root/train.txt, val.txt, test.txt, trainval.txt; a line is the path of an image below images/, with or
   without its suffix;
2. subfolders of images/, one a split, if one is called train, val or test; or folders with images/ and masks/ in them;
3. neither, or none for val: train and val are made. The images that the option `val` names are val; without it a fifth
   of the images, those whose names have the lowest hash. This depends on nothing but the names. Neighboring frames of a
   video are too alike to be on both sides: name whole sequences, as a training without a recipe does
   (`rmiseg.planning.splits`).

Images of test may have no masks: they can be predicted.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable
from rmiseg.data.description import read_description
from rmiseg.data.held_out import named
from rmiseg.data.image_files.volumes import is_volume, misplaced, slices_of
from rmiseg.data.images import Sample, Split
from rmiseg.data.sets.layout import Layout
from rmiseg.data.sets.listing import read_lines
from rmiseg.data.sets.pairing import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    Listing,
    describe_others,
    folded,
    index_files,
    is_called_mask,
    pair,
    parted,
    walk,
    why_unpaired,
)
from rmiseg.data.sets.places import Place, choice_notes, find_places, has_list, list_of, stray_lists, unusual_notes


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
        self._places: dict[Path, tuple[dict[str, Place], list[str]]] = {}

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """The splits, see the top of this file, and what they need; only of test, masks may be missing."""
        parts: dict[str, tuple[Path, ...]] = {}
        for split, place in self._found_places(root)[0].items():
            lists = [list_of(root, split)] if has_list(root, split) else []
            masks = [place.masks] if split != "test" or place.masks.is_dir() else []
            parts[split] = (*lists, place.images, *masks)
        return parts

    def _found_places(self, root: Path) -> tuple[dict[str, Place], list[str]]:
        if root not in self._places:
            self._places[root] = find_places(root)
        return self._places[root]

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up.

        Raises:
            ValueError: dataset.yaml is missing or wrong.
        """
        places, decisions = self._found_places(root)
        place = places[split]
        listed = has_list(root, split)
        made = _is_made(root, split, places)
        images, masks, pairs, notes = self._found(place)
        problems = [*images.problems, *masks.problems]
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
        others = [describe_others(images, place.images, "images"), describe_others(masks, place.masks, "masks")]
        others += [stray_lists(root, place)] if made and self.val is None else []
        if not keys and not problems:
            others.append(_why_empty(root, split, place, images.files if made else {}, self.val))
        description = read_description(root, masks.files.values())
        paired = [Sample(key, images.files[key], masks.files[pairs[key]]) for key in keys if key in pairs]
        samples = in_slices(paired, problems)
        unpaired = [key for key in keys if key not in pairs]
        if split == "test" and not samples and len(masks.files) == len(pairs):  # published without masks
            samples, unpaired = in_slices([Sample(key, images.files[key], None) for key in keys], problems), []
            notes = [*notes, "no image of test has a mask: they can be predicted, and not scored"]
        others += [why_unpaired(images.files, masks.files, pairs)] if unpaired else []
        return Split(
            name=split,
            samples=tuple(samples),
            classes=description.classes,
            images_without_mask=tuple(images.files[key] for key in unpaired),
            masks_without_image=tuple(masks.files[key] for key in lonely),
            problems=tuple(problems),
            notes=(*decisions, *unusual_notes(root, split, place), *choice_notes(place, len(masks.files)), *notes),
            warnings=tuple(other for other in others if other),
            description=description,
            bands=description.bands,
        )

    def makes_splits(self, root: Path) -> bool:
        """Tell whether nothing in a folder says which image belongs to which split."""
        places = self._found_places(root)[0]
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
            names, mask_names = self._names(place.images, place.below), self._names(place.masks, place.below)
            if place.images == place.masks:
                called = {name for name in names if is_called_mask(parted(name)[0])}
                mask_names = [name for name in names if name in called]
                names = [name for name in names if name not in called]
            images = index_files(place.images, names, IMAGE_SUFFIXES)
            masks = index_files(place.masks, mask_names, MASK_SUFFIXES)
            self._pairs[place] = (images, masks, *pair(images.files, masks.files))
        return self._pairs[place]

    def _names(self, folder: Path, below: str) -> list[str]:
        """Paths of the files in folder/below, from folder; each folder is listed once."""
        if folder not in self._files:
            self._files[folder] = walk(folder)
        names = self._files[folder]
        return [name for name in names if name.startswith(f"{below}/")] if below else names


def _is_made(root: Path, split: str, places: dict[str, Place]) -> bool:
    """Tell whether several splits lie in one folder, and nothing says which image belongs to which."""
    place = places[split]
    return list(places.values()).count(place) > 1 and not has_list(root, split)


def _why_empty(root: Path, split: str, place: Place, shared: Collection[str], val: Sequence[str] | None) -> str:
    """Say why a split is empty, which may share images with another, divided by the option val."""
    if has_list(root, split):
        return f"{list_of(root, split)} names no image"
    if shared and val is not None:
        return f"the option val names {'all images' if split == 'train' else 'none'}, so that none is left for {split}"
    if shared:
        return (
            "nothing says which image belongs to which split, and one image cannot be both, to learn from and to score "
            "on: cut it into tiles, or label another"
        )
    return f"{place.images / place.below} holds no image"


def read_classes(root: Path) -> ClassTable:
    """Return the classes of a data set; see `read_description`."""
    return read_description(root).classes


def in_slices(samples: Sequence[Sample], problems: list[str]) -> list[Sample]:
    """Put in the place of each volume its slices; what does not fit is added to the problems."""
    found: list[Sample] = []
    for sample in samples:
        image, mask = sample.image, sample.mask
        if not is_volume(image):
            found.append(sample)
            if mask is not None and is_volume(mask):
                problems.append(f"mask {mask} is a volume, and image {image} is none")
            continue
        try:
            if mask is not None and not is_volume(mask):
                raise ValueError(f"image {image} is a volume, and its mask {mask} is none")
            if mask is not None and (wrong := misplaced(image, mask)):
                raise ValueError(wrong)
            for each in slices_of(image):
                of_mask = None if mask is None else mask / each.name
                found.append(Sample(f"{sample.name}/{each.name}", each, of_mask))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return found


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape")).digest()


def _readings(name: str, root: Path, folder: Path) -> Iterator[str]:
    """Yield what a line of a list may be: a path from the folder of the images or of the data set, or a whole one."""
    yield name
    yield os.path.normpath(name).replace(os.sep, "/")
    yield os.path.relpath(root / name, folder).replace(os.sep, "/")


def _listed(root: Path, split: str, folder: Path, images: dict[str, Path], problems: list[str]) -> list[str]:
    by_file = {path.relative_to(folder).as_posix(): key for key, path in images.items()}
    by_form = {folded(key): key for key in images} | {folded(name): key for name, key in by_file.items()}

    def key_of(name: str) -> str | None:
        """The image of a line, if there is one."""
        found = (p if p in images else by_file.get(p) or by_form.get(folded(p)) for p in _readings(name, root, folder))
        return next((key for key in found if key is not None), None)

    keys: dict[str, int] = {}  # with the line of each
    path = list_of(root, split)
    for number, name in read_lines(path):
        where = f"{path}, line {number}"
        key = key_of(name)
        if key is None:
            first = re.split(r"[\s,;]+", name.strip("'\""))[0].strip("'\"")
            last = first.rpartition("/")[2]
            hint = f": a line names one image, such as {first!r}, whose mask is found by its name"
            if key_of(first) is None and key_of(last) is not None:
                hint = f": there is {last!r}; lines are paths from there, and not those of another machine"
            elif first == name or key_of(first) is None:
                hint = ""
            problems.append(f"{where}: there is no image {name!r} in {folder}{hint}")
        elif key in keys:
            problems.append(f"{where}: {name!r} is already in line {keys[key]}")
        else:
            keys[key] = number
    return list(keys)
