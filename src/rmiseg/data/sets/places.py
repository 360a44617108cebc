"""Folders in which somebody's own images and masks lie, whatever they are called.

images/ + masks/                        also img/ + mask/, Images/ + Labels/, ...; divided into train/, val/, ...
train/images/ + train/masks/            and valid/, test/, ...
train/ + train_masks/                   also train_images/, masks_train/, imagesTr/ + labelsTr/, ...
images/a.png + images/a_mask.png        one folder that holds both, or the folder of the data set itself
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from rmiseg.data.sets.pairing import IMAGE_SUFFIXES, is_called_mask, is_unimportant
from rmiseg.runtime.words import some

LISTS = ("train", "val", "test", "trainval")
USUAL = {"train", "val", "test"}
"""Splits of which a data set in folders has one, or the folders are no splits."""
OTHER_NAMES = {"val": ("valid", "validation"), "train": ("training",), "test": ("testing",)}
"""Other names that folders of the splits have elsewhere."""
IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "jpegimages", "img_dir", "images_dir"),
    *("images_png", "inputs", "input", "photos"),
)
MASK_FOLDERS = (
    *("1st_manual", "masks", "labels", "annotations", "mask", "label", "annotation"),  # mask is less in DRIVE
    *("gt", "groundtruth", "ground_truth", "segmentationclass", "ann_dir", "masks_dir", "labels_dir"),
    *("masks_png", "targets", "target", "segmentations", "segmentation", "segmentationclasspng"),
)
"""Names of folders, in any capitals; the first that exists is taken."""

SPLIT_WORDS = {"split", "splits", "folds", "train_val_split", "partition"}
"""Names of other files that may divide the images."""
LIST_SUFFIXES = (".txt", ".csv", ".json", ".lst", ".tsv")
"""Suffixes of files that may list the images of a split."""

MOST_FOLDERS = 100
"""Folders that are looked into for images beside masks."""

_YEAR = re.compile(r"[-_ ]?(?:19|20)\d\d$")
_SPLIT = "(train|training|tr|val|valid|validation|test|testing|ts)"
_KIND = "(images?|imgs?|masks?|labels?|annot|annotations?|gt)"
_SPLIT_KIND = re.compile(f"{_SPLIT}(?:[-_ ]?{_KIND})?")
_KIND_SPLIT = re.compile(f"{_KIND}[-_ ]?{_SPLIT}")


class Place(NamedTuple):
    """Folders of the images and masks of a split, or of all.

    Attributes:
        images: Folder of the images.
        masks: Folder of the masks; the same, if names say which are masks.
        below: Folder in both that holds the split; "" if they hold nothing else.
    """

    images: Path
    masks: Path
    below: str = ""


def find_places(root: Path) -> tuple[dict[str, Place], list[str]]:
    """Return where each split lies, the usual ones first, and what was decided, one line each.

    Splits that lie in the same place are divided by lists, or by names. Folders need not exist.

    Raises:
        ValueError: a folder holds both images and folders of splits.
    """
    folders = subfolders(root)
    lists = [name for name in LISTS if has_list(root, name)]
    own = _called(folders, IMAGE_FOLDERS)
    inside = {name: subfolders(root / name) for name in folders} if own is None else {}
    splits = {name: _both(root / name, below) for name, below in inside.items() if _called(below, IMAGE_FOLDERS)}
    if USUAL & set(_usual(splits)):
        return _with_val({split: splits[name] for split, name in _usual(splits).items()})
    if own is None and (splits := _side_by_side(root, folders)):
        if lists:
            return {**splits, **dict.fromkeys(lists, splits.get("train", next(iter(splits.values()))))}, []
        return _with_val(splits)
    both = _both(root, folders)
    if not both.masks.is_dir():
        together = (folder for folder in (both.images, root) if _holds_both(folder))
        both = next((Place(folder, folder) for folder in together), both)
    if lists:
        return dict.fromkeys(lists, both), []
    if own is None or both.images == root:
        return dict.fromkeys(("train", "val"), both), []
    return _divided(both)


def _divided(both: Place) -> tuple[dict[str, Place], list[str]]:
    """Splits in folders below those of the images and of the masks, or made of all images."""
    below = subfolders(both.images)
    usual = _usual(below)
    if not USUAL & set(usual):
        made = dict.fromkeys(("train", "val"), both)
        if not below:
            return made, []
        return made, [
            f"{both.images} has the folders {some(below, 3)}, none of which is a split: all images are taken together"
        ]
    with os.scandir(both.images) as entries:
        stray = min((each.name for each in entries if _is_image(each.name)), default=None)
    if stray is not None:
        raise ValueError(
            f"{both.images} holds both subfolders ({some(below, 3)}) and images ({stray}): move "
            f"the images into the subfolders, which are the splits, or write the lists train.txt and val.txt"
        )
    masks = subfolders(both.masks)
    others = _usual(masks)
    places: dict[str, Place] = {}
    for split, name in usual.items():
        other = others.get(split, name)
        alike = name in masks or name == other
        places[split] = both._replace(below=name) if alike else Place(both.images / name, both.masks / other)
    return _with_val(places)


def _with_val(places: dict[str, Place]) -> tuple[dict[str, Place], list[str]]:
    """Let train and val share a place, if there is none for val."""
    if "train" not in places or "val" in places:
        return places, []
    rest = {name: place for name, place in places.items() if name != "train"}
    note = "nothing is called val: some of the images of train are the split val, and the others are train"
    return {"train": places["train"], "val": places["train"], **rest}, [note]


def _side_by_side(root: Path, folders: Iterable[str]) -> dict[str, Place]:
    """Folders whose names say both split and kind, such as train and train_masks, or imagesTr and labelsTr."""
    found: dict[str, dict[bool, str]] = {}
    for name in folders:
        if match := _SPLIT_KIND.fullmatch(name.casefold()):
            split, kind = match.groups()
        elif match := _KIND_SPLIT.fullmatch(name.casefold()):
            kind, split = match.groups()
        else:
            continue
        of_masks = kind is not None and not kind.startswith("im")
        found.setdefault(_split_of({"tr": "train", "ts": "test"}.get(split, split)), {}).setdefault(of_masks, name)
    places = {
        split: Place(root / kinds[False], root / kinds.get(True, f"{kinds[False]}_masks"))
        for split, kinds in found.items()
        if False in kinds
    }
    complete = any(place.masks.is_dir() for place in places.values())
    return {split: places[split] for split in LISTS if split in places} if complete else {}


def _both(folder: Path, below: Iterable[str]) -> Place:
    images, masks = _called(below, IMAGE_FOLDERS), _called(below, MASK_FOLDERS)
    return Place(folder / (images or "images"), folder / (masks or "masks"))


def _called(folders: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of some folders by the order of the names that they may have, those in lower case first."""
    known = {folder.casefold(): folder for folder in sorted(folders)}
    return next((known[name] for name in names if name in known), None)


