"""The project's own tests of what computes, on the GPU: trainings, scores, predictions, losses and kernels."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.batches import Place

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("training", "inference", "evaluation", "losses", "models", "planning", "kernels")
APART = "not int32"
"""An expression of pytest; a test that needs half of the memory for itself is among `modes`."""


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """The last line of pytest, and the names of the tests that failed, each with the first line of its error."""
    chosen = ["evaluation/test_metrics.py"] if place.tiny else list(FOLDERS)
    command = [sys.executable, "-m", "pytest", *(str(ROOT / "tests" / name) for name in chosen)]
    command += [
        "-m",
        "not nightly",
        "-k",
        APART,
        "-p",
        "no:cacheprovider",
        "--tb=line",
        "-o",
        "addopts=--import-mode=importlib",
    ]
    if not place.tiny:
        command += ["-n", str(place.workers), "--dist", "worksteal"]
    places = [str(ROOT / "src"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "300"}
    run = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        text = run.communicate(timeout=max(1.0, place.seconds - 10))[0]
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGINT)  # upon which it says what it has found so far
        text = run.communicate()[0]
    yield "failed", re.findall(r"^(?:FAILED|ERROR) (.*)", text, re.MULTILINE)
    yield "errors", re.findall(r"^(/.*: .*)", text, re.MULTILINE)[:100]
    lines = text.strip().splitlines()
    yield "outcome", lines[-1].strip("= ") if lines else ""
