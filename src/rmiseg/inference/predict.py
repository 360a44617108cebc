"""Predictions as files, as `rmiseg predict` writes them; decoding and writing overlap the model's work."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from rich.console import Console
from torch import nn

from rmiseg.config import CRFConfig, PredictConfig, TilingConfig, tiling_config
from rmiseg.config.commands import PredictionFormat
from rmiseg.config.recipes import shortened
from rmiseg.inference.checkpoint import digest, find_checkpoint, load_checkpoint
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.outputs import (
    PictureFormat,
    Pictures,
    picture_formats,
    probabilities_path,
    save_probabilities,
)
from rmiseg.inference.predictor import Predictor
from rmiseg.inference.segment import id_strips, probabilities, segment
from rmiseg.inference.sources import RESULTS_FILE, Frame, Source, find_sources, read_frames
from rmiseg.inference.tiles import TileLogits
from rmiseg.runtime.device import usable_cores
from rmiseg.runtime.distributed import gather, on_main, patience, processes, shard
from rmiseg.runtime.files import remove_leftovers, replacing, to_json
from rmiseg.runtime.progress import track

THREADS = 8
"""Most images that are finished at once, their files written, while the model goes on; no more than there are cores."""

PENDING = 2
"""Images that may wait to be finished while the model goes on, beside those that are being finished."""

MAY_DIFFER = ("checkpoint", "write")
"""Entries of predictions.json that may be others when a prediction goes on: where the same checkpoint lies, and the
kinds of files."""


class Predictions(NamedTuple):
    """Results of a prediction.

    Attributes:
        out: Folder of the files.
        images: Number of images that were segmented.
        problems: What is wrong with each of the others.
        kept: Number of images whose results were there already, with `resume`.
    """

    out: Path
    images: int
    problems: list[str]
    kept: int = 0


def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    write: Sequence[str] = ("index", "overlay"),
    opacity: float = 0.5,
    overwrite: bool = False,
    tiling: TilingConfig | None = None,
    crf: Sequence[int] = (),
    dense_crf: CRFConfig | None = None,
    model: nn.Module | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> Predictions:
    """Segment images at their original size and write pictures, as `rmiseg predict` does.

    Args:
        run: The folder of a run (its best checkpoint), or a checkpoint file.
        images: Image files, videos, folders or glob patterns, or one of them.
        out: Folder for the results, which mirror the names of the images.
        write: What to write: index (PNG of class ids with a palette), gray (PNG of class ids), color (PNG of class
            colors), overlay (colors over the image), probabilities (float16 npz), voc (what PASCAL VOC's test server
            takes), cityscapes (what that of Cityscapes takes).
        opacity: Opacity of the class colors in the overlays, 0 to 1.
        overwrite: Replace results that exist.
        tiling: Scales, flip and windows; by default the network sees every image once, whole.
        crf: Iterations of a dense CRF; for several, results go to folders crf1/, crf5/, ...
        dense_crf: Its kernels.
        model: The network, if that of the run was given in Python.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        console: Where to show progress; by default nowhere.

    Raises:
        ValueError, OSError: Anything wrong with checkpoint or options; results that exist. A damaged image is none of
            these: it is among the problems.
    """
    patterns = [images] if isinstance(images, str | Path) else images
    config = PredictConfig(
        **asdict(tiling or TilingConfig()),
        checkpoint=str(run),
        images=[str(pattern) for pattern in patterns],
        out=str(out),
        write=list(write),  # type: ignore[arg-type]  # checked with the pictures
        opacity=opacity,
        overwrite=overwrite,
        crf=list(crf),
        dense_crf=dense_crf or CRFConfig(),
        device=device,
    )
    with processes(device) as place:
        return predict_files(config, console, place, model=model)


def predict_files(
    config: PredictConfig,
    console: Console | None = None,
    device: torch.device | None = None,
    *,
    model: nn.Module | None = None,
) -> Predictions:
    """Segment images and write pictures as `config` says; see `predict`.

    Of several processes each takes its share of the images; all get the results of all.

    Args:
        config: What to segment.
        console: Where to show progress.
        device: Where to compute; by default as `config` says.
        model: See `predict`.
    """
    console = console or Console(quiet=True)
    if bool(config.images) == bool(config.split):
        raise ValueError("name the images to segment: either files, folders or patterns, or --split and a split's name")
    sources = on_main(lambda: find_sources(config.images))
    path = find_checkpoint(config.checkpoint)
    checkpoint = load_checkpoint(path)
    if config.split:
        split = on_main(lambda: checkpoint.load_split(config.split, config.root, masks=False))
        sources = [Source(sample.image, Path(sample.name)) for sample in split.samples]
    tiling = tiling_config(config)
    out = Path(config.out)
    with DenseCRF(config.crf, config.dense_crf) if config.crf else nullcontext() as crf:
        predictor = Predictor(checkpoint, config.device if device is None else str(device), tiling, model=model)
        writer = Writer(predictor, out, config.write, opacity=config.opacity, crf=crf)
        about = {
            "checkpoint": str(path.absolute()),
            "sha256": digest(path),
            "step": checkpoint.step,
            "classes": checkpoint.classes.names,
            "settings": asdict(tiling),
            "crf": {"iterations": config.crf, **asdict(config.dense_crf)} if config.crf else None,
            "opacity": config.opacity,
            "write": config.write,
        }
        wanted = on_main(lambda: _prepare(writer, sources, about, config))
        own = shard(wanted)
        total = None if any(source.is_video for source in own) else len(own)
        with patience() as group:
            results = list(track(writer.run(own), "predicting", console, total=total))
            everywhere = gather((results, writer.crf_seconds), group)
    results, seconds = ([each for part in parts for each in part] for parts in zip(*everywhere))
    problems = [problem for problem in results if problem is not None]
    kept = len(sources) - len(wanted)
    there = f" ({kept} more were there already)" if kept else ""
    console.print(f"{len(results) - len(problems)} images{there}: {', '.join(config.write)} in {out}", markup=False)
    if seconds:
        console.print(f"dense CRF: {sum(seconds) / len(seconds):.2f} s an image")
    return Predictions(out, len(results) - len(problems), problems, kept)


def _prepare(
    writer: Writer, sources: Sequence[Source], about: Mapping[str, Any], config: PredictConfig
) -> Sequence[Source]:
    """Make the folder of the results, and note what they are made with; the images that are left to segment.

    Raises:
        ValueError, FileExistsError: Results are in the way.
    """
    if config.resume == "auto":
        sources = _missing(writer, sources, about, config)
    writer.check(sources, config.overwrite or config.resume == "auto")
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / RESULTS_FILE) as temporary:
        temporary.write_text(to_json(about), encoding="utf-8")
    return sources


def _missing(
    writer: Writer, sources: Sequence[Source], about: Mapping[str, Any], config: PredictConfig
) -> list[Source]:
    """Those whose results are not all there; what is left of a process that was killed is removed.

    Raises:
        ValueError: The results that are there are of another checkpoint, or were made with other settings.
    """
    if config.overwrite:
        raise ValueError("--overwrite makes all results again, and --resume auto only those that are missing; give one")
    path = Path(config.out) / RESULTS_FILE
    if not path.is_file():
        return list(sources)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        now = json.loads(to_json(about))
        differing = [name for name in now if name not in MAY_DIFFER and before.get(name, now[name]) != now[name]]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); use --overwrite or another --out") from error
    if differing:
        was, is_now = (shortened(str(each[differing[0]]), 100) for each in (before, now))
        raise ValueError(
            f"the results in {config.out} were made with {differing[0]} {was}, not {is_now}; use --overwrite or "
            "another --out"
        )
    files: dict[Path, set[str]] = {}
    for source in sources:
        for file in writer.files(source.name):
            files.setdefault(file.parent, set()).add(file.name)
    for folder, names in files.items():
        remove_leftovers(folder, names)
    return [source for source in sources if source.is_video or not all(map(os.path.isfile, writer.files(source.name)))]


class Writer:
    """Segments images and writes their files.

    Args:
        predictor: The model.
        out: Folder of the results.
        write: Names of what to write.
        opacity: Opacity of the class colors in overlays.
        crf: Refines what the network puts out; results of several numbers of iterations go to folders of their own.

    Raises:
        ValueError: A format does not exist or is for other classes, or the opacity is not from 0 to 1.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        write: Sequence[str],
        *,
        opacity: float = 0.5,
        crf: DenseCRF | None = None,
    ) -> None:
        if not write:
            raise ValueError("nothing to write; name something with --write")
        if unknown := [name for name in write if name not in get_args(PredictionFormat)]:
            raise ValueError(f"write: {unknown[0]!r} is none of {', '.join(get_args(PredictionFormat))}")
        self.predictor = predictor
        self.formats: list[PictureFormat] = list(picture_formats(write, predictor.classes, opacity).values())
        self.with_probabilities = "probabilities" in write
        self.crf = crf
        several = crf is not None and len(crf.iterations) > 1
        self.folders = [out / f"crf{count}" for count in crf.iterations] if crf and several else [out]
        self.align_corners = predictor.model.align_corners
        self.crf_seconds: list[float] = []

    def files(self, name: Path) -> list[Path]:
        """All files that an image of that name gets."""
        paths = [folder / each.path(name) for folder in self.folders for each in self.formats]
        return paths + ([self.folders[0] / probabilities_path(name)] if self.with_probabilities else [])

    def check(self, sources: Sequence[Source], overwrite: bool) -> None:
        """See whether files are in the way, before anything is written.

        Raises:
            FileExistsError: A result exists, and `overwrite` is false.
            ValueError: Two images would be written to the same file.
        """
        seen: dict[Path, Source] = {}
        existing: list[Path] = []
        for source in sources:
            for path in self.files(source.name):
                if path in seen:
                    raise ValueError(f"{seen[path].file} and {source.file} would both be written to {path}")
                seen[path] = source
                # The frames of a video have a folder of that name.
                place = path.with_suffix("") if source.is_video else path
                existing += [place] if os.path.lexists(place) else []
        if existing and not overwrite:
            others = f", as do {len(existing) - 1} other results" if len(existing) > 1 else ""
            raise FileExistsError(f"{existing[0]} exists{others}; use --overwrite or another --out")

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
            for frame in read_frames(sources, self.predictor.tiling.window is not None, self.predictor.value_range):
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
                pictures.write(pixels, ids)

    def _write_in_strips(self, frame: Frame) -> None:
        """An image that is too large to be held as an array, and its result too."""
        if self.with_probabilities or self.crf:
            raise ValueError(f"{frame.size[1]} x {frame.size[0]} pixels are too many for probabilities or a dense CRF")
        with self._pictures(self.folders[0], frame) as pictures:
            top = 0
            for ids in id_strips(self._tile_logits(frame), frame.size, self.align_corners):
                pictures.write(frame.rows(top, top + len(ids)), ids)
                top += len(ids)

    def _pictures(self, folder: Path, frame: Frame) -> Pictures:
        paths = [folder / each.path(frame.name) for each in self.formats]
        return Pictures(paths, self.formats, frame.size, self.predictor.classes)


def _problem(frame: Frame, work: Callable[[], None]) -> str | None:
    """Do something with an image; what goes wrong with it, if anything does."""
    try:
        work()
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        return f"{frame.name}: {shortened(str(error) or type(error).__name__, 500)}"
    return None
