"""Base of the data set modules: how its files lie in a folder, and which image goes with which mask."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from rmiseg.data.images import Split


class Layout(ABC):
    """The layout of a data set's files, registered by its name:

        @register("dataset", "mine")
        class Mine(Layout): ...

    The constructor takes the data set's own options, if it is registered with any, as keyword arguments.

    Attributes:
        TREE: The files as they should lie, for messages; "{root}" stands for the folder of the data set.
            Indentation that all lines share is left out.
        MARKS: Patterns of paths below its folder that files of no other data set have, one of which is enough to know
            it by, see `rmiseg.data.sets.finding.recognized`; by default there are none.
        WRITES_ROOT: True if the folder need not exist, because the data set writes it on first use.
    """

    TREE: ClassVar[str]
    MARKS: ClassVar[tuple[str, ...]] = ()
    WRITES_ROOT: ClassVar[bool] = False

    @classmethod
    def tree(cls, root: str | Path) -> str:
        """Return the files as they should lie in a folder, each line indented by two spaces."""
        return textwrap.indent(textwrap.dedent(cls.TREE).strip(), "  ").format(root=root)

    @abstractmethod
    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """Return all splits that the data set may have, and the files and folders that each needs."""

    @abstractmethod
    def scan_split(self, root: Path, split: str) -> Split:
        """List the pairs of a split whose parts exist, and whatever does not pair up."""
