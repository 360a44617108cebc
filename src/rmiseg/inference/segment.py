"""From the logits of tiles to class ids at any size, without full-size scores of all classes.

The result is made a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.inference.tiles import TileLogits
from rmiseg.kernels import native

STRIP_ELEMENTS = 1 << 21
"""Scores of all classes that are made at once on a CPU: 8 MB, which stay in its caches."""

LARGE_STRIP_ELEMENTS = 1 << 25
"""The same elsewhere: 128 MB, in few launches."""


def id_strips(
    outputs: Iterator[TileLogits] | list[TileLogits], size: tuple[int, int], align_corners: bool
) -> Iterator[np.ndarray]:
    """Class ids of an image, as strips (rows, W) uint8 from top to bottom.

    Only those that the next rows need are held: with windows, those of two rows of them.

    Args:
        outputs: As `run_tiles` yields them, from top to bottom.
        size: Height and width of the image.
        align_corners: Corner convention of the model's logits.
    """
    held: list[TileLogits] = []
    done = 0

    def finished(bottom: int) -> Iterator[np.ndarray]:
        if len(held) == 1 and (held[0].tile.area.height, held[0].tile.area.width) == size:
            yield argmax_logits(held[0].logits[None], size, align_corners)[0].cpu().numpy()
            return
        for scores in _score_strips(held, slice(done, bottom), size[1], align_corners):
            yield argmax_logits(scores[None], (scores.shape[1], scores.shape[2]), align_corners)[0].cpu().numpy()

    for output in outputs:
        if output.tile.area.top > done:
            yield from finished(output.tile.area.top)
            done = output.tile.area.top
            held = [each for each in held if each.tile.area.rows.stop > done]
        held.append(output)
    yield from finished(size[0])


def segment(outputs: Iterator[TileLogits] | list[TileLogits], size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Class ids (H, W) uint8 of an image; see `id_strips`."""
    strips = list(id_strips(outputs, size, align_corners))
    return strips[0] if len(strips) == 1 else np.concatenate(strips)


def probabilities(outputs: list[TileLogits], size: tuple[int, int], align_corners: bool) -> Tensor:
    """Probabilities (C, H, W) float32 of an image: the mean over its tiles of the softmax of their logits."""
    strips = list(_score_strips(outputs, slice(0, size[0]), size[1], align_corners))
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=1)


@torch.inference_mode()
def _score_strips(outputs: list[TileLogits], rows: slice, width: int, align_corners: bool) -> Iterator[Tensor]:
    """Mean probabilities (C, some rows, W) float32 of rows of the image."""
    classes = outputs[0].logits.shape[0]
    step = _rows_at_once(outputs[0].logits, width)
    for top in range(rows.start, rows.stop, step):
        bottom = min(top + step, rows.stop)
        scores = torch.zeros(classes, bottom - top, width, device=outputs[0].logits.device)
        for tile, logits in outputs:
            area = tile.area
            begin, end = max(top, area.top), min(bottom, area.rows.stop)
            if begin >= end:
                continue
            own = slice(begin - area.top, end - area.top)
            share = interpolated_rows(logits, own, (area.height, area.width), align_corners).softmax(dim=0)
            share *= tile.row_weights[own, None].to(share.device) * tile.column_weights.to(share.device)
            scores[:, begin - top : end - top, area.columns] += share
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
    step = _rows_at_once(logits[0], size[1])
    for sample, out in zip(logits, ids):
        for top in range(0, size[0], step):
            rows = slice(top, min(top + step, size[0]))
            out[rows] = interpolated_rows(sample, rows, size, align_corners).argmax(dim=0)
    return ids


def _rows_at_once(logits: Tensor, width: int) -> int:
    """Rows of scores (C, rows, width) float32 that fit, of logits (C, h, w)."""
    elements = STRIP_ELEMENTS if logits.device.type == "cpu" else LARGE_STRIP_ELEMENTS
    return max(1, elements // (logits.shape[0] * width))


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
