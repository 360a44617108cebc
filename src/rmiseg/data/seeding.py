"""Random numbers of one item, apart from those of everything else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's, Python's and NumPy's global random numbers, and restore them afterwards.

    Args:
        seed: 0 .. 2^63 - 1.
    """
    with torch.random.fork_rng(devices=[]), _restored():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes as long as a transform
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002  others' data sets and transforms draw from it
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """Restore Python's and NumPy's generators, except in a loader's worker, where nobody else draws from them."""
    if get_worker_info() is not None:  # saving NumPy's alone takes 0.1 ms
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
