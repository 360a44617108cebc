"""Images to segment: files, folders, glob patterns, videos, lists on standard input."""

from __future__ import annotations

import glob
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from rmiseg.config.commands import VIDEO_SUFFIXES
from rmiseg.data import read_image
from rmiseg.data.bands import RGB, Bands
from rmiseg.data.image_files.opening import UNREADABLE, image_header, of_any_size
from rmiseg.data.image_files.volumes import is_volume, slices_of
from rmiseg.data.sets.pairing import IMAGE_SUFFIXES, UNIMPORTANT, is_unimportant, parted, walk
from rmiseg.inference.large import open_large
from rmiseg.inference.results_file import RESULTS_FILE, result_folders
from rmiseg.inference.tiles import Area
from rmiseg.runtime.extras import import_extra

LARGE = 1 << 26
"""Pixels of an image from which on it is not held as an array: 192 MB."""

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """An image or video file, and the relative path, without suffix, that names its results."""

    file: Path
    name: Path

    @property
    def is_video(self) -> bool:
        return self.file.suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Frame:
    """An image that is ready to be segmented, or what is wrong with it.

    Attributes:
        name: Relative path, without suffix, of its results.
        size: Height and width.
        read: Returns a part of it, (height, width, B) uint8.
        file: Its file, if it is one of its own.
        problem: Why it cannot be read.
    """

    name: Path
    size: tuple[int, int] = (0, 0)
    read: Callable[[Area], np.ndarray] | None = None
    problem: str | None = None
    file: Path | None = None

    @property
    def is_large(self) -> bool:
        """True if it must be segmented and written in strips."""
        return self.size[0] * self.size[1] > LARGE

    def pixels(self, area: Area | None = None) -> np.ndarray:
        """A part of the image, or all of it: (height, width, B) uint8."""
        assert self.read is not None
        return self.read(area or Area(0, 0, *self.size))

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Rows of the image: (bottom - top, W, B) uint8."""
        return self.pixels(Area(top, 0, bottom - top, self.size[1]))

    def tensor(self, area: Area) -> Tensor:
        """A part of the image: (B, height, width) uint8."""
        return torch.from_numpy(self.pixels(area)).permute(2, 0, 1)


class Found(NamedTuple):
    """The images and videos that were asked for.

    Attributes:
        sources: They themselves.
        left_out: Which files of the same folders and patterns are neither, in a sentence; "" if there are none.
    """

    sources: list[Source]
    left_out: str


def find_sources(patterns: Sequence[str]) -> Found:
    """The image and video files of `patterns`, each a file, a folder (searched with its subfolders), a glob pattern, or
    "-", which stands for the lines of standard input.

    Hidden files, folders that systems make, and results of earlier predictions are passed over in folders and patterns.
    The order is that of the patterns, sorted within each.

    Raises:
        FileNotFoundError: A pattern matches nothing.
        ValueError: Two files would get results of the same name.
    """
    found: dict[Path, Path] = {}
    others: dict[str, list[Path]] = {}
    for pattern in _with_standard_input(patterns):
        path = Path(pattern)
        if path.is_dir():
            searched = _inputs(path, [path / name for name in walk(path)], others)
            files = [(file, file.relative_to(path)) for file in searched]
            if not files:
                raise FileNotFoundError(f"folder {path} holds no images ({', '.join(IMAGE_SUFFIXES)}) and no videos")
        elif path.is_file():
            files = [(path, Path(path.name))]
        else:
            root = Path(*path.parts[: _fixed_parts(path)])
            matches = [file for file in map(Path, sorted(glob.glob(pattern, recursive=True))) if file.is_file()]
            files = [(file, Path(file.name)) for file in _inputs(root, matches, others)]
            if not files:
                raise FileNotFoundError(f"no image or video file, folder or glob pattern matches {pattern}")
        for file, relative in _in_slices(files):
            name = Path(parted(str(relative))[0])
            if found.setdefault(name, file) != file:
                raise ValueError(f"{found[name]} and {file} would both be named {name}; predict them into two folders")
    return Found([Source(file, name) for name, file in found.items()], _left_out(others))


def _inputs(root: Path, files: Sequence[Path], others: dict[str, list[Path]]) -> list[Path]:
    """Those of the files below a folder that are images or videos; notes the others by their suffixes."""
    results = result_folders(root, files)
    inputs = []
    for file in files:
        relative = file.relative_to(root)
        if any(map(is_unimportant, relative.parts)) or not results.isdisjoint(file.parents):
            continue
        suffix = parted(file.name)[1].lower()
        if suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            inputs.append(file)
        elif file.name.lower() not in (*UNIMPORTANT, RESULTS_FILE):
            others.setdefault(suffix, []).append(file)
    return inputs


def _left_out(others: Mapping[str, Sequence[Path]]) -> str:
    """Say which files are neither images nor videos."""
    if not others:
        return ""
    counts = ", ".join(f"{len(files)} {suffix or 'without suffix'}" for suffix, files in sorted(others.items()))
    first = next(files[0] for _, files in sorted(others.items()))
    return (
        f"files of these suffixes are left out: {counts}, such as {first}; images among them are to be saved as PNG or "
        f"TIFF"
    )


def _in_slices(files: Sequence[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    """Files and their names, and in place of a volume its slices."""
    for file, relative in files:
        if not is_volume(file):
            yield file, relative
            continue
        for each in slices_of(file):
            yield each, Path(parted(str(relative))[0], each.name)


def _with_standard_input(patterns: Sequence[str]) -> list[str]:
    text = sys.stdin.read() if "-" in patterns else ""
    # Of `find -print0` names end with a zero, as they may hold anything else; spaces at their ends are part of them.
    lines = [line for line in (text.split("\0" if "\0" in text else "\n")) if line.strip()]
    if "-" in patterns and not lines:
        raise ValueError("standard input (-) names no image")
    return [each for pattern in patterns for each in (lines if pattern == "-" else [pattern])]


def _fixed_parts(pattern: Path) -> int:
    """Number of folders of a glob pattern before its first wildcard."""
    return next((i for i, part in enumerate(pattern.parts) if glob.has_magic(part)), len(pattern.parts))


def read_frames(sources: Sequence[Source], windows: bool, bands: Bands = RGB) -> Iterator[Frame]:
    """The images of `sources`, decoded while those before them are worked on.

    Args:
        sources: Image and video files.
        windows: True if images are seen in windows, so that large ones may come.
        bands: See `read_image`.
    """
    return ahead(frame for source in sources for frame in _frames(source, windows, bands))


def _frames(source: Source, windows: bool, bands: Bands) -> Iterator[Frame]:
    try:
        if source.is_video:
            if bands.count != RGB.count:
                raise ValueError(f"video {source.file} has pictures of 3 bands, and the model takes {bands.count}")
            yield from _video_frames(source)
        else:
            yield _image_frame(source, windows, bands)
    except UNREADABLE as error:
        yield Frame(source.name, problem=str(error))


def array_frame(name: Path, pixels: np.ndarray, file: Path | None = None) -> Frame:
    """A frame of an image (H, W, B) uint8."""
    return Frame(name, (pixels.shape[0], pixels.shape[1]), lambda area: pixels[area.rows, area.columns], file=file)


def _image_frame(source: Source, windows: bool, bands: Bands) -> Frame:
    height, width = _size(source.file, bands)
    if width * height <= LARGE:
        return array_frame(source.name, read_image(source.file, bands=bands), source.file)
    if not windows:
        raise ValueError(
            f"image {source.file} has {width} x {height} pixels, too many to be seen at once; use --window 1024 or so"
        )
    size, read = open_large(source.file, bands)
    return Frame(source.name, size, read, file=source.file)


def _size(path: Path, bands: Bands) -> tuple[int, int]:
    """Height and width by the header; those of what is no image are 0, and reading it says why."""
    with of_any_size():
        try:
            return image_header(path, bands.pages).size
        except Exception:
            return 0, 0


def _video_frames(source: Source) -> Iterator[Frame]:
    """The frames of a video, named by their numbers, which begin with 0."""
    av = import_extra("av", "video", f"reading the video {source.file}")
    try:
        with av.open(str(source.file)) as container:
            if not container.streams.video:
                raise ValueError("it has no pictures")
            for number, frame in enumerate(container.decode(video=0)):
                # As players show it: telephones write how they were held beside the pictures.
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield array_frame(source.name / f"{number:06d}", np.ascontiguousarray(pixels))
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"cannot read video {source.file}: {error}") from error


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items, made by a thread that is up to `depth` of them ahead."""
    results: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(result: tuple[bool, Any]) -> None:
        while not stopped.is_set():
            try:
                results.put(result, timeout=0.1)
                break
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            going, item = results.get()
            if not going:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        stopped.set()
        thread.join()
