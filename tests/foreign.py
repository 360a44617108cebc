"""Files of other programs: models with random weights, their logits here, and names of their entries for those of this
package: the tables of `rmiseg.models.conversion` the other way round, written out apart from them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.inference.checkpoint import load_checkpoint

ORIGINAL = [
    (r"backbone\.body\.", "backbone."),
    (r"aspp\.convs\.(\d)\.conv\.", lambda m: f"aspp.aspp{int(m[1]) + 1}.atrous_conv."),
    (r"aspp\.convs\.(\d)\.norm\.", lambda m: f"aspp.aspp{int(m[1]) + 1}.bn."),
    (r"aspp\.image_pooling\.project\.conv\.", "aspp.global_avg_pool.1."),
    (r"aspp\.image_pooling\.project\.norm\.", "aspp.global_avg_pool.2."),
    (r"aspp\.project\.conv\.", "aspp.conv1."),
    (r"aspp\.project\.norm\.", "aspp.bn1."),
    (r"low_level\.conv\.", "decoder.conv1."),
    (r"low_level\.norm\.", "decoder.bn1."),
    (r"decoder\.0\.conv\.", "decoder.last_conv.0."),
    (r"decoder\.0\.norm\.", "decoder.last_conv.1."),
    (r"decoder\.1\.conv\.", "decoder.last_conv.3."),
    (r"decoder\.1\.norm\.", "decoder.last_conv.4."),
    (r"pyramid\.levels\.(\d)\.project\.conv\.", r"psp_module.pools.\1.1."),
    (r"pyramid\.levels\.(\d)\.project\.norm\.", r"psp_module.pools.\1.2."),
    (r"classifier\.0\.conv\.", "psp_module.fuse_conv.0."),
    (r"classifier\.0\.norm\.", "psp_module.fuse_conv.1."),
    (r"classifier\.2\.", "main_branch."),
    (r"auxiliary\.0\.conv\.", "aux_branch.0."),
    (r"auxiliary\.0\.norm\.", "aux_branch.1."),
    (r"auxiliary\.2\.", "aux_branch.4."),
]
ENCODING = [
    (r"backbone\.body\.", "pretrained."),
    (r"aspp\.convs\.(\d)\.conv\.", r"head.aspp.b\1.0."),
    (r"aspp\.convs\.(\d)\.norm\.", r"head.aspp.b\1.1."),
    (r"aspp\.image_pooling\.project\.conv\.", "head.aspp.b4.gap.1."),
    (r"aspp\.image_pooling\.project\.norm\.", "head.aspp.b4.gap.2."),
    (r"aspp\.project\.conv\.", "head.aspp.project.0."),
    (r"aspp\.project\.norm\.", "head.aspp.project.1."),
    (r"refine\.conv\.", "head.block.0."),
    (r"refine\.norm\.", "head.block.1."),
    (r"pyramid\.levels\.(\d)\.project\.conv\.", lambda m: f"head.conv5.0.conv{int(m[1]) + 1}.0."),
    (r"pyramid\.levels\.(\d)\.project\.norm\.", lambda m: f"head.conv5.0.conv{int(m[1]) + 1}.1."),
    (r"classifier\.0\.conv\.", "head.conv5.1."),
    (r"classifier\.0\.norm\.", "head.conv5.2."),
    (r"classifier\.2\.", "head.conv5.5."),
    (r"classifier\.", "head.block.4."),
    (r"auxiliary\.0\.conv\.", "auxlayer.conv5.0."),
    (r"auxiliary\.0\.norm\.", "auxlayer.conv5.1."),
    (r"auxiliary\.2\.", "auxlayer.conv5.4."),
]
MMSEGMENTATION = [
    (r"backbone\.body\.conv1\.", "backbone.stem."),
    (r"backbone\.body\.bn1\.", "backbone.stem.7."),
    (r"backbone\.body\.", "backbone."),
    (r"pyramid\.levels\.(\d)\.project\.conv\.", r"decode_head.psp_modules.\1.1.conv."),
    (r"pyramid\.levels\.(\d)\.project\.norm\.", r"decode_head.psp_modules.\1.1.bn."),
    (r"classifier\.0\.conv\.", "decode_head.bottleneck.conv."),
    (r"classifier\.0\.norm\.", "decode_head.bottleneck.bn."),
    (r"classifier\.2\.", "decode_head.conv_seg."),
    (r"auxiliary\.0\.conv\.", "auxiliary_head.convs.0.conv."),
    (r"auxiliary\.0\.norm\.", "auxiliary_head.convs.0.bn."),
    (r"auxiliary\.2\.", "auxiliary_head.conv_seg."),
]


def _name(ours: str, table: list) -> str:
    for pattern, theirs in table:
        renamed, count = re.subn(f"^{pattern}", theirs, ours)
        if count:
            return renamed
    raise ValueError(ours)


def original_names(head: str) -> Callable[[str], str]:
    last = "decoder.last_conv.7." if head == "deeplabv3plus" else "last_conv."

    def name(ours: str) -> str:
        return "model." + _name(ours, [*ORIGINAL, (r"classifier\.", last)])

    return name


def encoding_names(ours: str) -> str:
    return _name(ours, ENCODING)


def mmsegmentation_names(ours: str) -> str:
    return _name(ours, MMSEGMENTATION)


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model with random weights and statistics, so that every entry matters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(0.8 + 0.4 * torch.rand(value.shape))
            elif value.is_floating_point() and value.ndim == 1:
                value.copy_(0.5 + 0.3 * torch.randn(value.shape))
            elif value.ndim > 1:
                value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return model.eval()


def logits_of(checkpoint: Path, images: Tensor) -> Tensor:
    model = load_checkpoint(checkpoint).build_model(torch.device("cpu"))
    with torch.no_grad():
        return F.interpolate(model(images), images.shape[-2:], mode="bilinear", align_corners=model.align_corners)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() <= 1e-5 * expected.norm()


class Malicious:
    """An object of which unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)
