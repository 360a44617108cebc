"""Table of names: how the entries of one kind of file are called in this package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

BODY = "backbone.body."
"""Beginning of the names of a backbone's entries in this package; what follows is timm's name."""


@dataclass(frozen=True)
class Family:
    """Files of one program, of a network that is not part of another.

    Attributes:
        title: Name of the program, for people.
        marks: Patterns that names in its files begin with: a file is of the family if each finds some name.
        table: Patterns that names begin with, and what stands there in this package; the first that fits counts.
        unused: Patterns of names that nothing in this package stands for.
        needed: Pattern that names begin with, of the head at least. An entry of them for which nothing in this package
            stands makes it another network.
        output_stride: Output stride of its networks, which files do not tell.
        options: Options of the models of this package that make them these.
        order: Patterns of names in this package of convolutions over several maps that are concatenated otherwise
            there, and for each map here, which it is there.
    """

    title: str
    marks: tuple[str, ...]
    table: tuple[tuple[str, str], ...]
    unused: tuple[str, ...] = ()
    needed: str = r"(?!)"  # no name
    output_stride: int = 16
    options: tuple[tuple[str, bool], ...] = ()
    order: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def recognizes(self, names: Iterable[str]) -> bool:
        """Return whether a file with entries of these names is of the family."""
        names = list(names)
        return all(any(re.match(mark, name) for name in names) for mark in self.marks)

    def own_name(self, name: str) -> str | None:
        """Return the name in this package; None if nothing there stands for it."""
        if any(re.match(pattern, name) for pattern in self.unused):
            return None
        for pattern, replacement in self.table:
            renamed, count = re.subn(f"^{pattern}", replacement, name)
            if count:
                return renamed
        return None

    def own_value(self, name: str, value: Tensor) -> Tensor:
        """Return the value of an entry as it is here: with its input channels in the order of this package.

        Args:
            name: Its name in this package.
            value: Its value in the file.
        """
        for pattern, order in self.order:
            if re.fullmatch(pattern, name) and value.ndim > 1 and value.shape[1] % len(order) == 0:
                maps = value.chunk(len(order), dim=1)
                return torch.cat([maps[i] for i in order], dim=1)
        return value


def conv_norm(theirs: str, ours: str, conv: str = "0", norm: str = "1") -> tuple[tuple[str, str], ...]:
    """Return the rows of a convolution and the norm behind it."""
    return (
        (rf"{theirs}\.{conv}\.", f"{ours}.conv."),
        (rf"{theirs}\.{norm}\.", f"{ours}.norm."),
    )
