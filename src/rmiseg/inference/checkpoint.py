"""Checkpoints: one file that holds the weights and all that is needed to evaluate and predict with them.

A file is written beside its final name and renamed, so that a name always stands for a whole checkpoint. Reading one
never runs code that is in it.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.config.options import HELD_OUT
from rmiseg.config.ranges import RANGES, check_ranges
from rmiseg.config.recipes import check_types, shortened
from rmiseg.config.registry import GIVEN, find, loaded_plugins
from rmiseg.data import Split, load_split
from rmiseg.data.bands import Bands
from rmiseg.data.classes import ClassTable
from rmiseg.data.held_out import divide
from rmiseg.models import SegmentationModel, build_model
from rmiseg.models.ensemble import Ensemble
from rmiseg.models.own import adapt_model
from rmiseg.runtime.checksums import check_safetensors, json_crc32
from rmiseg.runtime.files import read_json
from rmiseg.runtime.tensor_files import check_tensors, first_sentence, read_content, write_content

FORMAT = "rmiseg checkpoint 1"
CHECKPOINTS, LAST, BEST = "checkpoints", "last.pt", "best.pt"
MOST_MEMBERS = 100
PRETRAINED_FORMAT = "rmiseg model 1"
CONFIG_CHECKSUM = "config_crc32"
"""Metadata of model.safetensors: the checksum of config.json beside it."""
PRETRAINED_CONFIG, PRETRAINED_WEIGHTS = "config.json", "model.safetensors"  # the names that model hubs expect


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
        align_corners: Corner convention by which the loss interpolated the logits; False in checkpoints without it.
        made_with: The plugins that were loaded when it was written, by their names.
        members: Number of networks, whose probabilities are averaged if there are several.
    """

    weights: Mapping[str, Tensor]
    model: ModelConfig
    data: DataConfig
    classes: ClassTable
    step: int
    scores: dict[str, float]
    architecture: dict[str, Any] | None = None
    align_corners: bool = False
    made_with: tuple[str, ...] = ()
    members: int = 1

    def build_model(self, device: torch.device, network: nn.Module | None = None) -> SegmentationModel:
        """The trained model, in evaluation mode, on `device`.

        Args:
            device: Where to put it.
            network: The network, of a run whose network was given in Python: any module from images (N, 3, H, W) to
                logits (N, C, h, w). The weights are loaded into a copy of it.

        Raises:
            ValueError: The weights are not those of the model that the checkpoint describes; a network is missing, or
                is given for a model that has a name.
        """
        model = self.untrained_model(network)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ValueError(
                f"the checkpoint's weights are not those of {self.model} and "
                f"{len(self.classes)} classes, as it says itself: {first_sentence(error)}, ..."
            ) from error
        model.align_corners = self.align_corners
        # The layout in which convolutions are fastest.
        return model.to(device).to(memory_format=torch.channels_last).eval()

    def __str__(self) -> str:
        return f"{self.members} times {self.model}" if self.members > 1 else str(self.model)

    @property
    def given_in_python(self) -> bool:
        """True if the network was given in Python, so that it must be given again."""
        return self.model.name.startswith(GIVEN)

    def untrained_model(self, network: nn.Module | None = None) -> SegmentationModel:
        """The model before its weights are loaded; see `build_model`."""
        if self.members > 1:
            return Ensemble([self._untrained_member(network) for _ in range(self.members)])
        return self._untrained_member(network)

    def _untrained_member(self, network: nn.Module | None) -> SegmentationModel:
        name, bands = self.model.name, Bands.of(self.data)
        if network is not None:
            if not self.given_in_python:
                raise ValueError(f"this run's network has a name, {name}; leave model= out")
            # With the mean and standard deviation of the training, whatever the network given now says.
            model = adapt_model(
                copy.deepcopy(network), len(self.classes), architecture=self.architecture, in_channels=bands.count
            )
            model.expect(self.data.image_mean, self.data.image_std)
            return model
        if self.given_in_python:
            raise ValueError(
                f"the network of this run was given in Python as {name.removeprefix(GIVEN)}; give it again: "
                "Predictor.from_run(..., model=net)"
            )
        find("model", name, self.made_with)  # which says what is missing
        options = {key: value for key, value in asdict(self.model).items() if key not in ("name", "weights")}
        model = build_model(
            name,
            num_classes=len(self.classes),
            weights="none",
            architecture=self.architecture,
            in_channels=bands.count,
            rgb=bands.rgb,
            **options,
        )
        model.expect(self.data.image_mean, self.data.image_std)
        return model

    def load_split(self, name: str | None = None, root: str | None = None, *, masks: bool = True) -> Split:
        """A split of the data set that the model was trained on, with the classes of the model.

        Args:
            name: Name of the split; by default the validation split.
            root: Folder of the data set, if it is no longer where the run found it.
            masks: True if there must be masks.

        Raises:
            ValueError, OSError: As `rmiseg.data.load_split`; the data set was given in Python; its classes are others.
        """
        data = replace(self.data, root=root or self.data.root)
        if data.name.startswith(GIVEN):
            raise ValueError(
                f"the data of this run was given in Python as {data.name.removeprefix(GIVEN)}; give images in "
                "Python again, as data="
            )
        find("dataset", data.name, self.made_with)
        if name is None and data.folds is not None and data.options.get("val") == []:
            raise ValueError(
                f"all images of {data.root} were trained on, each by some of the {self.members} networks: name "
                "a split of images that none has seen (--split, --root)"
            )
        held_out = data.held_out if name in (None, HELD_OUT) else None
        wanted = data.train_split if held_out is not None else name or data.val_split
        split = load_split(data.name, data.root, wanted, masks=masks, options=data.options)
        if held_out is not None:
            _, split = divide(split, held_out)
        split = split.with_bands(Bands.of(data))
        if masks:
            self.check_classes(split.classes, data.root)
        return split

    def check_classes(self, classes: ClassTable, where: str) -> None:
        """See whether images have the classes of the model.

        Raises:
            ValueError: They have others.
        """
        if classes.names != self.classes.names:
            raise ValueError(
                f"the checkpoint was trained on {len(self.classes)} classes ({', '.join(self.classes.names)}), but "
                f"{where} has {len(classes)} ({', '.join(classes.names)})"
            )


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
        "align_corners": checkpoint.align_corners,
        "made_with": list(checkpoint.made_with or loaded_plugins()),
        "members": checkpoint.members,
    }
    write_content(path, FORMAT, content)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, or the best one of a run's folder, without running any code in it.

    A folder of `rmiseg export --format safetensors` is read likewise.

    Raises:
        FileNotFoundError: There is no such file, or no checkpoint in the folder.
        ValueError: The file is damaged, holds objects other than tensors and plain values, or is no checkpoint of
            rmiseg.
    """
    path = find_checkpoint(path)
    if path.name == PRETRAINED_WEIGHTS:
        return _load_pretrained(path.parent)
    content = read_content(path, FORMAT, "Backbone weights of other programs go into a training run as model.weights")
    try:
        return checkpoint_from_plain(content, check_tensors(content["weights"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is marked as a checkpoint of rmiseg, but its content is not as it should be "
            f"({shortened(str(error))}); was it written by another version?"
        ) from error


def checkpoint_from_plain(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint of what files hold: values that JSON has too, and tensors.

    Raises:
        KeyError, TypeError, ValueError: The content is not that of a checkpoint.
    """
    table: dict[str, Any] = {
        name: tuple(tuple(value) if isinstance(value, list) else value for value in values)
        if isinstance(values, list | tuple)
        else values
        for name, values in content["classes"].items()
    }
    checkpoint = Checkpoint(
        weights=weights,
        model=ModelConfig(**content["model"]),
        data=DataConfig(**content["data"]),
        classes=ClassTable(**table),
        step=content["step"],
        scores={name: math.nan if score is None else score for name, score in content["scores"].items()},
        architecture=content.get("architecture"),  # this and what follows are not in older files
        align_corners=content.get("align_corners", False),
        made_with=tuple(content.get("made_with", ())),
        members=content.get("members", 1),
    )
    _check_plain(checkpoint)
    return checkpoint


