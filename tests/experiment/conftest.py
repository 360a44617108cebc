"""Short experiments."""

from __future__ import annotations

import pytest

from rmiseg.experiment import timing


@pytest.fixture(autouse=True, scope="session")
def few_timed_steps():
    """Times are measured, but not well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "WARM_UP", 0)
        patch.setattr(timing, "ROUNDS", 2)
        yield
