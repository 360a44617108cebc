"""Outlines of regions as polygons: one for each connected part, its holes joined to it by cuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rmiseg.runtime.extras import import_extra

Corner: TypeAlias = tuple[int, int]
Edges: TypeAlias = dict[tuple[Corner, bool], Corner]
"""Ends of edges by where they begin, and whether they go to larger coordinates."""


def outlines(
    region: NDArray[np.bool_], tolerance: float, *, through_centers: bool = False
) -> list[NDArray[np.float64]]:
    """Return a polygon for each connected part of a region; parts that touch at corners alone are several.

    A hole is joined to the outline around it by a cut that is walked there and back, so that one closed line bounds
    what is in the part and nothing else. Filled by the rule of even and odd crossings, the polygons are the region
    again, if the tolerance is 0.

    Args:
        region: (H, W) bool.
        tolerance: Farthest that a simplified outline may be from that of the region, in pixels (Douglas and Peucker
            1973); parts and holes that vanish then are left out. 0 keeps every step.
        through_centers: True for outlines through the centers of the outermost pixels, for programs that draw the line
            itself too; else they run along the edges of pixels.

    Returns:
        Corners (N, 2), x and y in pixels, of each part.
    """
    cv2 = import_extra("cv2", "labels", "drawing outlines")
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    found = []
    for number, (left, top, width, height, _) in enumerate(boxes[1:count].tolist(), start=1):
        part = parts[top : top + height, left : left + width] == number
        outer, holes = np.zeros((0, 2)), []
        for ring in _rings(part):
            line = _inward(ring) if through_centers else ring
            if tolerance > 0:
                line = cv2.approxPolyDP(line.astype(np.float32), tolerance, True).reshape(-1, 2).astype(np.float64)
            if doubled_area(ring) > 0:
                outer = line
            elif len(line) > 2:
                holes.append(line)
        if len(outer) < 3:
            continue
        for hole in sorted(holes, key=lambda hole: float(hole[:, 0].min())):
            outer = _joined(outer, hole)
        found.append(outer + np.array([left, top], np.float64))
    return found


def _rings(part: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """The closed lines around a connected part and its holes: corners (N, 2), with the part to the right of the way."""
    padded = np.pad(part, 1).astype(np.int8)
    horizontal, vertical = Edges(), Edges()
    for y, x0, x1, inside_below in _runs(np.diff(padded, axis=0)[:, 1:-1]):
        start, end = (x0, x1) if inside_below else (x1, x0)
        horizontal[(start, y), inside_below] = (end, y)
    for x, y0, y1, inside_right in _runs(np.diff(padded, axis=1)[1:-1].T):
        start, end = (y1, y0) if inside_right else (y0, y1)
        vertical[(x, start), not inside_right] = (x, end)
    begins = set(horizontal)
    while horizontal:
        (corner, rightward), ring = next(iter(horizontal)), []
        while (corner, rightward) in horizontal:
            ring.append(corner)
            across = horizontal.pop((corner, rightward))
            # Where two edges begin, the part touches itself at a corner: the right turn keeps the touching ends apart.
            downward = rightward if (across, rightward) in vertical else not rightward
            ring.append(across)
            corner = vertical.pop((across, downward))
            rightward = not downward if (corner, not downward) in begins else downward
        yield np.array(ring, np.float64)


def _runs(changes: NDArray[np.int8]) -> Iterator[tuple[int, int, int, bool]]:
    """Row, first and last corner of each run of equal values other than 0, and whether they are positive."""
    padded = np.pad(changes, ((0, 0), (1, 1)))
    rows, columns = np.nonzero(np.diff(padded, axis=1))
    values = padded[rows, columns + 1]
    for index in np.flatnonzero(values).tolist():
        yield int(rows[index]), int(columns[index]), int(columns[index + 1]), bool(values[index] > 0)


def _inward(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """The line half a pixel inside of a ring whose edges are horizontal and vertical in turn, less repeated corners."""
    after, before = np.roll(ring, -1, axis=0) - ring, ring - np.roll(ring, 1, axis=0)
    way = np.sign(after + before)  # of the one edge along x, and of the other along y
    moved = ring + 0.5 * np.stack([-way[:, 1], way[:, 0]], axis=1)
    same = (moved == np.roll(moved, 1, axis=0)).all(axis=1)
    kept = moved[~same]
    # Tools want three corners, and a row or a column of pixels has two, one pixel one.
    return kept if len(kept) > 2 else np.resize(kept if len(kept) else moved[:1], (3, 2))


def doubled_area(ring: NDArray[np.float64]) -> float:
    """Return twice the area of a ring, which is positive if it is on the right of the way, where y grows downward."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _joined(outer: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """An outline with a hole, by a cut from the leftmost corner of the hole to what lies left of it."""
    start = int(hole[:, 0].argmin())
    x, y = hole[start].tolist()
    begin, end = outer, np.roll(outer, -1, axis=0)
    low, high = np.minimum(begin[:, 1], end[:, 1]), np.maximum(begin[:, 1], end[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = begin[:, 0] + (y - begin[:, 1]) / (end[:, 1] - begin[:, 1]) * (end[:, 0] - begin[:, 0])
    usable = (low <= y) & (y <= high) & (low < high) & (crossing <= x)
    around = np.concatenate([np.roll(hole, -start, axis=0), hole[start : start + 1]])
    if usable.any():
        index = int(np.where(usable, crossing, -np.inf).argmax())
        cut = np.array([[crossing[index], y]])
    else:  # simplified, the hole is not quite inside: the nearest corner will do
        index = int(((outer - hole[start]) ** 2).sum(axis=1).argmin())
        cut = outer[index : index + 1]
    joined = np.concatenate([outer[: index + 1], cut, around, cut, outer[index + 1 :]])
    repeated = (joined == np.roll(joined, 1, axis=0)).all(axis=1)
    return np.compress(~repeated, joined, axis=0)
