"""What is missing is told before anything heavy is imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rmiseg.cli import main
from rmiseg.cli.needs import FAMILIES, LABELS, LOGGERS
from rmiseg.config.registry import BUILT_IN, names
from rmiseg.runtime.extras import EXPORTS, PACKAGES

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["export", "run", "--format", "onnx"], "onnxscript", "onnx"),
        (["export", "run", "--format", "safetensors,openvino"], "openvino", "openvino"),
        (["app", "run"], "gradio", "app"),
        (["crf-search", "run"], "pydensecrf", "crf"),
        (["evaluate", "run", "--crf", "5"], "pydensecrf", "crf"),
        (["predict", "run", "film.MP4"], "av", "video"),
        (["predict", "run", "photo.png", "--write", "index,cvat"], "cv2", "labels"),
        (["train", "--model.name", "smp:Unet"], "segmentation_models_pytorch", "smp"),
        (["train", "--loss.plus", "{'monai:Dice': 1}"], "monai", "monai"),
        (["train", "--train.loggers", "csv,wandb"], "wandb", "wandb"),
        (["demo", "--out", "nowhere"], "nilearn", "demo"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(monkeypatch, capsys, arguments, package, extra):
    for name in PACKAGES[extra]:
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"needs the package {package}" in error
    assert f'pip install ".[{extra}]"' in error


def test_it_is_told_without_torch():
    code = (
        "import sys; sys.modules['onnx'] = None; from rmiseg.cli import main\n"
        "assert main(['export', 'run']) == 1; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install ".[onnx]"' in run.stderr


def test_the_tables_name_what_there_is():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(PACKAGES) <= set(extras)
    assert set(EXPORTS.values()) <= set(PACKAGES)
    assert set(EXPORTS) <= set(BUILT_IN["export"])
    assert {f"{each}:" for each in FAMILIES} <= {*names("model"), *names("loss")}
    assert set(LOGGERS) <= set(BUILT_IN["logger"])
    assert set(LABELS) <= set(BUILT_IN["labels"])


def test_data_sets_are_checked_without_torch(tmp_path):
    code = (
        "import sys; from rmiseg.data import check_dataset, print_report; import rmiseg.data.labels\n"
        f"try: check_dataset('folder', {str(tmp_path)!r})\n"
        "except FileNotFoundError: assert 'torch' not in sys.modules\n"
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
