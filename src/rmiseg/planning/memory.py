"""Memory of a training step as a function of the batch."""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT = 500 * 2**20
"""Bytes that the CUDA context and the libraries take of a GPU before the first tensor."""


@dataclass(frozen=True)
class MemoryNeed:
    """Peak memory of a training step, which grows in a line with the batch.

    Attributes:
        fixed: Bytes whatever the batch: weights, gradients, the optimizer's state.
        image: Bytes for each image.
    """

    fixed: float
    image: float

    @classmethod
    def through(cls, first: tuple[int, int], second: tuple[int, int]) -> MemoryNeed:
        """The line through two points, each a batch and its bytes."""
        slope = (second[1] - first[1]) / (second[0] - first[0])
        return cls(first[1] - slope * first[0], slope)

    def of(self, batch: float) -> float:
        """Bytes of a batch."""
        return self.fixed + self.image * batch
