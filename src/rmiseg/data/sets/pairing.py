"""Pairing of images with masks by their names: the same name, or names that differ in the same way throughout."""

from __future__ import annotations

import os
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from rmiseg.config.commands import VIDEO_SUFFIXES

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".dcm"),
    *(".nii", ".nii.gz", ".tga", ".jp2", ".j2k", ".avif"),
)
MASK_SUFFIXES = (
    *(".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg", ".jpe", ".jfif", ".nii", ".nii.gz"),
    *(".pgm", ".ppm", ".tga", ".npy", ".jp2", ".j2k", ".avif"),
)
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
"""Suffixes of files that are to be unpacked first."""
UNIMPORTANT = ("thumbs.db", "desktop.ini", "dataset.yaml", "dataset.yml")
"""Files that are no part of the data, such as programs leave everywhere; so are those whose names begin with a dot."""

UNIMPORTANT_FOLDERS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")
"""Folders that systems make: of archives, of small copies, of what was deleted."""
LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv")
"""Suffixes of files of labelling tools, whose labels are no masks."""

MASK_WORDS = (
    r"(?:cp_masks|masks?|labels?|gt|groundtruth|ground_truth|seg|segmentation|annotations?|labelids|anno|target)"
)
IMAGE_WORDS = r"(?:images?|img|sat|rgb|photo|0000)"
_MASK_END = re.compile(rf"(?:[-_. ]{MASK_WORDS}|\.(?:jpe?g|png|tiff?|bmp|webp|jfif))$", re.I)
_MASK_BEGIN = re.compile(rf"^{MASK_WORDS}[-_. ]", re.I)
_IMAGE_END = re.compile(rf"[-_. ]{IMAGE_WORDS}$", re.I)
_FURTHER = re.compile(rf"(.+?)[-_. ]{MASK_WORDS}[-_. ]?\d+$", re.I)
_CHANNEL = re.compile(r"(.+)_(?!0000)\d{4}")
_IMAGE_BEGIN = re.compile(rf"^{IMAGE_WORDS}[-_. ]", re.I)


def holds_regions(path: Path) -> bool:
    """Tell whether a file holds regions of ImageJ: one of them, or an archive of the ROI Manager."""
    suffix = path.suffix.lower()
    if suffix not in (".roi", ".zip") or not path.is_file():
        return False
    if suffix == ".roi":
        with open(path, "rb") as file:
            return file.read(4) == b"Iout"
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith(".roi") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


