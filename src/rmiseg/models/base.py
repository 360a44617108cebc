"""Base classes of all segmentation models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from torch import Tensor, nn

from rmiseg.models.backbones import Backbone
from rmiseg.models.layers import PooledContext, batch_norms


class SegmentationModel(nn.Module):
    """Base of all models, which make logits (N, C, h, w) of images (N, B, H, W), of red, green and blue at first.

    Args:
        num_classes: Number of classes C.
        image_mean: What to subtract from images in the range 0 to 1, a float for each of their B channels.
        image_std: What to divide them by afterwards, likewise.

    Attributes:
        backbone: The part whose weights are those of another task. All parameters outside of it belong to the head.
        num_classes: See above.
        in_channels: Number B of the channels of images.
        image_mean: See above.
        image_std: See above.
        align_corners: Corner convention of the interpolation of its logits to full size; that of the training.
        norm_is_frozen: Whether `freeze_norm` was called.
        architecture: Plain values that `build_model` needs, beside its other arguments, to build the model again; None
            if nothing else is needed.

    Raises:
        ValueError: num_classes is smaller than 1.
    """

    backbone: nn.Module
    architecture: dict[str, Any] | None = None

    def __init__(self, num_classes: int, image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)
        self.in_channels = len(self.image_mean)
        self.align_corners = False
        self.norm_is_frozen = False

    def expect(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Have images normalized otherwise than at first.

        Args:
            mean: Mean of each channel, 0 to 255; None to leave it as it is.
            std: Standard deviation of each, likewise.

        Raises:
            ValueError: Numbers that cannot be those of images from 0 to 255.
        """
        for name, values in (("image_mean", mean), ("image_std", std)):
            if values is None:
                continue
            smallest = 0.0 if name == "image_mean" else 1e-9
            if (
                len(values) != self.in_channels
                or not all(smallest <= value <= 255 for value in values)
                or max(values) <= 1
            ):
                wanted = (
                    "three numbers, of red, green and blue" if self.in_channels == 3 else f"{self.in_channels} numbers"
                )
                raise ValueError(f"data.{name} must be {wanted} from 0 to 255, not {list(values)}")
            setattr(self, name, tuple(value / 255 for value in values))

    def freeze_norm(self) -> None:
        """Keep every batch norm as it is, statistics and parameters, in training mode too."""
        self.norm_is_frozen = True
        for norm in batch_norms(self):
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.norm_is_frozen:
            for norm in batch_norms(self):
                norm.eval()
        return self

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of a batch of images.

        Args:
            images: (N, B, H, W) floating point, RGB if there are three, normalized with image_mean and image_std; any H
                and W.

        Returns:
            Logits (N, C, h, w), not upsampled; a model with an auxiliary head returns (logits, auxiliary logits) in
            training mode.
        """
        raise NotImplementedError


class BackboneModel(SegmentationModel):
    """A timm backbone, and a head of ours that turns its feature maps into logits at the model's own stride.

    A subclass builds its head, with a classifier `auxiliary` or without one, and defines `decode`.

    Args:
        backbone: Feature extractor, as `build_backbone` makes it.
        num_classes: Number of classes C.
        align_corners: Corner convention of the interpolations inside the head, and, before training says otherwise, of
            its logits to full size.

    Attributes:
        output_stride: Image size over the size of the deepest feature map.
        auxiliary: A second classifier, of the map before the deepest, whose logits come beside the others in training
            mode; None without one.
    """

    backbone: Backbone

    def __init__(self, backbone: Backbone, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(num_classes, backbone.image_mean, backbone.image_std)
        self.align_corners = align_corners
        self.backbone = backbone
        self.output_stride = backbone.reductions[-1]
        self.auxiliary: nn.Module | None = None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """See `SegmentationModel.forward`.

        Raises:
            ValueError: One image in training mode: its image-level features would be normalized by their own values.
        """
        if self.training and len(images) == 1 and any(map(_sees_an_image, self.modules())):
            raise ValueError(
                "cannot train with a batch size of 1: the image-pooling branch has one value per channel and image, "
                "and batch norm needs more; use at least 2 images per step (drop a last batch of 1)"
            )
        features = self.taken(self.backbone(images))
        logits = self.decode(features)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, self.auxiliary(features[-2])

    def taken(self, features: list[Tensor]) -> list[Tensor]:
        """The feature maps that the classifiers see, of those of the backbone; both come shallowest first."""
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits from the feature maps, see `taken`."""
        raise NotImplementedError


def _sees_an_image(module: nn.Module) -> bool:
    """Tell whether a layer normalizes one value for each channel and image."""
    # SyncBatchNorm is not a BatchNorm2d: it takes its statistics over all processes and may see one image in each.
    norm = module.project.norm if isinstance(module, PooledContext) and module.bins == 1 else None
    return isinstance(norm, nn.BatchNorm2d) and norm.training


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and each of its parts back in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
