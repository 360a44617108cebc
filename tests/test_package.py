"""The package as users install it."""

import subprocess
import sys
from pathlib import Path

import rmiseg

CODE = """
import time, torch
start = time.process_time()
from rmiseg import RMILoss
print(time.process_time() - start)
"""


def test_the_losses_are_imported_quickly():
    """In under 0.3 s beyond torch; the best of three, whatever else the machine is doing."""
    runs = [subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.3


def test_types_are_published():
    assert (Path(rmiseg.__file__).parent / "py.typed").is_file()
