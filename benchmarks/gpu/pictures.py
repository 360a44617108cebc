"""Pictures with masks on disk, for the parts that read files."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from gpu.batches import IGNORED

DATA = "RMISEG_GPU_DATA"
"""The variable of the environment with the folder of packed data."""


def packed_data() -> Path | None:
    """The folder that `benchmarks/gpu_pack.py` has filled, if there is one."""
    folder = os.environ.get(DATA)
    return Path(folder) if folder and Path(folder, "dataset.yaml").is_file() else None


def write_pictures(root: Path, counts: dict[str, int], size: tuple[int, int], classes: int) -> Path:
    """Write so many JPEG images and PNG masks of each split, (H, W), in the layout `folder`; smooth, and alike."""
    generator = torch.Generator().manual_seed(0)
    for split, count in counts.items():
        images, masks = root / "images" / split, root / "masks" / split
        for index in range(count):
            coarse = torch.rand(1, 3 + classes, 9, 12, generator=generator)
            smooth = F.interpolate(coarse, size, mode="bilinear")[0]
            noisy = (255 * smooth[:3] + 6 * torch.randn(3, *size, generator=generator)).clamp_(0, 255)
            labels = smooth[3:].argmax(dim=0).to(torch.uint8)
            labels[:4] = IGNORED
            for folder in (images, masks):
                folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.to(torch.uint8).permute(1, 2, 0).numpy()).save(images / f"{index}.jpg", quality=95)
            Image.fromarray(labels.numpy()).save(masks / f"{index}.png")
    describe(root, [f"class {index}" for index in range(classes)])
    return root


def describe(root: Path, names: list[str]) -> None:
    """Write dataset.yaml for masks of class ids, with `IGNORED` where nothing counts."""
    lines = [f"  {name}: {index}" for index, name in enumerate(names)]
    (root / "dataset.yaml").write_text("\n".join(["classes:", *lines, f"ignore: [{IGNORED}]"]) + "\n")