def _holds_both(folder: Path) -> bool:
    """Tell whether images lie beside masks that are called after them, in a folder or those just below it."""
    for each in (folder, *(folder / name for name in subfolders(folder)[:MOST_FOLDERS])):
        try:
            with os.scandir(each) as entries:
                stems = {os.path.splitext(entry.name)[0].lower() for entry in entries if _is_image(entry.name)}
        except OSError:
            continue
        if any(is_called_mask(stem) in stems for stem in stems):
            return True
    return False


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _split_of(name: str) -> str:
    lower = _YEAR.sub("", name.casefold())  # train2017
    return next((split for split in LISTS if lower == split or lower in OTHER_NAMES.get(split, ())), name)


def _usual(folders: Iterable[str] | Mapping[str, Place]) -> dict[str, str]:
    """Names of splits, the usual ones first, and the folder of each; its name is kept if two would be the same."""
    names = sorted(folders)
    splits: dict[str, str] = {}
    for name in names:
        usual = _split_of(name)
        splits[name if usual in splits or (usual != name and usual in names) else usual] = name
    return {split: splits[split] for split in [*(s for s in LISTS if s in splits), *splits]}


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, but for hidden ones; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not is_unimportant(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def list_of(root: Path, split: str) -> Path:
    """Return the file that lists the images of a split, whether it exists or not: val.txt may be called valid.txt."""
    names = (split, *OTHER_NAMES["val"]) if split == "val" else (split,)
    return next((path for name in names if (path := root / f"{name}.txt").is_file()), root / f"{split}.txt")


def has_list(root: Path, split: str) -> bool:
    """Tell whether a data set has a list of the images of a split."""
    return list_of(root, split).is_file()


def stray_lists(root: Path, place: Place) -> str:
    """Say which file seems to list a split and is not read, as it lies elsewhere or is of another kind; "" if none."""
    stems = {*LISTS, *SPLIT_WORDS, *(name for names in OTHER_NAMES.values() for name in names)}
    top = [root / name for name in subfolders(root) if root / name not in (place.images, place.masks)][:MOST_FOLDERS]
    below = [folder / name for folder in top for name in subfolders(folder)][:MOST_FOLDERS]
    for folder in (root, *top, *below):
        with os.scandir(folder) as entries:
            for name in sorted(entry.name for entry in entries):
                stem, suffix = os.path.splitext(name.lower())
                if stem in stems and suffix in LIST_SUFFIXES:
                    return (
                        f"{folder / name} may say which images belong to a split, and is not read: lists are "
                        f"{root / 'train.txt'} and {root / 'val.txt'}, with the name of an image in each line"
                    )
    return ""


def choice_notes(place: Place, masks: int) -> list[str]:
    """Say which folder was taken for the masks, of which there are so many, if there are several folders."""
    if place.images == place.masks:
        return [f"{place.images} holds both images and masks, which are those whose names say so"]
    beside = [name for name in subfolders(place.masks.parent) if name.casefold() in MASK_FOLDERS]
    others = [name for name in beside if name != place.masks.name] or _further(place, masks)
    return [f"masks are read from {place.masks}, and not from {' or '.join(others)}/ beside it"] if others else []


def _further(place: Place, masks: int) -> list[str]:
    """Other folders beside those of images and masks that hold about as many images as masks: they may be these."""
    folder, least = place.masks.parent, 0.8 * masks
    if folder != place.images.parent or not least:
        return []
    known = {place.images.name, place.masks.name}
    names = [name for name in subfolders(folder) if name not in known and name.casefold() not in IMAGE_FOLDERS]
    names = [n for n in names if not (_SPLIT_KIND.fullmatch(n.casefold()) or _KIND_SPLIT.fullmatch(n.casefold()))]
    return [name for name in names[:MOST_FOLDERS] if _count(folder / name / place.below) >= least]


def _count(folder: Path) -> int:
    """Number of images in a folder."""
    try:
        with os.scandir(folder) as entries:
            return sum(_is_image(entry.name) for entry in entries)
    except OSError:
        return 0


def unusual_notes(root: Path, split: str, place: Place) -> list[str]:
    """Say what was decided on the folders, if they are not called as usual."""
    if place.images == place.masks:
        return []
    if place.images == root / "images" and place.masks.name == "masks" and place.below in ("", split):
        return []
    folders = [(folder / place.below).relative_to(root).as_posix() for folder in (place.images, place.masks)]
    return [f"split {split}: images in {folders[0]}/, masks in {folders[1]}/"]
