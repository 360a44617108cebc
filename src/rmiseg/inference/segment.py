"""From an image to class ids at any size: several scales, flips, and windows, without full-size maps of all classes.

An image is seen in one or many views, each a part of it (a box) at some scale, perhaps flipped. The network's logits of
a view are small, and stay so: the result is made of them a few rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.config import ViewConfig
from rmiseg.data import normalize
from rmiseg.kernels import native

STRIP_ELEMENTS = 1 << 21
"""Scores of all classes that are made at once: 8 MB."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

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
class View:
    """What the network is shown.

    Attributes:
        box: The part of the image.
        size: Height and width that it is resized to.
        flip: Whether it is mirrored.
        row_weights: (box.height,) float32, of the view's probabilities in the result: those of all views at a pixel
            add up to 1.
        column_weights: (box.width,) float32; the weight of a pixel is the product of both.
    """

    box: Box
    size: tuple[int, int]
    flip: bool
    row_weights: Tensor
    column_weights: Tensor


class Piece(NamedTuple):
    """The network's logits (C, h, w) of a view, not mirrored any more."""

    view: View
    logits: Tensor


def whole_view(size: tuple[int, int], input_size: tuple[int, int]) -> View:
    """The view of a whole image of `size` = (H, W) that the network sees at `input_size`."""
    return View(Box(0, 0, *size), input_size, False, torch.ones(size[0]), torch.ones(size[1]))


def plan_views(size: tuple[int, int], config: ViewConfig, image_scale: float = 1.0) -> list[View]:
    """The views of an image of `size` = (H, W), from top to bottom.

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
    views = []
    flips = (False, True) if config.flip else (False,)
    share = 1 / (len(config.scales) * len(flips))
    for scale in config.scales:
        rows, columns = (_spans(side, scale * image_scale, config) for side in size)
        for row in rows:
            for column in columns:
                box = Box(row.start, column.start, row.length, column.length)
                weights = share * row.weights, column.weights
                views += [View(box, (row.input, column.input), flip, *weights) for flip in flips]
    return sorted(views, key=lambda view: view.box.top)


class _Span(NamedTuple):
    """Along one axis: a window in the image, its length in the network's input, and its weights."""

    start: int
    length: int
    input: int
    weights: Tensor


def _spans(side: int, factor: float, config: ViewConfig) -> list[_Span]:
    length = side if config.window is None else max(1, round(config.window / factor))
    if length >= side:
        return [_Span(0, side, max(1, round(side * factor)), torch.ones(side))]
    step = max(1, math.floor(length * (1 - config.overlap)))
    count = math.ceil((side - length) / step) + 1
    starts = [round(index * (side - length) / (count - 1)) for index in range(count)]
    # A ramp at each end as long as the overlap: results change gradually from one window to the next.
    distance = torch.arange(length) + 0.5
    ramp = torch.minimum(distance, distance.flip(0)).clamp(max=max(0.5, config.overlap * length))
    total = torch.zeros(side)
    for start in starts:
        total[start : start + length] += ramp
    return [_Span(start, length, config.window or 0, ramp / total[start : start + length]) for start in starts]


@torch.inference_mode()
def run_views(model: nn.Module, read: Callable[[Box], Tensor], views: list[View]) -> Iterator[Piece]:
    """Show views to the network, one by one, mirrored ones together with their twins.

    Args:
        model: Puts out logits (N, C, h, w).
        read: Returns a part of the image, uint8 (3, height, width), on any device.
        views: As `plan_views` returns them.
    """
    device = next(model.parameters()).device
    for (box, size), group in groupby(views, key=lambda view: (view.box, view.size)):
        twins = list(group)
        image = read(box)[None].to(device, non_blocking=True)
        if tuple(image.shape[-2:]) != size:
            image = _resize(image, size)
        images = torch.cat([image.flip(-1) if view.flip else image for view in twins])
        images = normalize(images, model.image_mean, model.image_std)
        logits = model(images.contiguous(memory_format=torch.channels_last))
        for view, own in zip(twins, logits):
            yield Piece(view, own.flip(-1) if view.flip else own)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.resize(image, list(size), antialias=True)


