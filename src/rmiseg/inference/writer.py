"""Pictures and labels of predictions, written while the model goes on."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from rmiseg.config.recipes import shortened
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.geotiff import TIFF, geography_of
from rmiseg.inference.labels import ImageFiles
from rmiseg.inference.outputs import (
    PictureFormat,
    Pictures,
    picture_formats,
    probabilities_path,
    save_probabilities,
)
from rmiseg.inference.predictor import Predictor
from rmiseg.inference.segment import id_strips, probabilities, segment
from rmiseg.inference.sources import Frame, Source, read_frames
from rmiseg.inference.tiles import TileLogits
from rmiseg.runtime.cores import usable_cores
from rmiseg.runtime.places import check_places, said_of

THREADS = 8
"""Most images that are finished at once, their files written, while the model goes on; no more than there are cores."""

PENDING = 2
"""Images that may wait to be finished while the model goes on, beside those that are being finished."""


class Writer:
    """Segments images and writes their files.

    Args:
        predictor: The model.
        out: Folder of the results.
        write: Names of what to write.
        opacity: Opacity of the class colors in overlays.
        crf: Refines what the network puts out; results of several numbers of iterations go to folders of their own.
        labels: Formats of labelling tools, and of volumes.

    Raises:
        ValueError: A format is for other classes, or the opacity is not from 0 to 1.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        write: Sequence[str],
        *,
        opacity: float = 0.5,
        crf: DenseCRF | None = None,
        labels: Sequence[ImageFiles] = (),
    ) -> None:
        if not write:
            raise ValueError("nothing to write; name something with --write")
        self.predictor = predictor
        self.out = out
        self.labels = labels
        self.formats: list[PictureFormat] = list(picture_formats(write, predictor.classes, opacity).values())
        self.with_probabilities = "probabilities" in write
        self.crf = crf
        several = crf is not None and len(crf.iterations) > 1
        self.folders = [out / f"crf{count}" for count in crf.iterations] if crf and several else [out]
        self.align_corners = predictor.model.align_corners
        self.crf_seconds: list[float] = []

    def files(self, name: Path) -> list[Path]:
        """All files that an image of that name gets."""
        relative = [each.path(name) for each in self.formats] + [each.path(name) for each in self.labels]
        paths = [folder / path for folder in self.folders for path in relative]
        return paths + ([self.folders[0] / probabilities_path(name)] if self.with_probabilities else [])

    def places(self, source: Source) -> list[Path]:
        """All files that an image gets, or the folders of those of each frame of a video."""
        return [path.with_suffix("") if source.is_video else path for path in self.files(source.name)]

    def together(self) -> list[Path]:
        """All files that are of all images."""
        return [path for folder in self.folders for each in self.labels for path in each.together(folder)]

    def result_folders(self) -> set[str]:
        """Names of the folders that files of images are in."""
        return {path.relative_to(self.out).parts[0] for path in self.files(Path("name"))}

    def check(self, sources: Sequence[Source], overwrite: bool) -> None:
        """See whether files are in the way, before anything is written.

        Raises:
            FileExistsError: A result exists, and `overwrite` is false.
            OSError: A file is in the place of a folder, or a folder in that of a file.
            ValueError: Two images would be written to the same file.
        """
        together = self.together()
        check_places([*self.folders, *{path.parent for path in together}], together)
        seen: dict[Path, Source] = {}
        existing: list[Path] = []
        for source in sources:
            for path, place in zip(self.files(source.name), self.places(source)):
                if path in seen:
                    raise ValueError(f"{seen[path].file} and {source.file} would both be written to {path}")
                seen[path] = source
                existing += [place] if os.path.lexists(place) else []
        if existing and not overwrite:
            others = f", as do {len(existing) - 1} other results" if len(existing) > 1 else ""
            raise FileExistsError(f"{existing[0]} exists{others}; use --overwrite or another --out")
        # The folders of results alone: those below mirror the images, of which one must not stop the others.
        check_places({path.parent for path in self.files(Path("name"))})

    def run(self, sources: Sequence[Source]) -> Iterator[str | None]:
        """Write the files of each image.

        Yields:
            For each image None, or what is wrong with it: an image that cannot be read, or a file that cannot be
            written, does not stop the others.
        """
        workers = self.crf.workers if self.crf else min(usable_cores(), THREADS)
        pending: deque[tuple[Frame, Future[None]]] = deque()

        def finished() -> str | None:
            frame, future = pending.popleft()
            return _problem(frame, future.result)

        with ThreadPoolExecutor(workers) as executor:
            for frame in read_frames(sources, self.predictor.tiling.window is not None, self.predictor.bands):
                if frame.problem is not None:
                    yield frame.problem
                elif frame.is_large:
                    yield _problem(frame, partial(self._write_in_strips, frame))
                else:
                    outputs: list[TileLogits] = []
                    problem = _problem(frame, partial(outputs.extend, self._tile_logits(frame)))
                    if problem is not None:
                        yield problem
                        continue
                    pending.append((frame, executor.submit(self._finish, frame, outputs)))
                    while len(pending) > PENDING + workers - 1:
                        yield finished()
            while pending:
                yield finished()

    def _tile_logits(self, frame: Frame) -> Iterator[TileLogits]:
        yield from self.predictor.tile_logits(frame.size, frame.tensor)

    def _finish(self, frame: Frame, outputs: list[TileLogits]) -> None:
        pixels = frame.pixels()
        if self.with_probabilities or self.crf:
            shares = probabilities(outputs, frame.size, self.align_corners).cpu().numpy()
        if self.with_probabilities:
            path = self.folders[0] / probabilities_path(frame.name)
            save_probabilities(path, shares, self.predictor.classes)
        if self.crf:
            refined = self.crf(pixels, shares)
            self.crf_seconds.append(refined.seconds)
            results = refined.ids
        else:
            results = [segment(outputs, frame.size, self.align_corners)]
        for folder, ids in zip(self.folders, results):
            with self._pictures(folder, frame) as pictures:
                pictures.write(self.predictor.bands.picture_of(pixels), ids)
            for each in self.labels:
                each.write(folder, frame.name, ids)

    def finish_labels(self) -> tuple[list[Path], list[str]]:
        """Write the label files that are of all images; returns them, and what is wrong with the others."""
        written: list[Path] = []
        problems: list[str] = []
        for folder, each in itertools.product(self.folders, self.labels):
            try:
                written += each.finish(folder)
            except (ValueError, OSError) as error:
                problems.append(said_of(error))
        return written, problems

    def _write_in_strips(self, frame: Frame) -> None:
        """An image that is too large to be held as an array, and its result too."""
        if self.with_probabilities or self.crf or self.labels:
            raise ValueError(
                f"{frame.size[1]} x {frame.size[0]} pixels are too many for probabilities, labels or a dense CRF"
            )
        with self._pictures(self.folders[0], frame) as pictures:
            top = 0
            for ids in id_strips(self._tile_logits(frame), frame.size, self.align_corners):
                rows = frame.rows(top, top + len(ids))
                pictures.write(self.predictor.bands.picture_of(rows), ids)
                top += len(ids)

    def _pictures(self, folder: Path, frame: Frame) -> Pictures:
        paths = [folder / each.path(frame.name) for each in self.formats]
        with_place = any(each.mode == TIFF for each in self.formats)
        geography = geography_of(frame.file, self.predictor.bands.pages) if with_place else []
        return Pictures(paths, self.formats, frame.size, self.predictor.classes, geography)


def _problem(frame: Frame, work: Callable[[], None]) -> str | None:
    """Do something with an image; what goes wrong with it, if anything does."""
    try:
        work()
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        return f"{frame.name}: {shortened(said_of(error) or type(error).__name__, 500)}"
    return None
