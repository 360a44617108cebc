"""Models that classify masks, not pixels, for losses on pixels: MaskFormer, Mask2Former and EoMT of transformers.

Cheng et al., Per-Pixel Classification is Not All You Need for Semantic Segmentation, NeurIPS 2021; Cheng et al.,
Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022; Kerssies et al., Your ViT is Secretly an
Image Segmentation Model, CVPR 2025.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmiseg.models.external.wrapped import Call

BACKBONES = {
    "maskformer": "model.pixel_level_module.encoder",
    "mask2former": "model.pixel_level_module.encoder",
    "eomt": "",  # the transformer is all of it
    "eomt_dinov3": "",
}
"""The kinds of model, and the pretrained part of each."""
LEAST = 1e-6
"""Probability added to those of a pixel, and of its opposite, so that both logarithms are finite."""


def pixel_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Turn masks and their classes into logits of the classes of each pixel.

    The probability of a class is the sum over the masks of that of the class and that of the pixel (Cheng et al. 2021,
    section 3.4). Where those of all classes are more than 1, they are divided by their sum. The logits are such that
    their sigmoid is this probability, which RMI and binary cross entropy take; the largest is that of the largest sum.

    Args:
        classes: (N, Q, C + 1) floating point, logits of the classes of each of Q masks, the last that of none.
        masks: (N, Q, h, w) floating point, logits of the masks.

    Returns:
        (N, C, h, w) float32.
    """
    with torch.autocast(masks.device.type, enabled=False):  # half precision would not tell 0.999 from 1
        of_class = classes.float().softmax(dim=-1)[..., :-1]
        probability = torch.einsum("nqc,nqhw->nchw", of_class, masks.float().sigmoid())
        probability = probability / probability.sum(dim=1, keepdim=True).clamp(min=1)
        return (probability + LEAST).log() - (1 - probability + LEAST).log()


def prepare(network: Any) -> Call:
    """Have a model take images of any size; returns what runs it."""
    if not hasattr(network, "grid_size"):
        return _call
    _prepare_eomt(network)
    return _call_on_grid


def _call(network: nn.Module, images: Tensor) -> Tensor:
    output = network(pixel_values=images)
    return pixel_logits(output.class_queries_logits, output.masks_queries_logits)


def _call_on_grid(network: Any, images: Tensor) -> Tensor:
    """Run EoMT on images of any whole number of patches."""
    patch = network.config.patch_size
    if any(side % patch for side in images.shape[-2:]):
        raise ValueError(f"images must be a multiple of {patch} pixels high and wide")
    network.grid_size = tuple(side // patch for side in images.shape[-2:])
    if isinstance(positions := getattr(network.embeddings, "position_embeddings", None), GridPositions):
        positions.grid = network.grid_size
    return _call(network, images)


def _prepare_eomt(network: Any) -> None:
    """Have an EoMT take images of other sizes than the one of its configuration, and attend to all of them.

    With DINOv3 its positions are those of the patches in any image; others have one learned for each patch. Its
    authors train with queries that see their own mask alone, and take that back until the end (section 3.3): here they
    begin with the end, as it needs no schedule and can be exported.
    """
    del network.attn_mask_probs
    network.attn_mask_probs = [0.0] * network.config.num_blocks
    if hasattr(network.embeddings, "position_embeddings"):
        network.embeddings.position_embeddings = GridPositions(
            network.embeddings.position_embeddings.weight, network.grid_size
        )


class GridPositions(nn.Embedding):
    """Positions learned on one grid of patches, for another grid.

    Args:
        weight: (P, D) positions.
        grid: Rows and columns of the P patches.

    Attributes:
        grid: Rows and columns of the patches of the images at hand.
    """

    def __init__(self, weight: nn.Parameter, grid: tuple[int, int]) -> None:
        super().__init__(weight.shape[0], weight.shape[1], _weight=weight)
        self.weight = weight
        self.learned = self.grid = grid

    def forward(self, ids: Tensor) -> Tensor:
        """Return the positions (1, P', D) of the grid at hand."""
        positions = super().forward(ids).mT
        learned = positions.reshape(*positions.shape[:2], *self.learned)
        return F.interpolate(learned.float(), self.grid, mode="bicubic").to(positions.dtype).flatten(2).mT
