"""A small data set and a small model that train in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # tests run in several processes
# Where there is no GPU, the Triton kernels run in Triton's interpreter. It must be chosen before Triton is imported, as
# torchvision and timm do.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples at every run, so that a change is judged by what it changed. New ones:
# pytest --hypothesis-profile explore
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from miniatures import write_shapes  # which imports torchvision

    return write_shapes(tmp_path_factory.mktemp("shapes"))
