"""Names and colors of classes, and how the values that mask files hold map to class ids."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IGNORE_INDEX = 255
"""Class id of the pixels that are neither trained on nor scored."""

LEAST_VALUE = -32768
"""Least value of a mask: -1 stands for ignored pixels in files of signed integers."""

LOSSY_DISTANCE = 64
"""Least distance of values that JPEG files and the like keep apart."""

Color: TypeAlias = tuple[int, int, int]
RawValue: TypeAlias = int | Color
"""Type of what a mask file stores for a class: a value (index masks), or a color (RGB masks)."""


@dataclass(frozen=True)
class ClassTable:
    """Names and colors of the classes, and how the raw values in mask files map to class ids.

    Class ids are 0 .. C-1 in the order of ``names``; ignored pixels get `IGNORE_INDEX`.

    Args:
        names: Name of each class.
        values: Raw value of each class in the mask files, either all values (-32768 .. 65535) or all colors.
        ignore: Raw values of ignored pixels, of the same kind as ``values``.
        palette: Color of each class in pictures.
        nearest: True if any other raw value stands for the nearest of these, as at edges that were smoothed.
        also: Further raw values of classes that have several, of the same kind as ``values``.
        also_ids: Class id of each of these.

    Raises:
        ValueError: no class, more than 255, lengths that differ, a name or raw value given twice, values and colors
            mixed, or a value out of range.
    """

    names: tuple[str, ...]
    values: tuple[RawValue, ...]
    ignore: tuple[RawValue, ...]
    palette: tuple[Color, ...]
    nearest: bool = False
    also: tuple[RawValue, ...] = ()
    also_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 1 <= count <= IGNORE_INDEX:
            raise ValueError(
                f"{count} classes; there must be 1 to {IGNORE_INDEX}, since class ids are stored in one byte"
            )
        if not count == len(self.values) == len(self.palette):
            raise ValueError(f"{count} class names, {len(self.values)} values and {len(self.palette)} palette colors")
        if strange := [name for name in self.names if not _is_name(name)]:
            raise ValueError(f"names of classes are texts without control characters, not {repr(strange[0])[:100]}")
        if twice := _repeated(self.names):
            raise ValueError(f"class name {twice!r} is given twice")
        if len(self.also) != len(self.also_ids) or not all(each in range(count) for each in self.also_ids):
            raise ValueError(f"further mask values {self.also} are of the classes {self.also_ids}, of {count}")
        raws = self.known
        if len({isinstance(raw, tuple) for raw in raws}) > 1:
            raise ValueError(f"mask values and mask colors cannot be mixed: {', '.join(map(str, raws))}")
        if (twice := _repeated(raws)) is not None:
            raise ValueError(
                f"mask value {twice} is given twice, among classes and ignored values: it can be one of them "
                f"alone{'. A color has three numbers, without alpha' if self.also else ''}"
            )
        for color in [raw for raw in raws if isinstance(raw, tuple)] + list(self.palette):
            if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
                raise ValueError(f"color {color} is not three numbers from 0 to 255")
        for raw in raws:
            if isinstance(raw, int) and not LEAST_VALUE <= raw <= 65535:
                raise ValueError(f"mask value {raw} is outside {LEAST_VALUE} .. 65535")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def known(self) -> tuple[RawValue, ...]:
        """Raw values that have a meaning: those of the classes, those ignored, and further ones of classes."""
        return self.values + self.ignore + self.also

    @property
    def known_ids(self) -> tuple[int, ...]:
        """Class ids of these."""
        return (*range(len(self.names)), *len(self.ignore) * (IGNORE_INDEX,), *self.also_ids)

    def values_of(self, index: int) -> tuple[RawValue, ...]:
        """All raw values of a class."""
        return (self.values[index], *(raw for raw, each in zip(self.also, self.also_ids) if each == index))

    @property
    def rgb(self) -> bool:
        """True if mask files hold colors rather than values."""
        return isinstance(self.values[0], tuple)

    @property
    def lossy(self) -> bool:
        """True if files that keep values nearly, such as JPEG, tell the classes apart by the nearest value."""
        known = np.array(self.known, np.float64).reshape(len(self.known), -1)
        ids = np.array(self.known_ids)
        same = ids[:, None] == ids
        distances = np.sqrt(((known[:, None] - known) ** 2).sum(axis=-1)) + LOSSY_DISTANCE * same
        return self.nearest and bool(distances.min() >= LOSSY_DISTANCE)

    def encode(self, raw: NDArray[Any]) -> tuple[NDArray[np.uint8], dict[RawValue, int]]:
        """Map raw mask values to class ids.

        Args:
            raw: Values (H, W) of any integer dtype, or colors (H, W, 3) uint8, as `read_raw_mask` returns them.

        Returns:
            Class ids (H, W) uint8, and the number of pixels of each raw value that is neither a class nor ignored.
            Such pixels are `IGNORE_INDEX` in the class ids. With `nearest` there are none.
        """
        keys, key_ids = tuple(map(_pack, self.known)), self.known_ids
        if raw.dtype == np.uint8 and not self.rgb:  # the common case, three times as fast with strings
            known, table, kept = _byte_table(keys, key_ids)
            if kept and raw.size and int((raw + np.uint8(1)).max()) <= len(self.names):  # 255 + 1 is 0
                return raw, {}
            if not (data := raw.tobytes()).translate(None, delete=known):
                return np.frombuffer(bytearray(data.translate(table)), np.uint8).reshape(raw.shape), {}
        if self.rgb:
            red, green, blue = np.moveaxis(raw.astype(np.int32), -1, 0)
            packed = red << 16 | green << 8 | blue
        elif raw.dtype == np.uint8 or raw.dtype == np.uint16:
            packed = raw
        else:
            beyond = (raw < LEAST_VALUE) | (raw > 65535)
            packed = np.where(beyond, 0, raw).astype(np.int64)
            packed = np.where(packed < 0, 65536 - packed, packed)
            packed[beyond] = 65536  # which no class has
        # One more than the class id, in 16 bits, because 0 is taken by unknown values.
        ids = _lookup_table(keys, key_ids, 1 << 24 if self.rgb else 65537 - LEAST_VALUE)[packed]
        unknown: dict[RawValue, int] = {}
        if not ids.all():
            strange, places, counts = np.unique(raw[ids == 0], axis=0, return_inverse=True, return_counts=True)
            if self.nearest:
                ids[ids == 0] = self._nearest(strange)[places.ravel()]
                return (ids - 1).astype(np.uint8), {}
            unknown = {
                tuple(value) if self.rgb else value: count for value, count in zip(strange.tolist(), counts.tolist())
            }
        return (ids - 1).astype(np.uint8), unknown

    def _nearest(self, strange: NDArray[Any]) -> NDArray[np.uint16]:
        """One more than the class ids of the raw values that are nearest to others, (N,) or (N, 3)."""
        known = np.array(self.known, np.int64).reshape(len(self.known), -1)
        others = strange.astype(np.int64).reshape(len(strange), -1)
        distances = ((others[:, None] - known) ** 2).sum(axis=-1)
        index = distances.argmin(axis=1)
        ids: NDArray[np.uint16] = np.array(self.known_ids, np.uint16)[index] + np.uint16(1)
        return ids


def _is_name(name: Any) -> bool:
    """Tell whether a name can go into files, tables, pages and terminals."""
    if not isinstance(name, str) or not name.strip():
        return False
    return all(unicodedata.category(each) not in ("Cc", "Cs") for each in name)


def _repeated(items: tuple[Any, ...]) -> Any | None:
    return next((item for i, item in enumerate(items) if item in items[:i]), None)


def _pack(value: RawValue) -> int:
    if isinstance(value, int):
        return value if value >= 0 else 65536 - value  # behind those of 16 bits
    return value[0] << 16 | value[1] << 8 | value[2]


@functools.cache
def _byte_table(keys: tuple[int, ...], ids: tuple[int, ...]) -> tuple[bytes, bytes, bool]:
    """The values that have a meaning, what each of the 256 becomes, for `bytes.translate`, and whether all stay."""
    table = bytearray(256)
    known = {key: index for key, index in zip(keys, ids) if key < 256}
    for key, value in known.items():
        table[key] = value
    stay = len(known) == len(keys) and IGNORE_INDEX in known and all(key == index for key, index in known.items())
    return bytes(known), bytes(table), stay


@functools.cache  # one a process, outside of ClassTable so that it is not sent to loader processes
def _lookup_table(keys: tuple[int, ...], ids: tuple[int, ...], size: int) -> NDArray[np.uint16]:
    # Zero pages of memory cost nothing until they are touched: a table of all colors is in truth small.
    table = np.zeros(size, np.uint16)
    for key, index in zip(keys, ids):
        table[key] = 1 + index
    return table


def voc_palette(count: int) -> tuple[Color, ...]:
    """The color map of PASCAL VOC: ``count`` colors, any two of them different, starting with black."""
    colors = []
    for index in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


def class_ids(names: Sequence[str]) -> ClassTable:
    """Return the classes of masks that hold class ids: values 0 .. C-1 and 255, colors of PASCAL VOC.

    Args:
        names: Name of each class.

    Raises:
        ValueError: no class, more than 255, or a name given twice.
    """
    several = isinstance(names, Iterable) and not isinstance(names, str | Mapping | Set)  # a set has no order
    if not several or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes must be a list of names, not {names!r}")
    count = len(names)
    return ClassTable(tuple(names), tuple(range(count)), (IGNORE_INDEX,), voc_palette(count))


def describe_classes(classes: ClassTable) -> str:
    """Return the classes and ignored values in one line, shortened when there are many."""
    known = [f"{' or '.join(map(str, classes.values_of(index)))} {name}" for index, name in enumerate(classes.names)]
    if len(known) > 12:
        known = [*known[:6], "...", *known[-3:]]
    return ", ".join(known) + f"; ignored: {', '.join(map(str, classes.ignore)) or 'none'}"


def id_colors(classes: ClassTable) -> NDArray[np.uint8]:
    """Return colors of all class ids (256, 3): those of the classes, gray for ignored, black for what is no class."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(classes)] = classes.palette
    colors[IGNORE_INDEX] = 224
    return colors


def hex_of(color: Color) -> str:
    """Return a color as a text such as #ff8000."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def index_image(ids: NDArray[np.uint8], classes: ClassTable) -> Image.Image:
    """Return class ids (H, W) as a palette image: its pixels are the ids, viewers show the colors."""
    image = Image.fromarray(ids)
    image.putpalette(id_colors(classes).tobytes())
    return image
