"""Labels of images as the formats hand them on, and the base of the formats.

A format is registered by its name, and is all that there is to add for another tool:

    @register("labels", "mine")
    class Mine(LabelFormat): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rmiseg.config.recipes import shortened
from rmiseg.data.classes import ClassTable, Color
from rmiseg.data.labels.documents import JSON_SUFFIXES, Documents
from rmiseg.data.labels.outlines import outlines
from rmiseg.data.labels.shapes import exact_polygons
from rmiseg.data.labels.values import Size, class_name
from rmiseg.runtime.words import some

Draw: TypeAlias = Callable[[Size], NDArray[np.bool_]]
"""Returns the pixels (H, W) of a label in an image of that size. Raises ValueError."""

BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg")
"""Names, in lower case, by which tools call what is no object."""
IGNORED_NAMES = ("__ignore__", "_ignore_", "ignore", "void")
"""Names, in lower case, of what is neither trained on nor scored."""


@dataclass(frozen=True)
class Region:
    """A label of an image: its class, and its pixels.

    Attributes:
        label: Name of the class.
        draw: Returns its pixels.
        crowd: True if it lies behind the others, as a roughly outlined crowd does.
        box: True if it is a rectangle, which perhaps says no more than where an object is.
    """

    label: str
    draw: Draw
    crowd: bool = False
    box: bool = False


def polygon(label: str, corners: NDArray[np.float64], *, box: bool = False) -> Region | None:
    """Return the label of a polygon (N, 2), drawn as pycocotools does; None of fewer than three corners."""
    return Region(label, partial(exact_polygons, [corners]), box=box) if len(corners) > 2 else None


FEW_CORNERS = "polygons of fewer than three corners"
"""A reason why labels cannot be used."""
POLYGONS = ("polygon", "complex_polygon", "multipolygon")
"""Kinds of labels, in lower case, that have an area unless their corners are too few."""


def without_area(kind: object) -> str:
    """Return the reason why a label of some kind, as its tool calls it, cannot be used."""
    return FEW_CORNERS if str(kind).lower() in POLYGONS else f"labels are of the kind {kind}, whose area is not read"


@dataclass
class LabeledImage:
    """One image, as a tool knows it.

    Attributes:
        reference: The image as the tool names it.
        document: File that says so.
        regions: Its labels; later ones lie in front.
        size: Height and width as the tool knows them; None if it does not say.
        split: Name of its split; "" if it has none.
        path: The image, if the format knows where it is; else the reference is looked up.
        embedded: Content of the image file, encoded as base64, where the document holds it.
    """

    reference: str
    document: Path
    regions: list[Region] = field(default_factory=list)
    size: Size | None = None
    split: str = ""
    path: Path | None = None
    embedded: str | None = None


class Tally:
    """Things that cannot be used, by the reason: how many, and the first few."""

    def __init__(self) -> None:
        self.reasons: dict[str, list[str]] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one thing."""
        self.reasons.setdefault(reason, []).append(shortened(example))

    def lines(self, most: int = 3) -> list[str]:
        """Return a line for each reason."""
        return [
            f"{len(examples)} {reason}: {some(dict.fromkeys(examples), most)}"
            for reason, examples in self.reasons.items()
        ]


def add_region(
    image: LabeledImage, kind: object, read: Callable[[], Region | None], title: str, example: str, unused: Tally
) -> None:
    """Add a label to an image, or count it as one that cannot be used.

    Args:
        image: The image.
        kind: Kind of the label, as the tool calls it.
        read: Returns the label; None if it has no area.
        title: What to call it in an error.
        example: What to call it among those that cannot be used.
        unused: Where it is counted then.

    Raises:
        ValueError: It is damaged; the message names it.
    """
    try:
        region = read()
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error
    if region is None:
        unused.add(without_area(kind), example)
    else:
        image.regions.append(region)


