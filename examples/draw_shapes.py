"""Draw a small data set of discs and bars on noise: python examples/draw_shapes.py FOLDER [COUNT]"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 128


def draw(rng):
    """An image and its mask: 0 is background, 1 a disc, 2 a bar."""
    mask = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 4)):
        x, y = rng.integers(10, SIZE - 10, 2)
        radius = rng.integers(8, 20)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    x, width = rng.integers(5, SIZE - 10), rng.integers(3, 7)
    pen.line((x, 0, x + rng.integers(-20, 20), SIZE), fill=2, width=int(width))
    colors = np.array([[90, 110, 80], [170, 90, 80], [80, 90, 160]]) + rng.normal(0, 12, (3, 3))
    pixels = colors[np.asarray(mask)] + rng.normal(0, 30, (SIZE, SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1)), mask


def main(folder, count=40):
    """Write images/, masks/ and dataset.yaml."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        Path(folder, name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, mask = draw(rng)
        image.save(Path(folder, "images", f"{index:03}.jpg"), quality=95)
        mask.save(Path(folder, "masks", f"{index:03}.png"))
    Path(folder, "dataset.yaml").write_text("classes: [background, disc, bar]\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
