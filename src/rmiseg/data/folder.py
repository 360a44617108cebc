"""Anybody's own images and masks, in folders.

    root/
      dataset.yaml                     names of the classes, see `read_classes`
      images/  a.jpg  b.png ...        or  images/train/  images/val/ ...
      masks/   a.png  b.png ...        or  masks/train/   masks/val/ ...

An image and its mask have the same path below images/ and masks/, but for the suffix. Splits are, in this order of
precedence:

1. lists: root/train.txt, val.txt, test.txt, trainval.txt; a line is the path of an image below images/, with or
   without its suffix;
2. subfolders of images/, one a split;
3. neither: train and val are made. A fifth of the images, those whose names have the lowest hash, are val. This
   depends on nothing but the names. Frames of one video should rather be split by hand: neighbors are too alike.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable, Color, RawValue, voc_palette
from rmiseg.data.images import Sample, Split
from rmiseg.data.layout import Layout
from rmiseg.data.listing import read_lines
from rmiseg.data.reading import read_raw_mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # never JPEG: it changes the values
LISTS = ("train", "val", "test", "trainval")


@register("dataset", "folder")
class Folder(Layout):
    """Anybody's own images and masks, see the top of this file."""

    TREE = """
        {root}/
          dataset.yaml                 names of the classes
          images/  a.jpg  b.png ...    or images/train/, images/val/, ...
          masks/   a.png  b.png ...    or masks/train/, masks/val/, ...
    """

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """The splits, see the top of this file, and what they need."""
        needs = (root / "images", root / "masks")
        if lists := [name for name in LISTS if (root / f"{name}.txt").is_file()]:
            return {name: (root / f"{name}.txt", *needs) for name in lists}
        entries = list((root / "images").glob("[!.]*"))
        subfolders = sorted(entry.name for entry in entries if entry.is_dir())
        loose = sorted(entry.name for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES)
        if subfolders and loose:
            raise ValueError(
                f"{root / 'images'} holds both subfolders ({', '.join(subfolders[:3])}) and images ({loose[0]}): move "
                f"the images into the subfolders, which are the splits, or write the lists train.txt and val.txt"
            )
        usual = [name for name in LISTS if name in subfolders]
        return dict.fromkeys([*usual, *(name for name in subfolders if name not in LISTS)] or ["train", "val"], needs)

    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of one split, and whatever does not pair up.

        Raises:
            ValueError: dataset.yaml is missing or wrong.
        """
        listed = (root / f"{split}.txt").is_file()
        divided = not listed and (root / "images" / split).is_dir()
        problems: list[str] = []
        images = _index(root / "images", IMAGE_SUFFIXES, problems, below=split if divided else "")
        masks = _index(root / "masks", MASK_SUFFIXES, problems, below=split if divided else "")
        if jpeg := next((root / "masks").rglob("*.jp*g"), None):
            problems.append(f"{jpeg} is a JPEG file, which does not keep mask values exactly: save masks as PNG")
        if listed:
            keys, orphans = _listed(root, split, images, problems), []
        elif divided:
            keys, orphans = list(images), [key for key in masks if key not in images]
        else:
            val = set(sorted(images, key=_hash)[: (len(images) + 3) // 5])  # of two images, one is val
            keys = [key for key in images if (key in val) == (split == "val")]
            # A mask without image is in neither split: name it once.
            orphans = [key for key in masks if key not in images] if split == "train" else []
        return Split(
            name=split,
            samples=tuple(Sample(key, images[key], masks[key]) for key in keys if key in masks),
            classes=read_classes(root),
            images_without_mask=tuple(images[key] for key in keys if key not in masks),
            masks_without_image=tuple(masks[key] for key in orphans),
            problems=tuple(problems),
        )


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode()).digest()


def _index(folder: Path, suffixes: tuple[str, ...], problems: list[str], below: str = "") -> dict[str, Path]:
    """The files in folder/below, sorted, by their path from folder without suffix."""
    found: dict[str, Path] = {}
    for path in sorted((folder / below).rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            problems.append(f"{found[key]} and {path} have the same name but for the suffix: remove one")
        found.setdefault(key, path)
    return found


def _listed(root: Path, split: str, images: dict[str, Path], problems: list[str]) -> list[str]:
    by_file = {path.relative_to(root / "images").as_posix(): key for key, path in images.items()}
    keys: dict[str, int] = {}  # with the line of each
    for number, name in read_lines(root / f"{split}.txt"):
        where = f"{root / split}.txt, line {number}"
        key = name if name in images else by_file.get(name)
        if key is None:
            problems.append(f"{where}: there is no image {name!r} in {root / 'images'}")
        elif key in keys:
            problems.append(f"{where}: {name!r} is already in line {keys[key]}")
        else:
            keys[key] = number
    return list(keys)


def read_classes(root: Path) -> ClassTable:
    """Read dataset.yaml, whose entries are

    - ``classes``: a list of names, whose mask values are 0, 1, 2, ...; or a mapping from names to mask values; or a
      mapping from names to [red, green, blue], for masks that hold colors;
    - ``ignore``: the value (or color), or a list of them, of pixels that belong to no class. Default: 255, unless
      that is a class; nothing for colors;
    - ``colors``: a list of [red, green, blue] in the order of the classes, for pictures. Default: the colors of the
      masks, else those of PASCAL VOC.

    Raises:
        ValueError: the file is missing (the message shows one to start from, made from the values found in the first
            masks), is not valid YAML, or says something that is not allowed.
    """
    path = root / "dataset.yaml"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: it says what the values in the masks mean. To start from (rename the classes):\n\n"
            f"{_suggest_classes(root / 'masks')}"
        )
    try:
        spec = yaml.load(path.read_text(encoding="utf-8-sig"), _StrictLoader)
        return _parse_classes(spec)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """YAML as the standard has it: a key that is given twice is an error, where PyYAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for index, key in enumerate(keys) if key in keys[:index]), None):
            raise ValueError(f"{twice!r} is given twice")
        return super().construct_mapping(node, deep)