@contextmanager
def naming(where: object, holds: str) -> Iterator[None]:
    """Let errors name what was being read, a file or a part of one, if they do not yet.

    Args:
        where: What is read.
        holds: What it should hold, such as "CVAT's labels", where it lacks something.

    Raises:
        ValueError: Something is missing in there, or wrong.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{where} does not hold {holds}: {error} is missing") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{where} does not hold {holds}: a value is not of the kind it should be") from error
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(where)) else f"{where}: {error}") from error


@dataclass
class Annotations:
    """All labels of a source.

    Attributes:
        images: The images that the source names.
        classes: Names of the classes in the order of the source; those that it does not list follow, sorted.
        colors: Colors of classes, where the source has them.
        smaller_in_front: True if of labels that overlap smaller ones lie in front, rather than later ones.
        unlabeled: Images that lie there without any labels.
        unused: Labels that cannot be used.
        notes: Decisions, one line each.
    """

    images: list[LabeledImage] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    colors: dict[str, Color] = field(default_factory=dict)
    smaller_in_front: bool = False
    unlabeled: list[Path] = field(default_factory=list)
    unused: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)

    def add_class(self, value: Any, color: Color | None = None) -> str:
        """Add a class that the source lists, unless it is there, with its color if it has one; returns its name.

        Raises:
            ValueError: The value is no name.
        """
        name = class_name(value)
        if name not in self.classes:
            self.classes.append(name)
        if color is not None:
            self.colors[name] = color
        return name


@dataclass(frozen=True)
class PreLabels:
    """A prediction for one image, to be written as labels.

    Attributes:
        image: The file of the image.
        name: The relative path of the image, with its suffix.
        ids: Class ids (H, W) uint8.
        classes: The classes. Those with a name of `BACKGROUND_NAMES` are not written.
        tolerance: Farthest that an outline may be from the edge of its region, in pixels.
    """

    image: Path
    name: str
    ids: NDArray[np.uint8]
    classes: ClassTable
    tolerance: float

    def polygons(self, *, through_centers: bool = False) -> Iterator[tuple[int, str, NDArray[np.float64]]]:
        """Yield class id, name and corners (N, 2) of each polygon to write; see `outlines`."""
        for class_id, name in written_classes(self.classes):
            for corners in outlines(self.ids == class_id, self.tolerance, through_centers=through_centers):
                yield class_id, name, corners


def written_classes(classes: ClassTable) -> list[tuple[int, str]]:
    """Return ids and names of the classes that are written as labels: all but the background."""
    return [(i, name) for i, name in enumerate(classes.names) if name.lower() not in BACKGROUND_NAMES]


class LabelFormat(ABC):
    """A format of a labelling tool. The constructor takes no arguments.

    Attributes:
        TITLE: The format as people call it.
        WRITES: True if predictions can be written in it.
        TOGETHER: True if a tool takes one file of many images, which `compose` makes of their parts.
        PART_SUFFIX: Suffix of the file of one image.
    """

    TITLE: ClassVar[str]
    WRITES: ClassVar[bool] = False
    TOGETHER: ClassVar[bool] = True
    PART_SUFFIX: ClassVar[str] = ".json"

    @abstractmethod
    def recognizes(self, documents: Documents) -> bool:
        """Tell whether files are of this format, by a look at a few."""

    @abstractmethod
    def read(self, documents: Documents) -> Annotations:
        """Read all labels.

        Raises:
            ValueError: A file is damaged, or not what it should be; the message names it.
        """

    def part(self, labels: PreLabels, file: Path) -> str:
        """Return the text of the file of one image.

        Args:
            labels: The prediction.
            file: Where it will be.
        """
        raise NotImplementedError

    def compose(self, parts: Sequence[str], classes: ClassTable) -> Mapping[str, str]:
        """Return the texts, by file name, of the files that the tool takes, from those of all images."""
        raise NotImplementedError


class JSONFormat(LabelFormat):
    """A format of JSON files. Files that are not of it are counted as unused.

    Attributes:
        OWNER: Whose files they are, and
        HOLDS: what they hold, for messages; see `naming`.
    """

    OWNER: ClassVar[str]
    HOLDS: ClassVar[str]

    @abstractmethod
    def is_own(self, content: Any) -> bool:
        """Tell whether a file is of this format, by its content."""

    @abstractmethod
    def read_file(self, path: Path, content: Any, documents: Documents, found: Annotations) -> None:
        """Add the labels of a file to what was found.

        Raises:
            KeyError, TypeError, AttributeError, IndexError, ValueError: It is damaged; the caller names it.
        """

    def recognizes(self, documents: Documents) -> bool:
        """See `LabelFormat.recognizes`."""
        return any(map(self.is_own, documents.peek()))

    def read(self, documents: Documents) -> Annotations:
        """See `LabelFormat.read`."""
        found = Annotations()
        for path in documents.files(*JSON_SUFFIXES):
            content = documents.json(path)
            if not self.is_own(content):
                found.unused.add(f"JSON files are not of {self.OWNER}", str(path))
                continue
            with naming(path, self.HOLDS):
                self.read_file(path, content, documents, found)
        return found
