"""Packages that only some tasks need, which extras of this one install."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

PACKAGES = {
    "app": ("gradio",),
    "crf": ("pydensecrf",),
    "demo": ("nilearn",),
    "executorch": ("executorch",),
    "hf": ("transformers",),
    "labels": ("cv2",),
    "mlflow": ("mlflow",),
    "monai": ("monai",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "smp": ("segmentation_models_pytorch",),
    "video": ("av",),
    "wandb": ("wandb",),
}
"""Packages, by the names under which they are imported, that a task which needs an extra cannot do without."""

EXPORTS = {
    "executorch": "executorch",
    "onnx": "onnx",
    "onnx-int8": "onnx",
    "openvino": "openvino",
    "triton-server": "onnx",
}
"""Extra of each export format that needs one."""


def require(extra: str, purpose: str) -> None:
    """See that the packages of an extra are installed, without importing them.

    Raises:
        ModuleNotFoundError: One is not; the message names the extra that installs it.
    """
    for package in PACKAGES[extra]:
        if not _is_there(package):
            raise _missing(package, extra, purpose, f"No module named {package!r}")


def require_for_export(name: str) -> None:
    """See that the packages of an export format are installed, without importing them.

    Raises:
        ModuleNotFoundError: As `require`.
    """
    if name in EXPORTS:
        require(EXPORTS[name], f"the export format {name}")


def is_installed(extra: str) -> bool:
    """Return whether the packages of an extra are installed, without importing them."""
    return all(map(_is_there, PACKAGES[extra]))


def remedy(extra: str) -> str:
    """Return the command that installs an extra; there is no rmiseg on a package index yet."""
    return f'pip install ".[{extra}]" in the checkout of rmiseg'


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(module.split(".")[0], extra, purpose, str(error), error.name) from error


def _is_there(package: str) -> bool:
    there = sys.modules[package] if package in sys.modules else importlib.util.find_spec(package)
    return there is not None


def _missing(package: str, extra: str, purpose: str, reason: str, name: str | None = None) -> ModuleNotFoundError:
    text = f"{purpose} needs the package {package} ({reason}): {remedy(extra)}"
    return ModuleNotFoundError(text, name=name or package)
