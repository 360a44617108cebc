"""Files of tensors and plain values: written whole or not at all, sealed with a checksum, read without running code."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmiseg.config.recipes import shortened
from rmiseg.runtime.checksums import DamagedError, check_zip, seal_zip
from rmiseg.runtime.files import replacing
from rmiseg.runtime.words import some


def write_content(path: Path, file_format: str, content: dict[str, Any]) -> None:
    """Write tensors and plain values to `path`, in one go: an error or a kill leaves what was there before.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    with replacing(path) as temporary, open(temporary, "w+b") as file:
        try:
            torch.save({"format": file_format, **content}, file)
        except RuntimeError as error:  # how torch.save ends when a write fails; the reason is what led to it
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"{path} could not be written: {first_sentence(reason)}") from error
        seal_zip(file)
        file.flush()
        os.fsync(file.fileno())


def read_content(path: Path, file_format: str, advice: str = "") -> dict[str, Any]:
    """Read what `write_content` wrote, without running any code in it.

    Args:
        path: The file.
        file_format: Name of the format that it must have.
        advice: Added to what is said of a file of another format.

    Raises:
        ValueError: The file is damaged, holds objects other than tensors and plain values, or has another format.
    """
    try:
        check_zip(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"{path} is not a checkpoint of rmiseg: it holds {found[1] if found else 'something'} beside tensors and "
            "plain values. It was not loaded, since that could run code in it"
        ) from error
    except Exception as error:  # of whatever a damaged pickle makes torch do
        raise ValueError(
            f"{path} cannot be read as a checkpoint, it may be cut short: {first_sentence(error)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != file_format:
        held = shortened(some(content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} is not a checkpoint of rmiseg, which has the format {file_format!r}; it holds {held}"
            f"{advice and '. '}{advice}"
        )
    del content["format"]
    return content


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds a value that is not finite, and which; None if there is none."""
    for name, tensor in tensors.items():
        # A sum is not finite either then, and takes a tenth of the time.
        if tensor.is_floating_point() and tensor.numel() and not tensor.detach().sum().isfinite():
            strange = tensor[~tensor.isfinite()]
            if strange.numel():
                return f"{name} holds {strange[0].item()}"
    return None


def check_tensors(tensors: Any) -> dict[str, Tensor]:
    """Return tensors by their names, if that is what they are.

    Raises:
        ValueError: They are not, or hold values that are not finite.
    """
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError("its weights are not tensors by their names")
    if strange := [name for name, tensor in tensors.items() if not _is_plain(tensor)]:
        raise ValueError(f"{shortened(strange[0])} is no plain tensor of numbers, or declares more than it holds")
    if (found := not_finite(tensors)) is not None:
        raise ValueError(f"its weights are not finite ({found}): the training had diverged")
    return dict(tensors)


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is dense, in memory, of whole or real numbers, each with bits of its own."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return False
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.itemsize < 2):
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize


def first_sentence(error: Exception) -> str:
    """The beginning of an error's message: torch appends paragraphs of advice, partly to do what must not be done."""
    return " ".join(str(error).split()).partition(". ")[0][:300]
