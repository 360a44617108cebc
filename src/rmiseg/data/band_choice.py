"""Choice of the bands of a training's images, and of the values that become 0 to 255, by what the images hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rmiseg.data.bands import MOST_BANDS, RGB, Bands, Ranges, checked_ranges
from rmiseg.data.image_files.deep import SHARES, RangeFinder
from rmiseg.data.image_files.opening import has_deep_values, image_header, nodata_of
from rmiseg.data.image_files.reading import band_values, deep_values, wrong_bands
from rmiseg.data.image_files.tiff import Header
from rmiseg.data.images import Split
from rmiseg.data.spread import spread
from rmiseg.runtime.words import counted

SAMPLE, ALPHA_SAMPLE = 32, 4
"""Images that are looked at, and those whose alpha is."""


def choose_bands(
    split: Split,
    *,
    count: int | None = None,
    ranges: Ranges = None,
    picture: tuple[int, int, int] | None = None,
) -> tuple[Bands, list[str]]:
    """Return how the images of a training are read, and what to say of it, one line for each decision.

    Args:
        split: The training images. What their dataset.yaml says comes before what they hold.
        count: Number of bands, if a recipe says it.
        ranges: Values that become 0 and 255, if a recipe says them.
        picture: Bands, from 0, that are red, green and blue in pictures, if a recipe says them.

    Raises:
        ValueError: images of different bands, or ranges or pictures of other bands than there are.
        ModuleNotFoundError: an image needs a package that is not installed.
    """
    least = 1
    if split.description is not None:
        count = count or split.description.band_count
        least = split.description.least_bands
        picture = picture or split.description.picture
    ranges = ranges if ranges is not None else split.bands.ranges
    headers = _headers(split, Bands(count or least, picture=picture).pages)
    notes: list[str] = []
    if count is None:
        count = _common_count(headers, least)
        notes += _alpha_note(headers, count)
    if picture is not None and not all(0 <= band < count for band in picture):
        raise ValueError(f"red, green and blue in pictures are the bands {_numbers(picture)}, of {count}")
    if count != RGB.count:
        shown = Bands(count, picture=picture).picture or tuple(min(band, count - 1) for band in range(3))
        notes.append(
            f"images of {counted(count, 'band')}, of which {_numbers(shown)} are red, green and blue in pictures"
            + ("" if picture or count < 3 else "; `bands: {red: 3, green: 2, blue: 1}` in dataset.yaml sets others")
        )
    if ranges is not None:
        if not any(map(has_deep_values, headers)):
            notes.append("the range of values does nothing: images of 8 bits are read as they are")
        return Bands(count, checked_ranges(ranges, count), picture), notes
    found, note = _ranges(list(headers), Bands(count, picture=picture))
    return Bands(count, found, picture), [*notes, *note]


def check_bands(split: Split, bands: Bands) -> None:
    """See whether some images of a split have the bands that were chosen for the training.

    Raises:
        ValueError: one has others.
        ModuleNotFoundError: an image needs a package that is not installed.
    """
    allowed = (1, RGB.count) if bands.count == RGB.count else (bands.count,)
    for path, header in _headers(split, bands.pages).items():
        if header is not None and header.bands not in allowed and header.bands + header.alpha != bands.count:
            raise ValueError(f"image {path} of {split.name}: {wrong_bands(header.bands, bands.count)}")


def _headers(split: Split, pages: int) -> dict[Path, Header | None]:
    """Headers of some images; None of those that cannot be read, which is said when they are needed."""
    headers: dict[Path, Header | None] = {}
    for index in spread(len(split), SAMPLE):
        path = split.samples[index].image
        try:
            headers[path] = image_header(path, pages)
        except (ValueError, OSError):
            headers[path] = None
    return headers


def _common_count(headers: Mapping[Path, Header | None], least: int) -> int:
    """The number of bands of all images; with alpha, where dataset.yaml names a band that there is not without."""
    counts: dict[int, Path] = {}
    for path, header in headers.items():
        if header is not None:
            bands = RGB.count if header.bands == 1 else header.bands
            counts.setdefault(bands + (header.alpha and bands < least), path)
    if not counts:
        return max(RGB.count, least)
    if len(counts) > 1:
        (one, first), (other, second) = list(counts.items())[:2]
        raise ValueError(
            f"image {first} has {one} bands, and {second} has {other}: all images of a data set must have the same"
        )
    (count,) = counts
    if count > MOST_BANDS:
        raise ValueError(f"image {counts[count]} has {count} bands; {MOST_BANDS} are read at most")
    if count < least:
        raise ValueError(f"image {counts[count]} has {count} bands, but dataset.yaml names the band {least}")
    return count


def _alpha_note(headers: Mapping[Path, Header | None], count: int) -> list[str]:
    """Say that alpha is left out, if it is more than opaque or transparent: then it may be a band."""
    with_alpha = [path for path, header in headers.items() if header and header.alpha and count != header.bands + 1]
    for index in spread(len(with_alpha), ALPHA_SAMPLE):
        path = with_alpha[index]
        header = headers[path]
        assert header is not None
        try:
            alpha = band_values(path, header.bands + 1)[..., -1]
        except (ValueError, OSError):
            continue
        if len(np.unique(alpha[:: max(1, len(alpha) // 256)])) > 2:
            return [
                f"{path} has a band that it calls alpha, which is left out; if it is one like the others, such as near "
                f"infrared, write `bands: {header.bands + 1}` into dataset.yaml"
            ]
    return []


def _ranges(paths: list[Path], bands: Bands) -> tuple[Ranges, list[str]]:
    """The range of values of images of more than 8 bits, and what to say of it."""
    finder = RangeFinder(apart=bands.count != RGB.count)
    kinds: set[str] = set()
    for path in paths:
        try:
            values = deep_values(path, bands)
            nodata = None if values is None else nodata_of(path)
        except (ValueError, OSError):
            continue
        if values is not None:
            finder.add(values, nodata)
            kinds.add(str(values.dtype))
    if not finder.images:
        return None, []
    ranges = finder.ranges()
    less = finder.images < len(paths)
    rest = f"; the others of {len(paths)} have 8 bits and are read as they are" if less else ""
    left_out = f"; {_listed(finder.left_out)} is left out, which stands for no data" if finder.left_out else ""
    where = f"the percentiles {SHARES[0]:g} and {SHARES[1]:g} of {counted(finder.images, 'training image')}"
    if bands.count == RGB.count:
        said = f"the values {_span(ranges)} become 0 to 255, which are {where}"
    else:
        each = ", ".join(f"{number}: {_span(pair)}" for number, pair in enumerate(ranges or (), start=1))
        said = f"of each band {where} become 0 and 255 ({each})"
    return ranges, [
        f"images of {' and '.join(sorted(kinds))}: {said}{left_out}{rest}. `range: [black, white]` in dataset.yaml "
        f"sets others"
    ]


def _span(pair: Any) -> str:
    low, high = pair
    return f"{low:.6g} to {high:.6g}"


def _numbers(bands: tuple[int, ...]) -> str:
    return ", ".join(str(band + 1) for band in bands)


def _listed(values: set[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in sorted(values))
