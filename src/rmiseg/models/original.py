"""Networks as the code of the RMI paper has them (Zhao et al., NeurIPS 2019, arXiv:1910.12037).

They differ from those of the papers of DeepLab and PSPNet, which this package builds otherwise:

- where the backbone's stride is bounded, strides are left out and nothing is dilated in their place;
- every interpolation, inside of the heads too, aligns the corners;
- PSPNet drops whole channels before its classifiers, and DeepLabv3+ values before its own too.

The entries of their state dicts have the original's order, under names of this package.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

BACKBONES: Final = "a ResNet, such as resnet50s, resnet101s or resnet152s"
OUTPUT_STRIDES: Final = (8, 16)

HEAD_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "deeplabv3": {"align_corners": True},
    "deeplabv3plus": {"align_corners": True, "decoder_dropout": True},
    "pspnet": {"align_corners": True, "channel_dropout": True},
}
"""Arguments of the models of the original, beside backbone and number of classes."""

OWN_CRITERION: Final = ("bce", "affinity", "pyramid")
"""Losses that the original takes on PSPNet's auxiliary head too; beside the others it is cross entropy."""


IMAGE_STATISTICS: Final = {
    "voc": ((116.0, 113.0, 104.0), (69.58, 68.68, 72.67)),
    "cityscapes": ((73.0, 83.0, 72.0), (47.67, 48.49, 47.74)),
    "camvid": ((100.0, 103.0, 106.0), (75.61, 77.81, 76.70)),
}
"""Mean and standard deviation of red, green and blue, 0 to 255, with which the original normalizes images of each data
set; the recipes of the paper set them."""


def check_original(name: str, backbone: str, output_stride: int) -> None:
    """Refuse networks that the original does not have.

    Raises:
        ValueError: Another model, backbone or output stride.
    """
    if name not in HEAD_OPTIONS:
        raise ValueError(f"model.compat original: the original has {', '.join(HEAD_OPTIONS)}, not {name}")
    if not backbone.split(".")[0].startswith("resnet"):
        raise ValueError(f"model.compat original: the original's backbone is {BACKBONES}, not {backbone}")
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"model.compat original: the original has output stride 8 and 16, not {output_stride}")


def undilate(body: nn.Module) -> None:
    """Set the dilation of every convolution to 1, and its padding accordingly, so that maps keep their sizes."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and isinstance(module.padding, tuple):
            module.padding = tuple(side // rate for side, rate in zip(module.padding, module.dilation))
            module.dilation = (1,) * len(module.dilation)
