"""Copy a data set in the folder layout with every image and mask resized, so that short runs need not do it each time.

python scripts/resized_copy.py DATA/vessels COPIES/vessels 0.5

Images are averaged over boxes, masks take the nearest label. Everything is written as PNG.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image


def resize(source: Path, target: Path, scale: float) -> int:
    """Write the copy, and return the number of its files."""
    written = 0
    for path in sorted(p for kind in ("images", "masks") for p in (source / kind).glob("*/*") if p.is_file()):
        with Image.open(path) as picture:
            size = round(picture.width * scale), round(picture.height * scale)
            is_mask = path.relative_to(source).parts[0] == "masks"
            copy = picture.resize(size, Image.Resampling.NEAREST if is_mask else Image.Resampling.BOX)
        out = (target / path.relative_to(source)).with_suffix(".png")
        out.parent.mkdir(parents=True, exist_ok=True)
        copy.save(out)
        written += 1
    if (description := source / "dataset.yaml").is_file():
        shutil.copy(description, target)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print(resize(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])), "files")
