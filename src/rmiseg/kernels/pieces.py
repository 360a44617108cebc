"""Sizes of what is worked on at a time, in ordinary operations."""

from __future__ import annotations

import torch

GPU_TIMES = 32
"""Pieces for a GPU are larger: each costs launches, and there is no cache to stay in."""


def piece(values: int, device: torch.device) -> int:
    """Values of a piece, from those that stay in the cache of a CPU."""
    return values if device.type == "cpu" else GPU_TIMES * values
