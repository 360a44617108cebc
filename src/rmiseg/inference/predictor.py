"""A trained model as a function from images to class ids, and the files that `rmiseg predict` writes."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rmiseg.config import ViewConfig
from rmiseg.data import read_image, rgb_pixels
from rmiseg.data.folder import IMAGE_SUFFIXES
from rmiseg.engine.checkpoint import Checkpoint, load_checkpoint
from rmiseg.engine.device import select_device
from rmiseg.files import replacing
from rmiseg.inference.pictures import index_image, overlay
from rmiseg.inference.segment import Piece, plan_views, probabilities, run_views, segment

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor


class Predictor:
    """Segments single images of any size with a trained model.

    Args:
        checkpoint: The trained model; `Predictor.from_run` reads it from a file or a run's folder.
        device: Where to compute: auto, cpu, cuda, ...
        views: Scales, flip and windows; by default the model sees every image once, whole.

    Attributes:
        classes: Names and colors of the classes; class ids are their indices.

    Example:
        >>> predictor = Predictor.from_run("runs/mine")
        >>> ids = predictor("street.jpg")
        >>> predictor.classes.names[ids[100, 200]]
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", views: ViewConfig | None = None) -> None:
        self.classes = checkpoint.classes
        self.model = checkpoint.build_model(select_device(device))
        self.image_scale = checkpoint.data.image_scale
        self.views = views or ViewConfig()
        plan_views((1, 1), self.views)  # whose errors come early

    @classmethod
    def from_run(cls, path: str | Path, device: str = "auto", views: ViewConfig | None = None) -> Predictor:
        """Load a checkpoint file, or the best checkpoint of a run's folder. Raises as `load_checkpoint` does."""
        return cls(load_checkpoint(path), device, views)

    def __call__(self, image: ImageLike) -> np.ndarray:
        """The class of each pixel.

        Args:
            image: The path of an image file; a Pillow image; a NumPy array (H, W, 3) or (H, W), uint8; or a tensor
                (3, H, W) uint8.

        Returns:
            Class ids (H, W) uint8.

        Raises:
            OSError, ValueError: The file cannot be read, or the pixels are not of this kind.
        """
        pixels = to_tensor(image)
        size = (pixels.shape[1], pixels.shape[2])
        return segment(self.see(pixels), size, self.model.align_corners)

    def probabilities(self, image: ImageLike) -> np.ndarray:
        """Probabilities (C, H, W) float32 of the classes: the softmax of the logits, or its mean over scales and flips.

        Args:
            image: As for a call.
        """
        pixels = to_tensor(image)
        pieces = list(self.see(pixels))
        return probabilities(pieces, (pixels.shape[1], pixels.shape[2]), self.model.align_corners).cpu().numpy()

    def see(self, pixels: Tensor) -> Iterator[Piece]:
        """The logits of the views of an image (3, H, W) uint8, from top to bottom."""
        views = plan_views((pixels.shape[1], pixels.shape[2]), self.views, self.image_scale)
        return run_views(self.model, lambda box: pixels[:, box.rows, box.columns], views)


def to_tensor(image: ImageLike) -> Tensor:
    """An image, see `Predictor.__call__`, as a tensor (3, H, W) uint8."""
    if isinstance(image, str | Path):
        image = read_image(Path(image))
    elif isinstance(image, Image.Image):
        image = rgb_pixels(image.copy())
    if isinstance(image, np.ndarray):
        image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image as an array must have the shape (H, W, 3) or (H, W), not {image.shape}")
        # Of the other order of bytes or negative strides torch takes no view.
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if not isinstance(image, Tensor):
        raise TypeError(f"an image must be a path, a Pillow image, an array or a tensor, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"an image as a tensor must have the shape (3, H, W), not {tuple(image.shape)}")
    if image.dtype != torch.uint8:
        raise ValueError(f"the pixels of an image must be uint8, 0 to 255, not {image.dtype}")
    return image


def find_images(patterns: Sequence[str]) -> list[tuple[Path, Path]]:
    """Image files of `patterns`, each a file, a folder (searched with its subfolders) or a glob pattern.

    Returns:
        Pairs of the image file and the relative path, without suffix, that names its results. The order is that of the
        patterns, sorted within each.

    Raises:
        FileNotFoundError: A pattern matches no image.
        ValueError: Two images would get results of the same name.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = [(p, p.relative_to(path)) for p in sorted(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
            files = [(p, name) for p, name in files if not p.is_dir() and not any(s[0] == "." for s in name.parts)]
            if not files:
                raise FileNotFoundError(f"folder {path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        elif path.is_file():
            files = [(path, Path(path.name))]
        else:
            matches = sorted(Path(p) for p in glob.glob(pattern, recursive=True))
            files = [(p, Path(p.name)) for p in matches if p.suffix.lower() in IMAGE_SUFFIXES]
            if not files:
                raise FileNotFoundError(f"no image file, folder or glob pattern matches {pattern}")
        for file, relative in files:
            name = relative.with_suffix("")
            if found.setdefault(name, file) != file:
                raise ValueError(f"{found[name]} and {file} would both be named {name}; predict them into two folders")
    return [(file, name) for name, file in found.items()]


def predict_files(
    predictor: Predictor, images: Sequence[tuple[Path, Path]], out: Path, *, opacity: float, overwrite: bool
) -> Iterator[str | None]:
    """Write out/index/NAME.png (class ids with a palette) and out/overlay/NAME.png for each image.

    Yields:
        For each image None, or what is wrong with it: one damaged file does not stop the others.

    Raises:
        FileExistsError: A result exists, and `overwrite` is false; checked before anything is written.
        ValueError: The opacity is not from 0 to 1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, not {opacity}")
    targets = [(out / "index" / f"{name}.png", out / "overlay" / f"{name}.png") for _, name in images]
    existing = [path for pair in targets for path in pair if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{existing[0]} exists, as do {len(existing) - 1} other results; use --overwrite true or another --out"
        )
    for (file, _), (index_path, overlay_path) in zip(images, targets):
        try:
            pixels = read_image(file)
        except (ValueError, OSError) as error:
            yield str(error)
            continue
        ids = predictor(pixels)
        _write_png(index_path, index_image(ids, predictor.classes))
        _write_png(overlay_path, Image.fromarray(overlay(pixels, ids, predictor.classes, opacity)))
        yield None


def _write_png(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
