"""Tiles and test-time augmentation: in which parts, at which scales and how mirrored the network is shown an image.

By default it is shown a single tile, the whole image. Otherwise it is shown many, each an area of the image at some
scale, perhaps flipped, and their probabilities are averaged, see `rmiseg.inference.segment`. The logits of a tile are
small, and stay so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from rmiseg.config import TilingConfig
from rmiseg.data import normalize
from rmiseg.models.base import SegmentationModel


class Area(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Tile:
    """An area of the image as the network is shown it: at some scale, perhaps flipped.

    Attributes:
        area: The area.
        size: Height and width that it is resized to.
        flip: True if it is mirrored.
        row_weights: (area.height,) float32, of the tile's probabilities in the result: those of all tiles at a pixel
            add up to 1.
        column_weights: (area.width,) float32; the weight of a pixel is the product of both.
    """

    area: Area
    size: tuple[int, int]
    flip: bool
    row_weights: Tensor
    column_weights: Tensor


class TileLogits(NamedTuple):
    """The network's logits (C, h, w) of a tile, not mirrored any more."""

    tile: Tile
    logits: Tensor


def whole_image(size: tuple[int, int], input_size: tuple[int, int]) -> Tile:
    """The tile that is a whole image of `size` = (H, W) that the network sees at `input_size`."""
    return Tile(Area(0, 0, *size), input_size, False, *(torch.ones(side, device="cpu") for side in size))


def plan_tiles(size: tuple[int, int], config: TilingConfig, image_scale: float = 1.0) -> list[Tile]:
    """The tiles of an image of `size` = (H, W), from top to bottom.

    Args:
        size: Height and width of the image.
        config: Scales, flip and windows.
        image_scale: Factor that multiplies every scale, as in training.

    Raises:
        ValueError: A scale that is not positive, a window smaller than 1, or an overlap outside of 0 to 1/2.
    """
    if not config.scales or not all(0 < scale < math.inf for scale in config.scales):
        raise ValueError(f"scales must be positive factors, not {list(config.scales)}")
    if config.window is not None and config.window < 1:
        raise ValueError(f"window must be a number of pixels, at least 1, not {config.window}")
    if not 0 <= config.overlap <= 0.5:
        raise ValueError(f"overlap must be a share from 0 to 0.5 of a window, not {config.overlap}")
    tiles = []
    flips = (False, True) if config.flip else (False,)
    share = 1 / (len(config.scales) * len(flips))
    for scale in config.scales:
        rows, columns = (_spans(side, scale * image_scale, config) for side in size)
        for row in rows:
            for column in columns:
                area = Area(row.start, column.start, row.length, column.length)
                weights = share * row.weights, column.weights
                tiles += [Tile(area, (row.input, column.input), flip, *weights) for flip in flips]
    return sorted(tiles, key=lambda tile: tile.area.top)


class _Span(NamedTuple):
    """Along one axis: a window in the image, its length in the network's input, and its weights."""

    start: int
    length: int
    input: int
    weights: Tensor


def _spans(side: int, factor: float, config: TilingConfig) -> list[_Span]:
    length = side if config.window is None else max(1, round(config.window / factor))
    if length >= side:
        return [_Span(0, side, max(1, round(side * factor)), torch.ones(side, device="cpu"))]
    step = max(1, math.floor(length * (1 - config.overlap)))
    count = math.ceil((side - length) / step) + 1
    starts = [round(index * (side - length) / (count - 1)) for index in range(count)]
    # A ramp at each end as long as the overlap: results change gradually from one window to the next.
    distance = torch.arange(length, device="cpu") + 0.5
    ramp = torch.minimum(distance, distance.flip(0)).clamp(max=max(0.5, config.overlap * length))
    total = distance.new_zeros(side)
    for start in starts:
        total[start : start + length] += ramp
    return [_Span(start, length, config.window or 0, ramp / total[start : start + length]) for start in starts]


@torch.inference_mode()
def run_tiles(model: SegmentationModel, read: Callable[[Area], Tensor], tiles: list[Tile]) -> Iterator[TileLogits]:
    """Show tiles to the network, one by one, mirrored ones together with their twins.

    Args:
        model: Puts out logits (N, C, h, w).
        read: Returns an area of the image, uint8 (B, height, width), on any device.
        tiles: As `plan_tiles` returns them.
    """
    device = next(model.parameters()).device
    for (area, size), group in groupby(tiles, key=lambda tile: (tile.area, tile.size)):
        twins = list(group)
        image = read(area)[None].to(device, non_blocking=True)
        if tuple(image.shape[-2:]) != size:
            image = _resize(image, size)
        images = torch.cat([image.flip(-1) if tile.flip else image for tile in twins])
        images = normalize(images, model.image_mean, model.image_std)
        logits = model(images.contiguous(memory_format=torch.channels_last))
        for tile, own in zip(twins, logits):
            yield TileLogits(tile, own.flip(-1) if tile.flip else own)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize(image, list(size), antialias=True)
    return resized
