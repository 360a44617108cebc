"""Losses of other libraries: "smp:NAME" of segmentation_models_pytorch and "monai:NAME" of MONAI.

Neither library leaves ignored pixels out of all of its losses (smp's SoftCrossEntropyLoss divides by them, MONAI before
1.6 knows none). So every loss is given the pixels that count and no others, as an image of one column: exact for losses
of the set of pixels, which ask nothing of a pixel's neighbors; the others are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmiseg.config.registry import did_you_mean, register
from rmiseg.losses.inputs import IGNORE_INDEX
from rmiseg.losses.pixel_sets import PixelSetLoss
from rmiseg.runtime.extras import import_extra


class Library(NamedTuple):
    """A library of losses.

    Attributes:
        prefix: Its prefix, less the colon; also the extra that installs it.
        module: The module that has the losses.
        losses: Class of each loss by its name here, without "Loss" at its end.
        refused: Why others cannot be taken, by the same names.
        fixed: Options that are set here, and their values; those that a class does not have are left out.
        each_sample: Losses are averaged over samples, rather than of the pixels of the whole batch.
    """

    prefix: str
    module: str
    losses: dict[str, str]
    refused: dict[str, str]
    fixed: dict[str, Any]
    each_sample: bool


MASKS = "it is for masks that may overlap, and this is one class a pixel"
NEIGHBORS = "it asks for the neighbors of a pixel, which ignored pixels take away"

SMP = Library(
    prefix="smp",
    module="segmentation_models_pytorch.losses",
    losses={
        "Dice": "DiceLoss",
        "Jaccard": "JaccardLoss",
        "Tversky": "TverskyLoss",
        "Focal": "FocalLoss",
        "Lovasz": "LovaszLoss",
        "SoftCE": "SoftCrossEntropyLoss",
        "SoftCrossEntropy": "SoftCrossEntropyLoss",
    },
    refused={"MCC": "it is for two classes, and takes probabilities", "SoftBCEWithLogits": MASKS},
    fixed={"mode": "multiclass", "from_logits": True, "ignore_index": None, "reduction": "mean", "dim": 1},
    each_sample=False,
)
MONAI = Library(
    prefix="monai",
    module="monai.losses",
    losses={
        name: f"{name}Loss"
        for name in ("Dice", "DiceCE", "DiceFocal", "GeneralizedDice", "GeneralizedDiceFocal", "Tversky", "Focal")
    },
    refused={
        "MaskedDice": "its mask is here what is not ignored: use Dice",
        "HausdorffDT": NEIGHBORS,
        "LogHausdorffDT": NEIGHBORS,
        "Boundary": NEIGHBORS,
        "SoftclDice": NEIGHBORS,
        "SoftDiceclDice": NEIGHBORS,
        "SSIM": NEIGHBORS,
        "NACL": NEIGHBORS,
    },
    fixed={
        "to_onehot_y": True,
        "softmax": True,
        "use_softmax": True,
        "sigmoid": False,
        "other_act": None,
        "soft_label": False,
        "ignore_index": None,
        "reduction": "mean",
    },
    each_sample=True,
)

WITHOUT_DEFAULT = {"SoftCrossEntropyLoss": {"smooth_factor": 0.0}}
"""Options whose own defaults do not work: None, which the loss multiplies with."""


class ExternalLoss(PixelSetLoss):
    """A loss of another library, of the pixels that count.

    Args:
        name: Its name, with the prefix.
        loss: The loss: (1, C, P, 1) logits and (1, P, 1) or (1, 1, P, 1) int64 class ids to a scalar.
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        each_sample: See `PixelSetLoss`.
        channel: The loss wants class ids with a channel.

    Raises:
        ValueError: A single class.
    """

    def __init__(
        self,
        name: str,
        loss: Callable[[Tensor, Tensor], Tensor],
        num_classes: int,
        ignore_index: int | Sequence[int] | None,
        *,
        each_sample: bool,
        channel: bool,
    ) -> None:
        super().__init__(name, num_classes, ignore_index, each_sample=each_sample)
        self.loss = loss
        self.channel = channel

    def of_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        labels = labels[None, :, None]
        return self.loss(logits[None, :, :, None], labels.unsqueeze(1) if self.channel else labels)


@register("loss", "smp:")
def smp_loss(
    name: str, *, num_classes: int, ignore_index: int | Sequence[int] | None = IGNORE_INDEX, **options: Any
) -> ExternalLoss:
    """A loss of segmentation_models_pytorch, of the valid pixels of the whole batch.

    Args:
        name: Dice, Jaccard, Tversky, Focal, Lovasz or SoftCE; "Loss" may stand at the end.
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        options: Further arguments of its constructor. Lovasz with per_image averages over samples.

    Raises:
        ModuleNotFoundError: segmentation_models_pytorch is not installed.
        ValueError: An unknown name, one that cannot be taken, or an option that is set here.
        TypeError: An option that it does not have.
    """
    loss = _build(SMP, name, options)
    each_sample = bool(options.get("per_image", SMP.each_sample))
    return ExternalLoss(f"smp:{name}", loss, num_classes, ignore_index, each_sample=each_sample, channel=False)


@register("loss", "monai:")
def monai_loss(
    name: str, *, num_classes: int, ignore_index: int | Sequence[int] | None = IGNORE_INDEX, **options: Any
) -> ExternalLoss:
    """A loss of MONAI, of the valid pixels of each sample, and averaged over samples that have any.

    Args:
        name: Dice, DiceCE, DiceFocal, GeneralizedDice, GeneralizedDiceFocal, Tversky or Focal; "Loss" may stand at the
            end.
        num_classes: Number of classes C.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        options: Further arguments of its constructor. With batch the pixels of all samples are taken together.

    Raises:
        ModuleNotFoundError: MONAI is not installed.
        ValueError: An unknown name, one that cannot be taken, or an option that is set here.
        TypeError: An option that it does not have.
    """
    loss = _build(MONAI, name, options)
    each_sample = not options.get("batch", not MONAI.each_sample)
    return ExternalLoss(f"monai:{name}", loss, num_classes, ignore_index, each_sample=each_sample, channel=True)


def _build(library: Library, name: str, options: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a library, with the options that are set here."""
    full = f"{library.prefix}:{name}"
    short = name.removesuffix("Loss")
    if short in library.refused:
        raise ValueError(f"the loss {full!r} cannot be taken: {library.refused[short]}; {_known(library)}")
    if short not in library.losses:
        hint = did_you_mean(short, library.losses, f"{library.prefix}:")
        raise ValueError(f"unknown loss {full!r}; {_known(library)}{hint}")
    module = import_extra(library.module, library.prefix, f"the loss {full}")
    made: Callable[..., Callable[[Tensor, Tensor], Tensor]] = getattr(module, library.losses[short])
    parameters = inspect.signature(made).parameters
    if wrong := [option for option in options if option in library.fixed and option in parameters]:
        raise ValueError(
            f"{full}: {wrong[0]} cannot be chosen; it is {library.fixed[wrong[0]]!r} here, where logits of one class a "
            "pixel become a scalar"
        )
    free = [option for option in parameters if option not in library.fixed]
    if unknown := [option for option in options if option not in free]:
        raise TypeError(f"the loss {full} has no option {', '.join(unknown)}; its options are {', '.join(free)}")
    fixed = {option: value for option, value in library.fixed.items() if option in parameters}
    if isinstance(options.get("weight"), (list, tuple)):  # of a recipe; not all of MONAI's losses take lists
        options = {**options, "weight": torch.tensor(options["weight"], dtype=torch.float32)}
    return made(**fixed, **{**WITHOUT_DEFAULT.get(library.losses[short], {}), **options})


def _known(library: Library) -> str:
    return f"those of {library.prefix} are {', '.join(library.losses)}"
