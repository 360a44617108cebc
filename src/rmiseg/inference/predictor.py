"""A trained model as a function from images to class ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rmiseg.config import TilingConfig
from rmiseg.data import read_image, rgb_pixels
from rmiseg.data.bands import RGB, Bands, scaled_values
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint
from rmiseg.inference.segment import probabilities, segment
from rmiseg.inference.tiles import Area, TileLogits, plan_tiles, run_tiles
from rmiseg.runtime.device import select_device

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor


class Predictor:
    """Segments single images of any size with a trained model.

    Args:
        checkpoint: The trained model; `Predictor.from_run` reads it from a file or a run's folder.
        device: Where to compute: auto, cpu, cuda, ...
        tiling: Scales, flip and windows; by default the model sees every image once, whole.
        model: The network, of a run whose network was given in Python; see `Checkpoint.build_model`.

    Attributes:
        classes: Names and colors of the classes; class ids are their indices.
        bands: Bands B of the images that the model takes.

    Examples:
        >>> predictor = Predictor.from_run("runs/mine")
        >>> ids = predictor("street.jpg")
        >>> predictor.classes.names[ids[100, 200]]
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        tiling: TilingConfig | None = None,
        *,
        model: nn.Module | None = None,
    ) -> None:
        self.classes = checkpoint.classes
        self.model = checkpoint.build_model(select_device(device), model)
        self.image_scale = checkpoint.data.image_scale
        self.bands = Bands.of(checkpoint.data)
        self.tiling = tiling or TilingConfig()
        plan_tiles((1, 1), self.tiling)  # whose errors come early

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        device: str = "auto",
        tiling: TilingConfig | None = None,
        *,
        model: nn.Module | None = None,
    ) -> Predictor:
        """Load a checkpoint file, or the best checkpoint of a run's folder.

        Args:
            path: The file, or the folder; that of `rmiseg export --format safetensors` too.
            device: See above.
            tiling: See above.
            model: See above.

        Raises:
            ValueError, OSError: As `load_checkpoint` and `Checkpoint.build_model`.
        """
        return cls(load_checkpoint(path), device, tiling, model=model)

    def __call__(self, image: ImageLike) -> np.ndarray:
        """The class of each pixel.

        Args:
            image: The path of an image file; a Pillow image; a NumPy array (H, W, B), or (H, W) of gray,
                uint8, or of the values that the model was trained on, if they have more bits; or a tensor (B, H, W)
                uint8.

        Returns:
            Class ids (H, W) uint8.

        Raises:
            OSError, ValueError: The file cannot be read, or the pixels are not of this kind.
        """
        pixels = to_tensor(image, self.bands)
        size = (pixels.shape[1], pixels.shape[2])
        return segment(self.tile_logits(size, _reader(pixels)), size, self.model.align_corners)

    def probabilities(self, image: ImageLike) -> np.ndarray:
        """Probabilities (C, H, W) float32 of the classes: the softmax of the logits, or its mean over scales and flips.

        Args:
            image: As for a call.
        """
        pixels = to_tensor(image, self.bands)
        size = (pixels.shape[1], pixels.shape[2])
        outputs = list(self.tile_logits(size, _reader(pixels)))
        return probabilities(outputs, size, self.model.align_corners).cpu().numpy()

    def tile_logits(self, size: tuple[int, int], read: Callable[[Area], Tensor]) -> Iterator[TileLogits]:
        """The logits of the tiles of an image of `size` = (H, W), from top to bottom, for the functions of
        `rmiseg.inference.segment`.

        Args:
            size: Height and width of the image.
            read: Returns an area of it, (B, height, width) uint8.
        """
        return run_tiles(self.model, read, plan_tiles(size, self.tiling, self.image_scale))


def _reader(pixels: Tensor) -> Callable[[Area], Tensor]:
    return lambda area: pixels[:, area.rows, area.columns]


def to_tensor(image: ImageLike, bands: Bands = RGB) -> Tensor:
    """An image, see `Predictor.__call__`, as a tensor (B, H, W) uint8."""
    count = bands.count
    if isinstance(image, str | Path):
        image = read_image(Path(image), bands=bands)
    elif isinstance(image, Image.Image):
        if count != RGB.count:
            raise ValueError(f"the model takes images of {count} bands: give the path of a file, or an array")
        image = rgb_pixels(image.copy())
    if isinstance(image, np.ndarray):
        if image.ndim == 2 and count in (1, RGB.count):
            image = np.repeat(image[..., None], count, axis=2)
        if image.ndim != 3 or image.shape[2] != count:
            gray = " or (H, W)" if count in (1, RGB.count) else ""
            raise ValueError(f"an image as an array must have the shape (H, W, {count}){gray}, not {image.shape}")
        if image.dtype != np.uint8 and bands.ranges is not None:
            image = scaled_values(image, bands.ranges)
        # Of the other order of bytes or negative strides torch takes no view.
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if not isinstance(image, Tensor):
        raise TypeError(f"an image must be a path, a Pillow image, an array or a tensor, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] != count or 0 in image.shape:
        raise ValueError(f"an image as a tensor must have the shape ({count}, H, W), not {tuple(image.shape)}")
    if image.dtype != torch.uint8:
        raise ValueError(f"the pixels of an image must be uint8, 0 to 255, not {image.dtype}")
    return image
