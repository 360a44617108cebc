"""The script for a GPU, tried on the CPU at tiny sizes, and the tables of what it found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def call(script, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_parts_run_and_are_not_asked_twice(tmp_path):
    pytest.importorskip("triton")
    result = tmp_path / "result.json"
    options = [result, "--tiny", "--workers", 1, "--budget", 300, "--parts", "first", "training"]
    run = call("gpu_check.py", *options)
    found = json.loads(result.read_text())
    assert run.returncode == 0, run.stdout + run.stderr
    assert found["device"] == "cpu"
    assert found["first"]["found"]["gradient error"] < 1e-5
    assert set(found["training"]["found"]) == {"bf16, RMI", "bf16, F.cross_entropy, full size"}
    assert call("gpu_check.py", *options).stdout == ""


def test_a_part_is_cut_off(tmp_path):
    run = call("gpu_check.py", tmp_path / "result.json", "--tiny", "--budget", 6, "--parts", "training")
    assert run.returncode == 1
    assert "cut off after" in json.loads((tmp_path / "result.json").read_text())["training"]["problem"]


def test_tables_of_what_was_measured():
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    tables = call("gpu_table.py", *results)
    assert tables.returncode == 0, tables.stderr
    assert "108 of 108 settings right" in tables.stdout
    assert "NVIDIA H100" in tables.stdout
