"""A small data set and a small model that train in seconds."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # tests run in several processes
# Where there is no GPU, the Triton kernels run in Triton's interpreter. It must be chosen before Triton is imported, as
# torchvision and timm do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples at every run, so that a change is judged by what it changed. More of the kernels', as make nightly
# has them: pytest --hypothesis-profile many. New ones: pytest --hypothesis-profile explore
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("many", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later collection of garbage, which would take half a second each."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from miniatures import write_shapes  # which imports torchvision

    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that the test starts hear Ctrl-C. Shells start what runs in the background, perhaps the tests, deaf."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
