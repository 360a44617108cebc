"""The script for a GPU, tried on the CPU at tiny sizes, and the tables of what it found."""

import importlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from miniatures import write_camvid
from rmiseg.data import load_split

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


@pytest.mark.parametrize("part", ["loading", "evaluation", "planned", "suite"])
def test_parts_that_read_files(part, tmp_path, monkeypatch):
    """In this process, and without the interpreter of the kernels; then as a table."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    batches = importlib.import_module("gpu.batches")
    monkeypatch.setattr(batches, "set_constants", lambda values: values)
    found = dict(importlib.import_module(f"gpu.{part}").measure(batches.Place("cpu", 1, True)))
    if part == "planned":
        assert {"rmi + dice", "ce + dice"} == set(found)
        assert all(0 <= each["scores"]["mean_iou"] <= 1 and each["foreseen"] > 0 for each in found.values())
    elif part == "suite":
        assert found["failed"] == []
        assert " passed" in found["outcome"]
    elif part == "evaluation":
        assert all(0 < each["model"] <= each["total"] for each in found.values())
    else:
        assert all(value > 0 for value in found.values())
        assert len(found) == 3
    (tmp_path / "result.json").write_text(json.dumps({"device": "cpu", part: {"found": found}}))
    table = importlib.import_module("gpu_table")
    assert len(getattr(table, part)(found)) == (1 if part == "suite" else 2 + len(found))
    assert "cpu" in call("gpu_table.py", tmp_path / "result.json").stdout


def test_what_travels(tmp_path):
    """Sources, packages and data in one file; another machine's Python finds them."""
    write_camvid(tmp_path / "data")
    run = call("gpu_pack.py", tmp_path / "check.tar.gz", "--data", f"camvid={tmp_path / 'data'}", "--packages", "mdurl")
    assert run.returncode == 0, run.stderr
    with tarfile.open(tmp_path / "check.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    there = tmp_path / "check"
    assert (there / "packages" / "mdurl" / "__init__.py").is_file()
    assert not list(there.rglob("*.so"))
    split = load_split("folder", str(there / "data"), "train")
    assert len(split) == len(load_split("camvid", str(tmp_path / "data"), "train"))
    assert len(split.classes) == 11
    split.read(0)
    run = subprocess.run([sys.executable, there / "benchmarks" / "gpu_check.py", "--help"], capture_output=True)
    assert run.returncode == 0
    missing = call("gpu_pack.py", tmp_path / "other.tar.gz", "--packages", "no-such-package")
    assert "no-such-package is not installed" in missing.stderr


def test_a_part_is_cut_off(tmp_path):
    run = call("gpu_check.py", tmp_path / "result.json", "--tiny", "--budget", 5.5, "--parts", "correctness")
    assert run.returncode == 1
    assert "cut off after" in json.loads((tmp_path / "result.json").read_text())["correctness"]["problem"]


def test_tables_of_what_was_measured():
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    tables = call("gpu_table.py", *results)
    assert tables.returncode == 0, tables.stderr
    assert "108 of 108 settings right" in tables.stdout
    assert "NVIDIA H100" in tables.stdout
