"""A few of many items, for whatever looks at a sample."""

from __future__ import annotations

import numpy as np


def spread(size: int, most: int) -> list[int]:
    """Return numbers of at most so many items, evenly spaced from the first to the last."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(int).tolist() if size else []
