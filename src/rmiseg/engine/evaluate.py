"""Scoring a model on a split, at the size of its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmiseg.data import Batch, normalize
from rmiseg.engine.distributed import add_up
from rmiseg.engine.metrics import Scores, confusion_matrix, near_boundary
from rmiseg.losses import upsample_logits


@dataclass(frozen=True)
class Evaluation:
    """Scores over all pixels, and over those near a boundary between classes (see `near_boundary`)."""

    everywhere: Scores
    near_boundary: Scores

    def summary(self) -> dict[str, float]:
        """The scores that are one number each, as shares from 0 to 1."""
        return {
            "mean_iou": self.everywhere.mean_iou,
            "pixel_accuracy": self.everywhere.pixel_accuracy,
            "mean_accuracy": self.everywhere.mean_accuracy,
            "frequency_weighted_iou": self.everywhere.frequency_weighted_iou,
            "boundary_mean_iou": self.near_boundary.mean_iou,
        }


@torch.inference_mode()
def predict_batch(model: nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Class ids (N, *size) of uint8 images (N, 3, H, W): the largest logit after bilinear interpolation to `size`."""
    logits = model(normalize(images, model.image_mean, model.image_std))
    return upsample_logits(logits, size).argmax(dim=1)


def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    num_classes: int,
    device: torch.device,
    on_batch: Callable[[Batch, Tensor], None] | None = None,
) -> Evaluation:
    """Score `model` on every image of `loader`, at the size of the masks, whatever the size the network saw.

    Args:
        model: Put into evaluation mode, and back into the mode that it was in.
        loader: Yields image uint8 (N, 3, h, w) and mask uint8 (N, H, W). Of several processes, each has its part of
            the images; the scores are those of all, in every process.
        num_classes: Number of classes C.
        device: Where the model is.
        on_batch: Called with each batch and its predicted class ids (N, H, W).
    """
    everywhere = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    boundary = torch.zeros_like(everywhere)
    was_training = model.training
    model.eval()
    for batch in loader:
        target = batch["mask"].to(device)
        prediction = predict_batch(model, batch["image"].to(device), target.shape[-2:])
        everywhere += confusion_matrix(prediction, target, num_classes)
        near = near_boundary(target, num_classes)
        boundary += confusion_matrix(prediction[near], target[near], num_classes)
        if on_batch is not None:
            on_batch(batch, prediction)
    model.train(was_training)
    add_up(everywhere, boundary)
    return Evaluation(Scores.from_confusion(everywhere), Scores.from_confusion(boundary))
