"""A trained model as a function from images to class ids, and the files that `rmiseg predict` writes."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from rmiseg.data import eval_transform, read_image
from rmiseg.data.folder import IMAGE_SUFFIXES
from rmiseg.engine.checkpoint import Checkpoint, load_checkpoint
from rmiseg.engine.device import select_device
from rmiseg.engine.evaluate import predict_batch
from rmiseg.files import replacing
from rmiseg.inference.pictures import index_image, overlay


class Predictor:
    """Segments single images of any size with a checkpoint.

    Args:
        checkpoint: The trained model; `Predictor.from_checkpoint` reads it from a file or a run's folder.
        device: Where to compute: auto, cpu, cuda, ...

    Example:
        >>> predictor = Predictor.from_checkpoint("runs/mine")
        >>> ids = predictor(read_image(Path("street.jpg")))
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.classes = checkpoint.classes
        self.device = select_device(device)
        self.model = checkpoint.build_model(self.device)
        self.resize = eval_transform(checkpoint.data.image_scale)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> Predictor:
        """Load a checkpoint file, or the best checkpoint of a run's folder. Raises as `load_checkpoint` does."""
        return cls(load_checkpoint(path), device)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of an RGB image (H, W, 3) uint8."""
        image = self.resize(tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)))
        ids = predict_batch(self.model, image[None].to(self.device), pixels.shape[:2])
        return ids[0].to("cpu", torch.uint8).numpy()


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
