"""Run lengths in CSV files, as Kaggle's competitions have them: a row for each image, each class in it, or each object.

A run is the number of its first pixel, counted from 1, and its length. Most competitions count down the columns
(Severstal, Airbus, clouds, HuBMAP, salt, nuclei), some along the rows (Carvana, Sartorius, UW-Madison), and no file
says which. Where images are not square, the labels do: in the wrong order they fall to pieces.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.recipes import shortened
from rmiseg.config.registry import register
from rmiseg.data.classes import ClassTable
from rmiseg.data.labels.annotations import (
    Annotations,
    LabeledImage,
    LabelFormat,
    PreLabels,
    Region,
    naming,
    written_classes,
)
from rmiseg.data.labels.documents import Documents
from rmiseg.data.labels.pictures import look_at
from rmiseg.data.labels.shapes import row_run_lengths, run_lengths
from rmiseg.data.labels.values import Size, whole

IMAGE_AND_CLASS = ("image_label", "imageid_classid")
IMAGE = ("imageid", "image_id", "image", "img", "id", "filename", "image_name", *IMAGE_AND_CLASS)
RUNS = ("encodedpixels", "rle_mask", "rle", "encoding", "segmentation", "annotation")
CLASS = ("classid", "class_id", "class", "class_name", "label", "category")
HEIGHT, WIDTH = ("height", "img_height", "image_height"), ("width", "img_width", "image_width")
"""Names of columns, in lower case."""
SEPARATORS = ",;\t"
NOTHING = ("", "-1", "nan")
"""Runs, in lower case, of an image that shows nothing."""
ONLY_CLASS = "object"
"""Class of labels that have none."""
LONGEST_CELL = 1 << 30
LOOKED_AT, ROWS_LOOKED_AT = 20, 20_000
"""Labels that the order of the pixels is told by, and rows among which they are looked for."""
TOLD_BY = 0.8
"""Share of the edges of one order, of those of the other, from which on nothing is told."""


class _Row(NamedTuple):
    """A row of a table.

    Attributes:
        line: Its number.
        image: The image as the table names it.
        label: Its class; None if the table has none.
        runs: Its runs.
        size: Height and width of the image, if the table has them.
    """

    line: int
    image: str
    label: str | None
    runs: str
    size: Size | None

    @property
    def is_empty(self) -> bool:
        """True if nothing of the class is there."""
        return self.runs.strip().lower() in NOTHING


class _Kaggle(LabelFormat):
    """Run lengths in one order of the pixels.

    Attributes:
        DOWN: True if they go down the columns.
    """

    WRITES = True
    PART_SUFFIX = ".csv"
    DOWN: ClassVar[bool]

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        for path in _tables(documents)[:5]:
            try:
                down = _goes_down(documents, path)
            except ValueError as error:  # if it is of the format that is found, reading says so
                documents.damaged.setdefault(path, str(error))
                continue
            if down is None or down == self.DOWN:
                return True
        return False

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found, tables = Annotations(), _tables(documents)
        for path in documents.files(".csv"):
            if path not in tables:
                found.unused.add("CSV files hold no labels", str(path))
        for path in tables:
            with naming(path, "run lengths"):
                rows = list(_rows(path))
                first = min((_first(row.runs) for row in rows), default=1)
                if first == 0:
                    found.notes.append(f"{path}: pixels are counted from 0, not from 1")
                if any(row.label is None for row in rows):
                    found.notes.append(f"{path}: it names no classes, so that all labels are of {ONLY_CLASS!r}")
                images: dict[str, LabeledImage] = {}
                for row in rows:
                    image = images.setdefault(row.image, LabeledImage(row.image, path, size=row.size))
                    if not row.is_empty:
                        draw = partial(_drawn, row, first, self.DOWN)
                        image.regions.append(Region(row.label or ONLY_CLASS, draw))
                for image in images.values():
                    image.path = documents.find_image(image.reference, path)
                    image.split = documents.split_of(path)
                found.images.extend(images.values())
        found.unlabeled = _beside(documents, found.images)
        return found

    def part(self, labels: PreLabels, file: Path) -> str:
        """See `LabelFormat.part`: a row for each class, with no runs where it is not."""
        classes = written_classes(labels.classes)
        rows = [(labels.name, name, runs_of(labels.ids == class_id, self.DOWN)) for class_id, name in classes]
        return _table(rows, classes)

    def compose(self, parts: Sequence[str], classes: ClassTable) -> Mapping[str, str]:
        """See `LabelFormat.compose`."""
        written = written_classes(classes)
        return {"labels.csv": _table([("ImageId", "ClassId", "EncodedPixels")], written) + "".join(parts)}


@register("labels", "kaggle-columns")
class KaggleColumns(_Kaggle):
    """Run lengths that go down the columns."""

    TITLE = "run lengths down the columns, as of most of Kaggle"
    DOWN = True


@register("labels", "kaggle-rows")
class KaggleRows(_Kaggle):
    """Run lengths that go along the rows."""

    TITLE = "run lengths along the rows, as of some of Kaggle"
    DOWN = False


def pixels_of(runs: str, first: int, down: bool, size: Size) -> NDArray[np.bool_]:
    """Return the pixels (H, W) of runs.

    Args:
        runs: First pixel and length of each, in turn.
        first: Number of the first pixel of the image.
        down: True if pixels are counted down the columns, else along the rows.
        size: Height and width of the image.

    Raises:
        ValueError: They are no runs of an image of that size.
    """
    try:
        numbers = np.array(runs.split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"run lengths must be whole numbers, not {shortened(repr(runs), 60)}") from error
    if len(numbers) % 2:
        raise ValueError(f"run lengths are pairs of a first pixel and a length, not {len(numbers)} numbers")
    starts, lengths = numbers[::2] - first, numbers[1::2]
    ends = starts + lengths
    if (starts < 0).any() or (lengths < 1).any():
        raise ValueError("a run begins before the image, or is empty")
    if (starts[1:] < ends[:-1]).any():
        raise ValueError(
            "a run begins before the one before it ends. Are they counted from there, as of SIIM's competition? Such "
            "are not read: write a mask for each image, a data set `folder`"
        )
    total = size[0] * size[1]
    if len(ends) and ends[-1] > total:
        raise ValueError(
            f"a run ends at pixel {ends[-1] + first - 1}, beyond the {size[1]} x {size[0]} of its image: is that the "
            "image that was labeled, in its size?"
        )
    counts = np.diff(np.stack([starts, ends], axis=1).ravel(), prepend=0, append=total)  # outside and inside in turn
    return run_lengths(counts, size, size) if down else row_run_lengths(counts, 0, 0, size[1], size[0], size)


def _first(runs: str) -> int:
    """0 if the first pixel of an image is called so, else 1."""
    return 0 if re.match(r"\s*0\s", runs) else 1


def runs_of(pixels: NDArray[np.bool_], down: bool) -> str:
    """Return the runs of pixels (H, W), counted from 1; see `pixels_of`."""
    inside = np.zeros(pixels.size + 2, np.int8)
    inside[1:-1] = pixels.ravel(order="F" if down else "C")
    changes = np.diff(inside)
    starts, ends = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()))


def _table(rows: Sequence[tuple[str, str, str]], classes: Sequence[tuple[int, str]]) -> str:
    """Rows of image, class and runs as lines of CSV; without the class, if there is one alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(rows if len(classes) > 1 else [(image, runs) for image, _, runs in rows])
    return text.getvalue()


