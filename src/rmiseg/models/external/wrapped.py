"""Adapter that makes a network a `SegmentationModel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.models.base import SegmentationModel, evaluating

Call = Callable[[nn.Module, Tensor], "Tensor | tuple[Tensor, Tensor]"]

IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
PROBE = (97, 131)  # a size that fits no stride
MULTIPLES = (1, 32, 64)  # what images must be padded to a multiple of, whichever comes first


class NotLogits(ValueError):
    """A network gave something else than logits."""


class WrappedModel(SegmentationModel):
    """A network of another library, or of anybody's own.

    Images are padded at the bottom and on the right, where the network takes none but multiples of some size, and the
    logits cut accordingly.

    Args:
        network: The network.
        call: Runs it: call(network, images) gives logits, or logits and auxiliary logits.
        backbone: Name of the part of the network that is pretrained on other images; "" if that is the whole.
        num_classes: Number of classes C.
        architecture: Plain values that, beside its name, rebuild the model: image_mean and image_std, as for
            `SegmentationModel`, and what else a library needs.

    Raises:
        ValueError: The network takes no image of any size, or gives something else than logits of C classes.
    """

    def __init__(
        self,
        network: nn.Module,
        call: Call,
        backbone: str,
        *,
        num_classes: int,
        architecture: dict[str, Any],
    ) -> None:
        super().__init__(num_classes, architecture["image_mean"], architecture["image_std"])
        self.network = network
        self.call = call
        self.backbone_name = backbone
        self.architecture = architecture
        self.multiple, self.stride = self._probe()

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]  # registered once, as a part of the network
        return self.network.get_submodule(self.backbone_name)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.multiple == 1:
            return self.call(self.network, images)
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        output = self.call(self.network, padded)
        if not torch.compiler.is_exporting() and padded.shape == images.shape:
            return output
        if isinstance(output, tuple):
            return self._cut(output[0], images, padded), self._cut(output[1], images, padded)
        return self._cut(output, images, padded)

    @staticmethod
    def _cut(logits: Tensor, images: Tensor, padded: Tensor) -> Tensor:
        rows, columns = (
            (size * cells + padded_size - 1) // padded_size  # rounded up; of negative numbers ONNX has other ratios
            for size, cells, padded_size in zip(images.shape[-2:], logits.shape[-2:], padded.shape[-2:])
        )
        # Not slices: of these, an exported program would assume that they are smaller than the whole.
        return F.pad(logits, (0, columns - logits.shape[-1], 0, rows - logits.shape[-2]))

    def _probe(self) -> tuple[int, float]:
        """Find the multiple that image sizes must be padded to, and the stride of the logits."""
        device = next((parameter.device for parameter in self.network.parameters()), None)
        for multiple in MULTIPLES:
            height, width = (side + -side % multiple for side in PROBE)
            try:
                with evaluating(self.network), torch.no_grad():
                    logits = self.call(self.network, torch.zeros(1, self.in_channels, height, width, device=device))
            except NotLogits:
                raise
            except Exception as error:  # a network refuses a size in whichever way it likes
                reason = error
                continue
            if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[:2] != (1, self.num_classes):
                raise NotLogits(
                    f"{type(self.network).__name__} gives {describe_output(logits)} for an image, not logits of "
                    f"{self.num_classes} classes"
                )
            return multiple, height / logits.shape[-2]
        raise ValueError(
            f"{type(self.network).__name__} does not take images of any size, which training and prediction need: "
            f"{' '.join(str(reason).split())[:300]}"
        ) from reason


def describe_output(output: object) -> str:
    """Say what a network gave: a shape, or the kind of thing."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with {', '.join(map(str, output)) or 'nothing'}"
    return f"a {kind} of {len(output)}" if isinstance(output, tuple | list) else f"a {kind}"


def refuse_choices(name: str, weights: str, **options: object) -> None:
    """Refuse options that a model gives no choice of, and weights of a package, of which there are none.

    Raises:
        ValueError: One of the options is given (not None), or the weights are those of a package.
    """
    for option, value in options.items():
        if value is not None:
            raise refuse(name, f"model.{option}", value)
    if weights == "package":
        raise ValueError(f"no package carries weights for {name}; --model.weights hub, none or a file")


def refuse(name: str, option: str, value: object) -> ValueError:
    """The error of an option that a model gives no choice of."""
    return ValueError(
        f"{name} gives no choice of {option}; leave it out instead of {value!r}. "
        f"What a recipe says is undone by --{option} null"
    )