def _check_plain(checkpoint: Checkpoint) -> None:
    """See whether the plain values of a checkpoint are of their types and within reason.

    Raises:
        ValueError: One is not.
    """
    check_types(replace(checkpoint, weights={}))
    if not 1 <= checkpoint.members <= MOST_MEMBERS:
        raise ValueError(f"members is {checkpoint.members}, not 1 to {MOST_MEMBERS}")
    if checkpoint.step < 0:
        raise ValueError(f"step is {checkpoint.step}, below 0")
    if wrong := [name for name, score in checkpoint.scores.items() if math.isinf(score)]:
        raise ValueError(f"the score {wrong[0]} is {checkpoint.scores[wrong[0]]}")
    # Of the options only those that are used again, since more was allowed once.
    data = checkpoint.data
    used = DataConfig(image_scale=data.image_scale, workers=data.workers)
    check_ranges(used, {name.removeprefix("data."): limits for name, limits in RANGES.items()})


def _load_pretrained(folder: Path) -> Checkpoint:
    """Read a folder with config.json and model.safetensors."""
    try:
        content = read_json(folder / PRETRAINED_CONFIG)
        if not isinstance(content, dict) or content.get("format") != PRETRAINED_FORMAT:
            raise ValueError(f"{PRETRAINED_CONFIG} does not have the format {PRETRAINED_FORMAT!r}")
        path = folder / PRETRAINED_WEIGHTS
        check_safetensors(path)
        weights = {name.removeprefix("network."): tensor for name, tensor in load_file(path).items()}
        checkpoint = checkpoint_from_plain(content, check_tensors(weights))
        _check_description(path, content)
        return checkpoint
    except (KeyError, TypeError, AttributeError, ValueError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be read as an exported model ({PRETRAINED_CONFIG}, {PRETRAINED_WEIGHTS}): {error}"
        ) from error


def _check_description(path: Path, description: Any) -> None:
    """See whether config.json is what it was when the weights beside it were written, if they say so.

    Raises:
        ValueError: It is not.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get(CONFIG_CHECKSUM, json_crc32(description)) != json_crc32(description):
        raise ValueError(f"{PRETRAINED_CONFIG} is not what was exported, by its checksum; export the model again")


def find_checkpoint(path: str | Path) -> Path:
    """Return the file `path`; of a run's folder the best checkpoint, or else the last; of an exported model its
    weights.
    """
    path = Path(path)
    if (path / PRETRAINED_CONFIG).is_file():
        return path / PRETRAINED_WEIGHTS
    if path.is_dir():
        for candidate in (path / CHECKPOINTS / BEST, path / CHECKPOINTS / LAST):
            if candidate.is_file():
                return candidate
        begun = (path / "config.yaml").is_file()
        why = "its training has not got as far yet" if begun else "is it a run's folder?"
        raise FileNotFoundError(f"folder {path} has no {CHECKPOINTS}/{BEST} or {CHECKPOINTS}/{LAST}; {why}")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if path.suffix in (".onnx", ".pt2"):
        raise ValueError(
            f"{path} was exported for other programs; give the run that it came from, or what "
            "`rmiseg export --format safetensors` writes"
        )
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits: which checkpoint an evaluation or a prediction is of."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