def _drawn(row: _Row, first: int, down: bool, size: Size) -> NDArray[np.bool_]:
    with naming(f"line {row.line}", "run lengths"):
        return pixels_of(row.runs, first, down, size)


def _beside(documents: Documents, images: list[LabeledImage]) -> list[Path]:
    """Images of which there are no rows, in the folders of others: of tables that have rows for what is there alone.

    Those of other folders are to be tested with.
    """
    named = {os.path.normpath(image.path) for image in images if image.path is not None}
    folders = {os.path.dirname(path) for path in named}
    there = {os.path.normpath(path): path for path in documents.image_files()}
    return [path for name, path in there.items() if name not in named and os.path.dirname(name) in folders]


def _tables(documents: Documents) -> list[Path]:
    """The CSV files that hold run lengths, but for predictions that were, or might be, submitted."""
    return [path for path in documents.files(".csv") if "submission" not in path.name.lower() and _is_table(path)]


def _is_table(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.readline(1000).decode("utf-8-sig", "replace")
    columns = [name.strip().strip('"').lower() for name in header.split(_separator(header))]
    if _column(columns, IMAGE) is None or _column(columns, RUNS) is None:
        return False
    try:
        runs = next((row.runs for row in _rows(path) if not row.is_empty), None)
    except ValueError:
        return True  # which is said when it is read
    return runs is None or re.match(r"\s*\d+\s+\d+(\s|$)", runs) is not None


def _separator(header: str) -> str:
    """Character between the cells, by the first line: spreadsheets also write semicolons and tabs."""
    return max(SEPARATORS, key=header.count)


def _column(columns: list[str], known: tuple[str, ...]) -> int | None:
    return next((columns.index(name) for name in known if name in columns), None)


def _rows(path: Path) -> Iterator[_Row]:
    """Rows of a table, one after the other.

    Raises:
        ValueError: It is damaged.
    """
    csv.field_size_limit(LONGEST_CELL)  # where most are of hundreds of kilobytes
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            header = file.readline()
            lines = csv.reader(chain([header], file), strict=True, delimiter=_separator(header))
            columns = [name.strip().lower() for name in next(lines, [])]
            image, runs, label = (_column(columns, known) for known in (IMAGE, RUNS, CLASS))
            height, width = _column(columns, HEIGHT), _column(columns, WIDTH)
            if image is None or runs is None:
                raise ValueError("it has no columns of images and run lengths")
            both = label is None and columns[image] in IMAGE_AND_CLASS
            for cells in filter(None, lines):
                if len(cells) != len(columns):
                    raise ValueError(f"{len(cells)} cells, where the first line has {len(columns)}")
                name, of = cells[image], None if label is None else cells[label].strip()
                if both:
                    name, between, of = name.rpartition("_")
                    if not between:
                        raise ValueError(f"{shortened(repr(of), 60)} is no image and class with _ between them")
                size = None
                if height is not None and width is not None:
                    size = whole(cells[height], "height"), whole(cells[width], "width")
                yield _Row(lines.line_num, name, of, cells[runs], size)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error.reason}") from error
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path}, line {lines.line_num}: {error}") from error


@lru_cache(maxsize=5)  # both formats ask
def _goes_down(documents: Documents, path: Path) -> bool | None:
    """Tell whether runs go down the columns, by the edges of some labels in either order; None if they do not say."""
    edges = np.zeros(2)
    looked_at = 0
    for number, row in enumerate(_rows(path)):
        if looked_at == LOOKED_AT or number == ROWS_LOOKED_AT:
            break
        size = None if row.is_empty else row.size or _size(documents, row, path)
        if size is None or size[0] == size[1]:
            continue
        try:
            edges += [_edges(pixels_of(row.runs, _first(row.runs), down, size)) for down in (False, True)]
        except ValueError:
            continue  # which is said when it is read
        looked_at += 1
    if edges.min() >= TOLD_BY * edges.max():
        return None
    return bool(edges.argmin() == 1)


def _size(documents: Documents, row: _Row, path: Path) -> Size | None:
    image = documents.find_image(row.image, path)
    return None if image is None else look_at(image, LabeledImage(row.image, path)).size


def _edges(pixels: NDArray[np.bool_]) -> int:
    """Number of neighbors of which one is inside."""
    return int((pixels[1:] != pixels[:-1]).sum() + (pixels[:, 1:] != pixels[:, :-1]).sum())
