"""Bands of images: how many there are, which values become 0 to 255, and which are red, green and blue in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rmiseg.config import DataConfig

ValueRange: TypeAlias = tuple[float, float]
"""Values of pixels that become 0 and 255."""
Ranges: TypeAlias = ValueRange | Sequence[ValueRange] | None
"""One range for all bands, one for each, or none: values of 8 bits stay, and of 16 bits the high byte is kept."""

MOST_BANDS = 16


@dataclass(frozen=True)
class Bands:
    """Bands of the images that a network sees.

    Args:
        count: Number of bands; 3 stands for red, green and blue, as which gray is read, too, and either without alpha.
        ranges: Values that become 0 and 255, of images of more than 8 bits.
        picture: Bands, from 0, that are red, green and blue in pictures; by default the first three, or the only one.
    """

    count: int = 3
    ranges: Ranges = None
    picture: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, data: DataConfig) -> Bands:
        """Bands as the options of a training say, once it has opened its data."""
        picture = None if data.picture is None else tuple(number - 1 for number in data.picture)
        return cls(3 if data.bands is None else data.bands, data.value_range, picture)  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        """Return the same as options of a training."""
        picture = None if self.picture is None else tuple(number + 1 for number in self.picture)
        return {"bands": self.count, "value_range": self.ranges, "picture": picture}

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """Bands that are taken for red, green and blue; None of fewer than three."""
        return self.picture or ((0, 1, 2) if self.count >= 3 else None)

    @property
    def pages(self) -> int:
        """Number of pages of a TIFF file that are bands; 1 where nobody said so, as of three pages."""
        return 1 if self.count == 3 and self.picture is None else self.count

    def picture_of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what people are shown of an image (H, W, B): (H, W, 3)."""
        shown = self.picture or tuple(min(band, self.count - 1) for band in range(3))
        return pixels if shown == (0, 1, 2) and self.count == 3 else np.ascontiguousarray(pixels[..., list(shown)])


RGB = Bands()


def checked_range(value_range: Sequence[Any]) -> ValueRange:
    """Return a range of values that a person gave.

    Raises:
        ValueError: it is not two numbers, the smaller one first.
    """
    numbers = [x for x in value_range if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) != 2 or len(value_range) != 2 or not -np.inf < numbers[0] < numbers[1] < np.inf:
        raise ValueError(
            f"the range of values must be two numbers, the one for black and the larger one for white, such as "
            f"[0, 4095], not {value_range}"
        )
    return float(numbers[0]), float(numbers[1])


def checked_ranges(ranges: Sequence[Any], count: int | None = None) -> Ranges:
    """Return ranges of values that a person gave: [black, white] for all bands, or one such pair for each.

    Args:
        ranges: What was given.
        count: Number of bands, if it is known.

    Raises:
        ValueError: it is neither, or there are pairs for another number of bands.
    """
    if not ranges or not all(isinstance(each, list | tuple) for each in ranges):
        return checked_range(ranges)
    if count is not None and len(ranges) != count:
        raise ValueError(f"there are {len(ranges)} ranges of values for {count} bands")
    return tuple(checked_range(each) for each in ranges)


def checked_bands(bands: Any) -> tuple[int | None, int, tuple[int, int, int] | None]:
    """Return what the entry `bands` of dataset.yaml says: the number of bands, if it does, how many there are at least,
    and which are red, green and blue.

    Raises:
        ValueError: it is neither a number nor a mapping from names to the numbers of bands.
    """
    if type(bands) is int:
        if not 1 <= bands <= MOST_BANDS:
            raise ValueError(f"`bands` must be 1 to {MOST_BANDS}, not {bands}")
        return bands, bands, (0, 1, 2) if bands == 3 else None  # so that three pages are bands, too
    numbers = list(bands.values()) if isinstance(bands, dict) else []
    if not numbers or not all(type(number) is int and 1 <= number <= MOST_BANDS for number in numbers):
        raise ValueError(
            f"`bands` must be the number of bands, 1 to {MOST_BANDS}, or say which are red, green and blue, counted "
            f"from 1, as in `{{red: 3, green: 2, blue: 1}}`; not {bands!r}"
        )
    if missing := [color for color in ("red", "green", "blue") if color not in bands]:
        raise ValueError(f"`bands` names no {missing[0]}; pictures need red, green and blue")
    count = bands.get("count")
    if count is not None and count < max(numbers):
        raise ValueError(f"`bands` names the band {max(numbers)} of {count}")
    return count, max(numbers), (bands["red"] - 1, bands["green"] - 1, bands["blue"] - 1)


def scaled_values(values: NDArray[Any], ranges: Ranges) -> NDArray[np.uint8]:
    """Make values of any dtype 0 to 255.

    Args:
        values: (H, W), or (H, W, B) for B bands.
        ranges: Values that become 0 and 255; those beyond become that too.

    Returns:
        uint8 of the same shape; what is not a number becomes 0.

    Raises:
        ValueError: there is no range, for values other than unsigned ones of 8 or 16 bits.
    """
    if values.dtype == np.uint8:
        return values
    if ranges is not None:
        low, high = np.array(ranges, np.float32).T
        shares = (np.clip(values.astype(np.float32), low, high) - low) / (high - low)
        pixels: NDArray[np.uint8] = np.rint(255 * np.nan_to_num(shares)).astype(np.uint8)
        return pixels
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    raise ValueError(without_range(str(values.dtype), f"{values.min():.6g}, {values.max():.6g}"))


def in_16_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return float64 values of a scanner as int16, where they are whole numbers that fit, and others as they are."""
    fit = values.dtype == np.float64 and (values == np.rint(values)).all() and np.abs(values).max(initial=0) < 1 << 15
    return values.astype(np.int16) if fit else values


def without_range(kind: str, example: str) -> str:
    """Say that nobody knows which values of pixels are black and white."""
    return (
        f"pixels of {kind} have no defined range; to train, say which values are black and white, as `range: "
        f"[{example}]` in dataset.yaml or as data.value_range; for a model of "
        f"images of 8 bits, save it as one"
    )


def scaled(values: NDArray[Any], ranges: Ranges) -> NDArray[np.uint8]:
    """Make values (H, W) or (H, W, 3) of any dtype RGB (H, W, 3) from 0 to 255; gray becomes three equal bands.

    Raises:
        ValueError: as `scaled_values`.
    """
    pixels = scaled_values(values, ranges)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
