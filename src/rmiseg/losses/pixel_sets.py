"""The base of losses that are no sums over pixels: such as Dice, of the set of all that count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rmiseg.functional import upsample_logits, widened
from rmiseg.kernels.modes import has_no_values, is_kept
from rmiseg.losses.checks import check_tensors, whole_number
from rmiseg.losses.inputs import IGNORE_INDEX, InputReader


class PixelSetLoss(nn.Module):
    """Base of losses of the set of pixels that count, whatever their places.

    A subclass defines `of_pixels`. In training, the mean is over the batches of a step; each is a set of its own.

    Args:
        name: Name of the loss, for messages.
        num_classes: Number of classes C, at least 2.
        ignore_index: Labels of pixels that do not count: one, several, or None.
        each_sample: Average over the samples that have a pixel that counts, each as if it were alone; else take the
            pixels of all samples together.

    Raises:
        ValueError: A single class.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        ignore_index: int | Sequence[int] | None = IGNORE_INDEX,
        *,
        each_sample: bool = False,
    ) -> None:
        super().__init__()
        num_classes = whole_number("num_classes", num_classes)
        if num_classes < 2:
            raise ValueError(f"{name} needs at least 2 classes, got num_classes={num_classes}")
        self.name = name
        self.num_classes = num_classes
        self.each_sample = each_sample
        self.inputs = InputReader(name, num_classes, ignore_index, "multiclass", False, None)

    def of_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of logits (C, P) and class ids (P,) int64 of P pixels, at least one."""
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, C, h, w) in any floating dtype; smaller ones are interpolated.
            target: (N, H, W) class ids of any integer dtype.

        Returns:
            A scalar in float32, or float64 for float64 logits; zero, with zero gradient, if no pixel is valid.

        Raises:
            ValueError: See `SegmentationLoss.forward`.
            RuntimeError: Inside of `torch.jit.trace` or `torch.export`: the number of valid pixels, which other targets
                would not have, would become a constant.
        """
        if is_kept():
            raise RuntimeError(f"{self.name} cannot be traced or exported: it depends on the number of valid pixels")
        check_tensors(logits=logits, target=target)
        batch = self.inputs.read(logits, target, None, None)
        labels, valid = batch.target.values, batch.target.valid
        wide = upsample_logits(widened(logits), valid.shape[1:])
        if has_no_values():  # nobody knows which pixels count: what is kept of all of them for the backward pass
            value = wide.movedim(1, 0).flatten(1).softmax(dim=0).square().mean()
        elif self.each_sample:
            values = [self.of_pixels(x[:, v], y[v]) for x, y, v in zip(wide, labels, valid) if v.any()]
            value = torch.stack(values).mean() if values else wide[:0].sum()
        elif valid.any():
            value = self.of_pixels(wide.movedim(1, 0)[:, valid], labels[valid])
        else:
            value = wide[:0].sum()
        return batch.doubted(value)

    def extra_repr(self) -> str:
        return f"{self.name}, num_classes={self.num_classes}, ignore_index={self.inputs.ignore_index}"
