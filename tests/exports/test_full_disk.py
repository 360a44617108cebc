"""A full disk is said in a sentence that names the file, by every format and command, and nothing is left half."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from rmiseg.config import ModelConfig
from rmiseg.exports.export import export
from rmiseg.runtime.files import replacing
from support.checkpoints import save_untrained
from support.launch import run

MODEL = ModelConfig("deeplabv3", backbone="test_efficientnet", weights="none")


def full(most: int) -> None:
    """No file may be larger than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def write(folder: Path, name: str) -> None:
    save_untrained(folder / "a.pt", model=MODEL)
    full(3000)
    with pytest.raises(OSError, match=r"File too large|could not be written"):
        export(folder / "a.pt", [name], out=folder / "out")


@pytest.mark.parametrize("name", ["safetensors", pytest.param("torch-export", marks=pytest.mark.slow)])
def test_exports_on_a_full_disk(tmp_path, name):
    assert run(write, tmp_path, name) == [0]
    assert os.listdir(tmp_path / "out") == []


def test_the_error_names_the_file(tmp_path):
    assert run(_half, tmp_path) == [0]
    assert os.listdir(tmp_path) == []


def _half(folder: Path) -> None:
    full(10)
    with (
        pytest.raises(OSError, match=r"File too large: .*scores\.json"),
        replacing(folder / "scores.json") as temporary,
    ):
        temporary.write_text(100 * "x")