def _parse_classes(spec: Any) -> ClassTable:
    if not isinstance(spec, dict) or "classes" not in spec:
        raise ValueError("there must be an entry `classes`: a list of names, or a mapping from names to mask values")
    if unknown := set(spec) - {"classes", "ignore", "colors"}:
        raise ValueError(f"unknown entry {', '.join(map(repr, unknown))}; valid: classes, ignore, colors")
    classes = spec["classes"]
    names = list(classes) if isinstance(classes, list | dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`classes` must be a list of names, or a mapping from names to mask values, not {classes!r} "
            f"(names such as no, on or 1 need quotes)"
        )
    values = tuple(map(_raw_value, classes.values() if isinstance(classes, dict) else range(len(names))))
    rgb = isinstance(values[0], tuple)

    ignore = spec.get("ignore", [] if rgb or 255 in values else [255])
    if ignore is None:
        ignore = []
    elif not isinstance(ignore, list) or (rgb and len(ignore) == 3 and not isinstance(ignore[0], list)):
        ignore = [ignore]

    palette: Any = spec.get("colors") or (values if rgb else voc_palette(len(values)))
    if not isinstance(palette, list | tuple):
        raise ValueError(f"`colors` must be a list of [red, green, blue] in the order of the classes, not {palette!r}")
    return ClassTable(
        names=tuple(names),
        values=values,
        ignore=tuple(map(_raw_value, ignore)),
        palette=tuple(map(_color, palette)),
    )


def _raw_value(value: Any) -> RawValue:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _color(value)


def _color(value: Any) -> Color:
    if isinstance(value, list | tuple) and len(value) == 3 and all(type(channel) is int for channel in value):
        return (value[0], value[1], value[2])
    raise ValueError(f"{value!r} is neither a mask value such as 3 nor a color such as [128, 0, 0]")


def _suggest_classes(folder: Path, files: int = 20, most: int = 40) -> str:
    """A dataset.yaml made from the values in the first masks."""
    paths = list(_index(folder, MASK_SUFFIXES, []).values())[:files]
    rgb = any(map(_holds_colors, paths))
    counts: dict[RawValue, int] = {}
    for path in paths:
        try:
            raw = read_raw_mask(path, rgb)
        except ValueError:
            continue  # `rmiseg data check` names it, once there is a dataset.yaml
        values, pixels = np.unique(raw.reshape(-1, 3) if rgb else raw.ravel(), axis=0, return_counts=True)
        for value, count in zip(values.tolist(), pixels.tolist()):
            key = tuple(value) if rgb else value
            counts[key] = counts.get(key, 0) + count
    if not counts:
        return "classes:\n  background: 0\n  something: 1\nignore: 255\n"
    # 255 beside several values is the usual mark of ignored pixels; beside 0 alone it is the usual foreground.
    ignored = [255] if 255 in counts and len(counts) > 2 else []
    total = sum(counts.values())
    lines = [f"# from {len(paths)} of the masks, with the share of pixels", "classes:"]
    for number, value in enumerate(sorted(counts.keys() - set(ignored))[:most]):
        entry = f"class_{number}: {list(value)}" if isinstance(value, tuple) else f"class_{value}: {value}"
        lines.append(f"  {entry}  # {counts[value] / total:.2%}")
    if len(counts) > most + len(ignored):
        lines.append(f"  # ... and {len(counts) - most - len(ignored)} more values: are these masks?")
    lines += [f"ignore: {value}  # {counts[value] / total:.2%}" for value in ignored]
    return "\n".join(lines) + "\n"


def _holds_colors(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except OSError:
        return False
