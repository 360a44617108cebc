"""Judgement of a page in a browser by axe, whose script comes with a package."""

from __future__ import annotations

from typing import Any

import pytest


def violations(page: Any) -> list[tuple[str, list[str]]]:
    """Rules that a page of Playwright violates, and the elements that do."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
