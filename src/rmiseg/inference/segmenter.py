"""A trained model with all that belongs to it as one module: from an image's pixels to logits at the image's size."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import Tensor, nn

from rmiseg.inference.checkpoint import (
    CONFIG_CHECKSUM,
    PRETRAINED_FORMAT,
    PRETRAINED_WEIGHTS,
    Checkpoint,
    checkpoint_from_plain,
)
from rmiseg.inference.model_card import CardFacts, card_text
from rmiseg.models import SegmentationModel
from rmiseg.runtime.checksums import HEADER_ENTRY, ZEROS, check_safetensors, json_crc32, seal_safetensors
from rmiseg.runtime.tensor_files import check_tensors, first_sentence

DATA_OPTIONS = ("name", "image_scale", "image_mean", "image_std", "bands", "value_range", "picture")


class Segmenter(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="rmiseg",
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation"],
):
    """Resizing, normalization, network and upsampling: what is exported, and what a model hub stores.

    The arguments are plain values, which `save_pretrained` writes to config.json and `from_pretrained` reads;
    `Segmenter.from_checkpoint` takes them from a checkpoint. The network has random weights at first.

    Args:
        model: How the network is built, the fields of `ModelConfig`.
        data: On what it was trained, and how images were prepared: `DATA_OPTIONS` of `DataConfig`.
        classes: The fields of `ClassTable`.
        step: Training steps taken.
        scores: Scores on the validation split, from 0 to 1.
        architecture: What else the network is built from, see `SegmentationModel`.
        align_corners: Corner convention of the upsampling.
        made_with: The plugins that were loaded when it was trained.
        members: Number of networks, whose probabilities are averaged if there are several.
        format: Version of this description.
        build: Makes the network by its description; no part of the description.

    Attributes:
        facts: What the model card says beside the description.

    Raises:
        ValueError: Values that do not fit together.
    """

    def __init__(
        self,
        model: dict[str, Any],
        data: dict[str, Any],
        classes: dict[str, Any],
        step: int = 0,
        scores: dict[str, float | None] | None = None,
        architecture: dict[str, Any] | None = None,
        align_corners: bool = False,
        made_with: tuple[str, ...] = (),
        members: int = 1,
        format: str = PRETRAINED_FORMAT,
        build: Callable[[Checkpoint], SegmentationModel] = Checkpoint.untrained_model,
    ) -> None:
        super().__init__()
        if format != PRETRAINED_FORMAT:
            raise ValueError(f"a model described in the format {format!r}, where {PRETRAINED_FORMAT!r} is read")
        content = {
            "model": model,
            "data": data,
            "classes": classes,
            "step": step,
            "scores": scores or {},
            "architecture": architecture,
            "align_corners": align_corners,
            "made_with": made_with,
            "members": members,
        }
        self.description = checkpoint_from_plain(content, weights={})
        self.facts = CardFacts()
        self.classes = self.description.classes
        self.image_scale = self.description.data.image_scale
        self.network = build(self.description)
        self.center: Tensor
        self.spread: Tensor
        for name, values in (("center", self.network.image_mean), ("spread", self.network.image_std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, network: nn.Module | None = None) -> Self:
        """The model of a checkpoint, on the CPU and in evaluation mode.

        Args:
            checkpoint: The checkpoint.
            network: See `Checkpoint.build_model`.
        """
        trained = checkpoint.build_model(torch.device("cpu"), network).to(memory_format=torch.contiguous_format)
        segmenter = cls(
            model={**asdict(checkpoint.model), "weights": "none"},
            # Not the folder of the data set, which is nobody else's business.
            data={name: getattr(checkpoint.data, name) for name in DATA_OPTIONS},
            classes=asdict(checkpoint.classes),
            step=checkpoint.step,
            scores={name: score if math.isfinite(score) else None for name, score in checkpoint.scores.items()},
            architecture=checkpoint.architecture,
            align_corners=checkpoint.align_corners,
            made_with=checkpoint.made_with,
            members=checkpoint.members,
            build=lambda description: trained,
        )
        return segmenter.eval()

    def to_checkpoint(self) -> Checkpoint:
        """The same as a checkpoint, which `Predictor` takes."""
        return replace(self.description, weights=self.network.state_dict())

    def forward(self, image: Tensor) -> Tensor:
        """Logits of images.

        Args:
            image: (N, B, H, W) uint8, RGB if there are three bands.

        Returns:
            (N, C, H, W) float32: logits at the size of the images.
        """
        size = image.shape[-2:]
        pixels = image.to(torch.float32)
        if self.image_scale != 1:
            smaller = [_scaled(side, self.image_scale) for side in size]
            # Sides may be symbols, which the annotations do not know.
            pixels = F.interpolate(pixels, smaller, mode="bilinear", antialias=True)  # type: ignore[arg-type]
        logits = self.network((pixels - self.center) / self.spread)
        return F.interpolate(logits, size, mode="bilinear", align_corners=self.description.align_corners)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load what `save_pretrained` wrote into a folder, or into a repository of a model hub by its name.

        Raises:
            ValueError, OSError: Nothing of that kind is there.
        """
        return super().from_pretrained(pretrained_model_name_or_path, **{"strict": True, **options})

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights, with checksums of them and of the config.json that follows."""
        path = save_directory / PRETRAINED_WEIGHTS
        description = json_crc32(json.loads(json.dumps(self._hub_mixin_config)))
        try:
            save_model(self, str(path), {HEADER_ENTRY: ZEROS.decode(), CONFIG_CHECKSUM: description})
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {first_sentence(error)}") from error
        seal_safetensors(path)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        check_safetensors(Path(model_file))
        loaded = super()._load_as_safetensor(model, model_file, map_location, strict)
        check_tensors(loaded.state_dict())
        return loaded

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The README.md beside the weights, see `card_text`."""
        header = copy.deepcopy(self._hub_mixin_info.model_card_data)
        header.license = self.facts.license
        return ModelCard(f"---\n{header}\n---\n\n{card_text(self.description, self.network.in_channels, self.facts)}")


def _scaled(side: int, factor: float) -> int | torch.SymInt:
    """side * factor, rounded, in the few operations on integers that an exported program can have."""
    ratio = Fraction(factor).limit_denominator(1000)
    return torch.sym_max(1, (2 * side * ratio.numerator + ratio.denominator) // (2 * ratio.denominator))
