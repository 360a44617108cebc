"""The package as users install it."""

import subprocess
import sys
from pathlib import Path

import pytest

import rmiseg

pytestmark = pytest.mark.slow

CODE = """
import time, torch
start = time.process_time()
from rmiseg import RMILoss
print(time.process_time() - start)
"""


def test_the_losses_are_imported_quickly():
    """In under 0.3 s of processor time beyond torch."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.3


def test_types_are_published():
    assert (Path(rmiseg.__file__).parent / "py.typed").is_file()
