"""The interpreter of Triton, without what it adds to every sum and product of integers."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def integers_unchecked() -> Iterator[None]:
    """At the sizes of these tests no 32 bits overflow, and to look whether they did takes 40 % of the time."""
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        yield
        return
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=False))
        yield