@dataclass
class Listing:
    """Files of a folder and its subfolders, by their paths below it, without suffix and with forward slashes.

    Attributes:
        files: Those of the suffixes that were asked for.
        others: Number of files of each other suffix, and one of them.
        problems: Files that differ in nothing but the suffix, one line each.
    """

    files: dict[str, Path] = field(default_factory=dict)
    others: dict[str, tuple[int, Path]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def walk(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, sorted; what has a name that begins with a dot is left out, and
    `UNIMPORTANT_FOLDERS`.

    Each folder is listed once, and no file is looked at: that takes long on network drives.
    """
    found: list[str] = []
    pending, links = [""], {os.path.realpath(folder)}
    while pending:
        below = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(folder, below)))
        except FileNotFoundError:
            continue
        for entry in entries:
            if is_unimportant(entry.name):
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if not entry.is_dir():
                # No pipe, which would be waited for, and no device, which has no end; links to nowhere are told later.
                if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
                    found.append(path)
            elif not entry.is_symlink():
                pending.append(path)
            elif (target := os.path.realpath(entry.path)) not in links:  # links may go in circles
                links.add(target)
                pending.append(path)
    # By folders and names, as paths are sorted; plain text sorts faster where there is one folder.
    return sorted(found, key=lambda path: path.split("/")) if any("/" in path for path in found) else sorted(found)


def is_unimportant(name: str) -> bool:
    """Tell whether a file or folder is hidden, or one that systems make."""
    return name.startswith(".") or name.lower() in UNIMPORTANT_FOLDERS


def parted(name: str) -> tuple[str, str]:
    """Return a path without its suffix, and that: .nii.gz is one."""
    return (name[:-7], name[-7:]) if name.lower().endswith(".nii.gz") else os.path.splitext(name)


def index_files(folder: Path, names: Iterable[str], suffixes: tuple[str, ...]) -> Listing:
    """Sort the files of a folder by their suffixes.

    Args:
        folder: The folder.
        names: Paths below it, as `walk` returns them.
        suffixes: Suffixes that are asked for, in lower case.
    """
    listing = Listing()
    for name in names:
        key, suffix = parted(name)
        if suffix.lower() not in suffixes:
            if os.path.basename(name).lower() not in UNIMPORTANT:
                count, first = listing.others.get(suffix.lower(), (0, folder / name))
                listing.others[suffix.lower()] = (count + 1, first)
        elif key in listing.files:
            listing.problems.append(
                f"{listing.files[key]} and {folder / name} have the same name but for the suffix: remove one"
            )
        else:
            listing.files[key] = folder / name
    return listing


def describe_others(listing: Listing, folder: Path, kind: str) -> str:
    """Say how many files of a folder are left out because of their suffixes; "" if none is."""
    if not listing.others:
        return ""
    counts = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, (count, _) in listing.others.items())
    first = next(iter(listing.others.values()))[1]
    if any(suffix in VIDEO_SUFFIXES for suffix in listing.others):
        remedy = "of a video, save the frames as images"
    elif kind == "masks" and any(suffix in LABEL_SUFFIXES for suffix in listing.others):
        remedy = "labels of a labelling tool become masks by `rmiseg data import`"
    else:
        remedy = "what belongs to the data set is to be saved as PNG or TIFF"
    return f"{folder}: files of these suffixes are not read as {kind}: {counts}, such as {first.name}; {remedy}"


def pair(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[dict[str, str], list[str]]:
    """Find the mask of each image.

    Names that are the same are pairs. Of those that are left, pairs are names that differ in capitals or Unicode form
    alone; then in zeros before a number (7 and 007); then in a word such as mask, label or gt, or in a second suffix
    such as .jpg; then in folders, of which images or masks have none; then in a beginning and an ending that all images
    that are left have in common, and all masks.

    Args:
        images: Images by their paths without suffix.
        masks: Masks likewise.

    Returns:
        The key of the mask of each image that has one, and what was decided, one line for each rule.
    """
    pairs = {key: key for key in images if key in masks}
    notes: list[str] = []
    for title, rule in _RULES:
        left = [key for key in images if key not in pairs]
        free = sorted(masks.keys() - set(pairs.values()))
        found = _match(*rule(left, free)) if left and free else {}
        if found:
            pairs |= found
            image, mask = next(iter(found.items()))
            notes.append(
                f"{len(found)} of {len(images)} images have masks of other names, {title}, such as "
                f"{images[image].name} and {masks[mask].name}"
            )
    return pairs, notes


def why_unpaired(images: Mapping[str, Path], masks: Mapping[str, Path], pairs: Mapping[str, str]) -> str:
    """Say why images have no mask, as far as their names tell; "" if there is no mask that is left.

    Args:
        images: Images by their paths without suffix.
        masks: Masks likewise.
        pairs: What `pair` found.
    """
    left = [key for key in images if key not in pairs]
    free = sorted(masks.keys() - set(pairs.values()))
    channels = [key for key in left if (name := _CHANNEL.fullmatch(key)) and f"{name[1]}_0000" in images]
    if channels:
        first = _CHANNEL.sub(r"\1_0000", channels[0])
        count = 1 + sum(_CHANNEL.sub(r"\1_0000", key) == first for key in channels)
        return (
            f"{images[first].name} and {images[channels[0]].name} are called as images of one case are for nnU-Net: "
            f"save them as the bands of one file, such as a TIFF, and write `bands: {count}` into dataset.yaml"
        )
    for key in left:
        if (further := _FURTHER.fullmatch(key)) and further[1] in images:
            return (
                f"{images[key].name} is called as a further mask of {images[further[1]].name} is: a mask holds all "
                f"objects of its image, so draw them into one"
            )
    if not left or not free:
        return ""
    if shift := _shift(images, masks):
        (start, end), (mask_start, mask_end), by = shift
        return (
            f"the numbers of the {len(images)} images go from {start} to {end}, and those of the masks from "
            f"{mask_start} to {mask_end}: is the mask of each image numbered {abs(by)} "
            f"{'higher' if by > 0 else 'lower'}? Then no pair of equal numbers is right: rename the masks"
        )
    for rule in (*(rule for _, rule in _RULES[:-2]), _last_parts):
        found, others = rule(left, free)
        several: dict[str, list[str]] = {}
        for key, stand_in in others.items():
            several.setdefault(stand_in, []).append(key)
        for key in left:
            if len(those := several.get(found[key], [])) > 1:
                return (
                    f"{key} may have the mask {those[0]} or {those[1]}: a mask holds all classes of its image; leave "
                    f"one for each, or draw them into one"
                )
    return (
        f"an image and its mask have the same name, or names that differ in the same way throughout, and "
        f"{left[0] + images[left[0]].suffix} and {free[0] + masks[free[0]].suffix} do not"
    )


def _shift(images: Iterable[str], masks: Iterable[str]) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """First and last numbers of images and of masks, and how much they differ, if all are numbered one after another.

    None if they are not, or there are not as many masks as images.
    """
    ends = []
    for keys in (list(images), list(masks)):
        found = [re.search(r"(\d{1,9})\D*$", key) for key in keys]
        numbers = sorted(int(each[1]) for each in found if each)
        if len(numbers) != len(keys) or len(numbers) < 2 or numbers != list(range(numbers[0], numbers[-1] + 1)):
            return None
        ends.append((numbers[0], numbers[-1]))
    lower, upper = ends[1][0] - ends[0][0], ends[1][1] - ends[0][1]
    return (ends[0], ends[1], lower) if lower == upper != 0 else None


def is_called_mask(key: str) -> str:
    """Return the name of the image, without difference of capitals, if a name ends as those of masks; else ""."""
    name = _MASK_END.sub("", key.lower(), count=1)
    return name if name != key.lower() and not name.endswith("/") else ""


def _match(images: dict[str, str], masks: dict[str, str]) -> dict[str, str]:
    """Pairs of an image and a mask that the same stands for, and for no others."""
    image_counts, mask_counts = Counter(images.values()), Counter(masks.values())
    mask_of = {stand_in: key for key, stand_in in masks.items() if mask_counts[stand_in] == 1}
    return {
        key: mask_of[stand_in]
        for key, stand_in in images.items()
        if image_counts[stand_in] == 1 and stand_in in mask_of
    }


def folded(key: str) -> str:
    """Return a name without the difference of capitals and of the forms of Unicode."""
    if key.isascii():
        return key.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())


Rows: TypeAlias = tuple[dict[str, str], dict[str, str]]
"""Names of images, and of masks, each with what stands for it."""
Rule: TypeAlias = Callable[[list[str], list[str]], Rows]


def _each(of_image: Callable[[str], str], of_mask: Callable[[str], str]) -> Rule:
    """The rule that takes each name by itself."""
    return lambda images, masks: ({key: of_image(key) for key in images}, {key: of_mask(key) for key in masks})


def _last_part(key: str) -> str:
    """A name without its folders: masks of one class each often lie in a folder for each."""
    return folded(key).rpartition("/")[2]


def _without_zeros(key: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", folded(key))


def _without(begin: re.Pattern[str], end: re.Pattern[str], key: str) -> str:
    """A name without a word at its end, or else at its beginning."""
    folder, slash, whole = folded(key).rpartition("/")
    name = end.sub("", whole, count=1)
    name = name if name != whole else begin.sub("", whole, count=1)
    return f"{folder}{slash}{name or whole}"


_of_image, _of_mask = partial(_without, _IMAGE_BEGIN, _IMAGE_END), partial(_without, _MASK_BEGIN, _MASK_END)
_last_parts = _each(_last_part, _last_part)


def _one_side_flat(images: list[str], masks: list[str]) -> Rows:
    """Names without their folders, where images or masks lie in none, if nearly all are pairs then."""
    rows = _last_parts(images, masks)
    flat = any(not any("/" in key for key in keys) for keys in (images, masks))
    return rows if flat and len(_match(*rows)) >= 0.8 * max(len(images), len(masks)) else ({}, {})


def _strip_common(images: list[str], masks: list[str]) -> Rows:
    """Take of the name of each what is left without the beginning and the ending that all have.

    Two of each are needed to tell, and nearly all must be pairs then: names must not match by accident.
    """
    cores = _cores(images), _cores(masks)
    both = set(cores[0].values()) & set(cores[1].values())
    fewer = min(len(images), len(masks))
    return cores if fewer >= 2 and len(both) >= 0.8 * fewer else ({}, {})


def _cores(keys: list[str]) -> dict[str, str]:
    parts = {key: folded(key).rpartition("/") for key in keys}
    names = [name for _, _, name in parts.values()]
    begin = re.sub(r"\d+$", "", _common_begin(names))
    end = re.sub(r"^\d+", "", _common_begin([name[::-1] for name in names])[::-1])
    return {key: f"{folder}/{name[len(begin) : len(name) - len(end)]}" for key, (folder, _, name) in parts.items()}


def _common_begin(names: list[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))]


_RULES: tuple[tuple[str, Rule], ...] = (
    ("which differ in capitals, or in the form of Unicode, alone", _each(folded, folded)),
    ("but for zeros at the beginning of their numbers", _each(_without_zeros, _without_zeros)),
    ("which say that they are masks", _each(folded, _of_mask)),
    ("where those of the images say that they are images", _each(_of_image, folded)),
    ("where all say what they are", _each(_of_image, _of_mask)),
    ("in other folders", _one_side_flat),
    ("but for a beginning and an ending that all images, and all masks, have", _strip_common),
)
"""Rules, and what each takes names to be."""
