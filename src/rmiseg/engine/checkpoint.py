"""Checkpoints: one file that holds the weights and all that is needed to evaluate and predict with them.

A file is written beside its final name and renamed, so that a name always stands for a whole checkpoint. Reading one
never runs code that is in it.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data.dataset import ClassTable
from rmiseg.files import replacing
from rmiseg.models import build_model

FORMAT = "rmiseg checkpoint 1"
CHECKPOINTS, LAST, BEST = "checkpoints", "last.pt", "best.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and how to use it.

    Attributes:
        weights: The model's state dict.
        model: How the model is built.
        data: How its images were prepared, and where they were.
        classes: What its classes are called, and their colors.
        step: Optimizer steps taken.
        scores: Scores on the validation split, by name; empty if it was not evaluated.
        architecture: What else the model is built from, see `SegmentationModel`.
    """

    weights: Mapping[str, Tensor]
    model: ModelConfig
    data: DataConfig
    classes: ClassTable
    step: int
    scores: dict[str, float]
    architecture: dict[str, Any] | None = None

    def build_model(self, device: torch.device) -> nn.Module:
        """The trained model, in evaluation mode, on `device`.

        Raises:
            ValueError: The weights are not those of the model that the checkpoint describes.
        """
        model = build_model(
            self.model.name,
            num_classes=len(self.classes),
            backbone=self.model.backbone,
            output_stride=self.model.output_stride,
            weights="none",
            architecture=self.architecture,
        )
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ValueError(
                f"the checkpoint's weights are not those of {self.model} and "
                f"{len(self.classes)} classes, as it says itself: {_first_sentence(error)}, ..."
            ) from error
        return model.to(device).eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, in one go: an error or a kill leaves what was there before."""
    content = {
        "weights": dict(checkpoint.weights),
        "model": asdict(checkpoint.model),
        "data": asdict(checkpoint.data),
        "classes": asdict(checkpoint.classes),
        "step": checkpoint.step,
        "scores": checkpoint.scores,
        "architecture": checkpoint.architecture,
    }
    write_content(path, FORMAT, content)


def write_content(path: Path, file_format: str, content: dict[str, Any]) -> None:
    """Write tensors and plain values to `path`, in one go: an error or a kill leaves what was there before.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": file_format, **content}, file)
        except RuntimeError as error:  # how torch.save ends when a write fails; the reason is what led to it
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"{path} could not be written: {_first_sentence(reason)}") from error
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, or the best one of a run's folder, without running any code in it.

    Raises:
        FileNotFoundError: There is no such file, or no checkpoint in the folder.
        ValueError: The file is damaged, holds objects other than tensors and plain values, or is no checkpoint of
            rmiseg.
    """
    path = find_checkpoint(path)
    content = read_content(path, FORMAT, "Backbone weights of other programs go into a training run as model.weights")
    try:
        return Checkpoint(
            weights=dict(content["weights"]),
            model=ModelConfig(**content["model"]),
            data=DataConfig(**content["data"]),
            classes=ClassTable(**content["classes"]),
            step=content["step"],
            scores=content["scores"],
            architecture=content.get("architecture"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is marked as a checkpoint of rmiseg, but its content is not as it should be ({error}); was it "
            "written by another version?"
        ) from error


def read_content(path: Path, file_format: str, advice: str = "") -> dict[str, Any]:
    """Read what `write_content` wrote, without running any code in it.

    Raises:
        ValueError: The file is damaged, holds objects other than tensors and plain values, or has another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"{path} is not a checkpoint of rmiseg: it holds {found[1] if found else 'something'} beside tensors and "
            "plain values. It was not loaded, since that could run code in it"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint, it may be cut short: {_first_sentence(error)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != file_format:
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} is not a checkpoint of rmiseg, which has the format {file_format!r}; it holds {keys}, ... {advice}"
        )
    del content["format"]
    return content


def find_checkpoint(path: str | Path) -> Path:
    """The file `path`, or the best checkpoint of the run folder `path`, or else its last."""
    path = Path(path)
    if path.is_dir():
        for candidate in (path / CHECKPOINTS / BEST, path / CHECKPOINTS / LAST):
            if candidate.is_file():
                return candidate
        raise FileNotFoundError(
            f"folder {path} has no {CHECKPOINTS}/{BEST} or {CHECKPOINTS}/{LAST}; is it a run's folder?"
        )
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    return path


class CheckpointFolder:
    """The checkpoints of a run: `last.pt`, `best.pt` by validation mIoU, and the newest `keep` as `step-N.pt`.

    Args:
        path: The folder; made if it does not exist.
        keep: How many of the newest checkpoints keep a name of their own.
        best: Scores of the best checkpoint so far; empty if there is none.
    """

    def __init__(self, path: Path, keep: int, best: dict[str, float] | None = None) -> None:
        if keep < 0:
            raise ValueError(f"train.keep must be 0 or more, not {keep}")
        self.path = path
        self.keep = keep
        self.best = best or {}
        path.mkdir(parents=True, exist_ok=True)

    def save(self, checkpoint: Checkpoint) -> bool:
        """Save as the last and, if its mean IoU is the highest so far, as the best; returns whether it is."""
        last = self.path / LAST
        save_checkpoint(last, checkpoint)
        if self.keep:
            _duplicate(last, self.path / f"step-{checkpoint.step:06d}.pt")
            for old in sorted(self.path.glob("step-*.pt"), key=lambda p: (len(p.name), p.name))[: -self.keep]:
                old.unlink()
        score = checkpoint.scores.get("mean_iou", math.nan)  # also nan if nothing could be scored
        is_best = score > self.best.get("mean_iou", -math.inf)
        if is_best:
            self.best = checkpoint.scores
            _duplicate(last, self.path / BEST)
        return is_best


def _duplicate(source: Path, target: Path) -> None:
    """Give a file a second name; a hard link where the file system has them, since checkpoints are never modified."""
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _first_sentence(error: Exception) -> str:
    # torch appends paragraphs of advice, partly to do what must not be done here.
    return " ".join(str(error).split()).partition(". ")[0][:300]
