"""A small data set with nothing to download: gray and white matter in slices of a brain, with noise.

The images come from the ICBM 152 template that the package nilearn carries. Mind what it is: one averaged brain, and
masks made from tissue probabilities. A bias field and strong noise are added, as of a fast scan with one coil, so that
the value of one pixel says little and its surroundings say much.

The files are those of the data set folder, written once:

    root/
      dataset.yaml
      images/train/  images/val/    slice_042.png, gray, 192 x 160
      masks/train/   masks/val/     with a palette
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
import yaml
from PIL import Image

from rmiseg.config.registry import register
from rmiseg.data.images import Split
from rmiseg.data.sets.folder import Folder
from rmiseg.runtime.extras import remedy

CLASSES = {"background": (0, 0, 0), "gray matter": (230, 120, 60), "white matter": (240, 240, 220)}

# Axial slices, 1 mm apart, of which neighbors are nearly equal: blocks of 20, of which 13 slices are train and 4 are
# val, with gaps of 2 and 1 between. (The template is left-right symmetric: its halves must not be told apart.)
FIRST, LAST = 18, 137
BLOCK, TRAIN, VAL = 20, range(13), range(15, 19)

BIAS = 0.15  # standard deviation of the logarithm of the bias field
NOISE = 0.12  # standard deviation, where white matter is 0.84 and gray matter is 0.65

_Array: TypeAlias = np.ndarray


@register("dataset", "demo")
class Demo(Folder):
    """Slices of a brain: gray and white matter, in the layout of the data set folder. Written on first use."""

    WRITES_ROOT = True

    def parts(self, root: Path) -> dict[str, tuple[Path, ...]]:
        """See `Layout.parts`; the files are written on first use."""
        return super().parts(write_demo_data(root))

    def scan_split(self, root: Path, split: str) -> Split:
        """See `Folder.scan_split`; the files are written on first use."""
        return super().scan_split(write_demo_data(root), split)


def write_demo_data(root: str | Path) -> Path:
    """Write the demo data, unless they are there already. The same files on every call, on every machine.

    The folder appears complete or not at all, so that several processes may call this at once.

    Args:
        root: Folder to write.

    Returns:
        The folder.

    Raises:
        ModuleNotFoundError: nilearn is not installed.
        ValueError: the folder holds something else.
    """
    root = Path(root)
    if _is_complete(root):
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"{root} exists, but does not hold the complete demo data: remove it, or name a folder that does not exist"
        )
    image, tissue = _load_volume()
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        data = Path(scratch, "data")
        for split, slices in split_slices().items():
            _write_split(data, split, slices, image, tissue)
        _write_yaml(data)
        if root.is_dir():
            root.rmdir()  # empty, as seen above
        try:
            data.rename(root)
        except OSError:
            if not _is_complete(root):  # else another process was faster
                raise
    return root


def split_slices() -> dict[str, list[int]]:
    """The axial slices of each split."""
    slices = range(FIRST, LAST + 1)
    return {
        "train": [z for z in slices if (z - FIRST) % BLOCK in TRAIN],
        "val": [z for z in slices if (z - FIRST) % BLOCK in VAL],
    }


def _is_complete(root: Path) -> bool:
    return (root / "dataset.yaml").is_file() and all(
        (root / part / split / f"slice_{z:03d}.png").is_file()
        for split, slices in split_slices().items()
        for part in ("images", "masks")
        for z in slices
    )


def _load_volume() -> tuple[_Array, _Array]:
    """The template (192, 160, slices) float32 with values 0 .. 1, front up, and its classes uint8."""
    try:
        from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the demo data are made from the package nilearn ({error}): {remedy('demo')}", name=error.name
        ) from error
    image, gray, white = (
        # 160 x 192 around the brain; the first axis goes from left to right, the second from back to front.
        np.rot90(load(resolution=1).get_fdata(dtype=np.float32)[19:179, 22:214])
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    tissue = np.where(gray + white < 0.5, 0, np.where(gray >= white, 1, 2)).astype(np.uint8)
    return image, tissue


def _write_split(data: Path, split: str, slices: list[int], image: _Array, tissue: _Array) -> None:
    for part in ("images", "masks"):
        (data / part / split).mkdir(parents=True)
    for z in slices:
        name = f"slice_{z:03d}.png"
        scan = _degrade(image[..., z], np.random.default_rng([152, z]))
        Image.fromarray(scan).save(data / "images" / split / name)
        mask = Image.fromarray(tissue[..., z]).convert("P")
        mask.putpalette([channel for color in CLASSES.values() for channel in color])
        mask.save(data / "masks" / split / name)


def _degrade(clean: _Array, rng: np.random.Generator) -> _Array:
    """Add a smooth multiplicative bias field and Rician noise; gray uint8."""
    coarse = Image.fromarray(rng.normal(0.0, BIAS, (4, 4)).astype(np.float32))
    bias = np.exp(np.asarray(coarse.resize(clean.shape[::-1], Image.Resampling.BICUBIC)))
    real, imaginary = rng.normal(0.0, NOISE, (2, *clean.shape))
    pixels: _Array = (np.hypot(clean * bias + real, imaginary) * 170).clip(0, 255).astype(np.uint8)
    return pixels


def _write_yaml(data: Path) -> None:
    text = yaml.safe_dump(
        {"classes": list(CLASSES), "colors": [list(color) for color in CLASSES.values()]},
        sort_keys=False,
        default_flow_style=None,
    )
    (data / "dataset.yaml").write_text(
        f"# the ICBM 152 template, from nilearn, with noise: see rmiseg.data.sets.demo\n{text}"
    )