def id_strips(
    pieces: Iterator[Piece] | list[Piece], size: tuple[int, int], align_corners: bool
) -> Iterator[np.ndarray]:
    """Class ids of an image, as strips (rows, W) uint8 from top to bottom.

    Only the pieces that the next rows need are held: with windows, those of two rows of them.

    Args:
        pieces: As `run_views` yields them, from top to bottom.
        size: Height and width of the image.
        align_corners: Corner convention of the model's logits.
    """
    held: list[Piece] = []
    done = 0

    def finished(bottom: int) -> Iterator[np.ndarray]:
        if len(held) == 1 and (held[0].view.box.height, held[0].view.box.width) == size:
            yield argmax_logits(held[0].logits[None], size, align_corners)[0].cpu().numpy()
            return
        for scores in _score_strips(held, slice(done, bottom), size[1], align_corners):
            yield argmax_logits(scores[None], (scores.shape[1], scores.shape[2]), align_corners)[0].cpu().numpy()

    for piece in pieces:
        if piece.view.box.top > done:
            yield from finished(piece.view.box.top)
            done = piece.view.box.top
            held = [each for each in held if each.view.box.rows.stop > done]
        held.append(piece)
    yield from finished(size[0])


def segment(pieces: Iterator[Piece] | list[Piece], size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Class ids (H, W) uint8 of an image; see `id_strips`."""
    strips = list(id_strips(pieces, size, align_corners))
    return strips[0] if len(strips) == 1 else np.concatenate(strips)


def probabilities(pieces: list[Piece], size: tuple[int, int], align_corners: bool) -> Tensor:
    """Probabilities (C, H, W) float32 of an image: the mean over its views of the softmax of their logits."""
    strips = list(_score_strips(pieces, slice(0, size[0]), size[1], align_corners))
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=1)


@torch.inference_mode()
def _score_strips(pieces: list[Piece], rows: slice, width: int, align_corners: bool) -> Iterator[Tensor]:
    """Mean probabilities (C, some rows, W) float32 of rows of the image."""
    classes = pieces[0].logits.shape[0]
    step = max(1, STRIP_ELEMENTS // (classes * width))
    for top in range(rows.start, rows.stop, step):
        bottom = min(top + step, rows.stop)
        scores = torch.zeros(classes, bottom - top, width, device=pieces[0].logits.device)
        for view, logits in pieces:
            box = view.box
            begin, end = max(top, box.top), min(bottom, box.rows.stop)
            if begin >= end:
                continue
            own = slice(begin - box.top, end - box.top)
            share = interpolated_rows(logits, own, (box.height, box.width), align_corners).softmax(dim=0)
            share *= view.row_weights[own, None].to(share.device) * view.column_weights.to(share.device)
            scores[:, begin - top : end - top, box.columns] += share
        yield scores


def argmax_logits(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """The class of the largest logit at each pixel, after bilinear interpolation to `size` = (H, W).

    The interpolated logits are never held as a whole.

    Args:
        logits: (N, C, h, w), C at most 256.
        size: Height and width of the result.
        align_corners: Corner convention of the interpolation.

    Returns:
        (N, H, W) uint8.
    """
    if logits.device.type == "cpu" and native.is_available() and logits.dtype in native.ELEMENTS:
        return native.argmax(logits, size, align_corners)
    ids = torch.empty(len(logits), *size, dtype=torch.uint8, device=logits.device)
    step = max(1, STRIP_ELEMENTS // (logits.shape[1] * size[1]))
    for sample, out in zip(logits, ids):
        for top in range(0, size[0], step):
            rows = slice(top, min(top + step, size[0]))
            out[rows] = interpolated_rows(sample, rows, size, align_corners).argmax(dim=0)
    return ids


def interpolated_rows(logits: Tensor, rows: slice, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Rows (C, rows, W) float32 of logits (C, h, w) after bilinear interpolation to `size` = (H, W)."""
    source = logits.shape[1]
    at = torch.arange(rows.start, rows.stop, dtype=torch.float64, device=logits.device)
    if align_corners:
        at = at * ((source - 1) / max(size[0] - 1, 1))
    else:
        at = ((at + 0.5) * source / size[0] - 0.5).clamp(min=0)
    low = at.long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    narrow = torch.lerp(logits[:, low].float(), logits[:, high].float(), (at - low).float()[:, None])
    if logits.shape[2] == size[1]:
        return narrow
    return F.interpolate(narrow[None], (narrow.shape[1], size[1]), mode="bilinear", align_corners=align_corners)[0]
