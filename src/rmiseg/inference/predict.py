"""Predictions as files, as `rmiseg predict` writes them; decoding and writing overlap the model's work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from rich.console import Console
from torch import nn

from rmiseg.config import CRFConfig, PredictConfig, TilingConfig, tiling_config
from rmiseg.config.commands import PREDICTION_FORMATS
from rmiseg.data.bands import RGB
from rmiseg.data.image_files.opening import has_deep_values
from rmiseg.data.image_files.volumes import is_slice
from rmiseg.inference.checkpoint import digest, find_checkpoint, load_checkpoint
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.labels import ImageFiles, LabelFiles, writable_labels
from rmiseg.inference.predictor import Predictor
from rmiseg.inference.results_file import RESULTS_FILE, other_results, read_results_file, write_results_file
from rmiseg.inference.sources import Source, find_sources
from rmiseg.inference.volume_files import NIFTI, VolumeFiles
from rmiseg.inference.writer import Writer
from rmiseg.runtime.distributed import gather, on_main, patience, processes, shard
from rmiseg.runtime.files import remove_leftovers
from rmiseg.runtime.places import check_places, writable_folder
from rmiseg.runtime.progress import track
from rmiseg.runtime.words import counted

LOOKED_AT = 16
"""Images whose bits are looked at before a prediction."""


class Predictions(NamedTuple):
    """Results of a prediction.

    Attributes:
        out: Folder of the files.
        images: Number of images that were segmented.
        problems: What is wrong with each of the others, and with files that are of all images.
        kept: Number of images whose results were there already, with `resume`.
    """

    out: Path
    images: int
    problems: list[str]
    kept: int = 0


class WriteOptions(TypedDict, total=False):
    """Options of what `predict` writes, see there."""

    opacity: float
    tolerance: float


def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    write: Sequence[str] = ("index", "overlay"),
    overwrite: bool = False,
    tiling: TilingConfig | None = None,
    crf: Sequence[int] = (),
    dense_crf: CRFConfig | None = None,
    model: nn.Module | None = None,
    device: str = "auto",
    console: Console | None = None,
    **options: Unpack[WriteOptions],
) -> Predictions:
    """Segment images at their original size and write pictures, as `rmiseg predict` does.

    Args:
        run: The folder of a run (its best checkpoint), or a checkpoint file.
        images: Image files, videos, folders or glob patterns, or one of them.
        out: Folder for the results, which mirror the names of the images.
        write: What to write: index (PNG of class ids with a palette), gray (PNG of class ids), color (PNG of class
            colors), overlay (colors over the image), geotiff (TIFF of class ids with the image's coordinates), nifti
            (volumes of class ids that lie where their volumes lie), probabilities (float16 npz), voc (what PASCAL
            VOC's test server takes), cityscapes (what that of Cityscapes takes); coco, cvat, label-studio, labelme
            (labels).
        overwrite: Replace results that exist.
        tiling: Scales, flip and windows; by default the network sees every image once, whole.
        crf: Iterations of a dense CRF; for several, results go to folders crf1/, crf5/, ...
        dense_crf: Its kernels.
        model: The network, if that of the run was given in Python.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        console: Where to show progress; by default nowhere.
        options: `opacity` of the class colors in the overlays, 0 to 1, by default 0.5; `tolerance` in pixels, how far
            an outline of labels may be from the edge of its region, by default 1.

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
        write=list(write),
        overwrite=overwrite,
        crf=list(crf),
        dense_crf=dense_crf or CRFConfig(),
        device=device,
        **options,
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
    sources, left_out = on_main(lambda: find_sources(config.images))
    if left_out:
        console.print(f"note: {left_out}", markup=False, soft_wrap=True)
    path = find_checkpoint(config.checkpoint)
    checkpoint = load_checkpoint(path)
    if config.split:
        split = on_main(lambda: checkpoint.load_split(config.split, config.root, masks=False))
        sources = [Source(sample.image, Path(sample.name)) for sample in split.samples]
    tiling = tiling_config(config)
    out = Path(config.out)
    with DenseCRF(config.crf, config.dense_crf) if config.crf else nullcontext() as crf:
        predictor = Predictor(checkpoint, config.device if device is None else str(device), tiling, model=model)
        labels = label_files(config, sources, predictor)
        writer = Writer(predictor, out, config.write, opacity=config.opacity, crf=crf, labels=labels)
        about = {
            "checkpoint": str(path.absolute()),
            "sha256": digest(path),
            "step": checkpoint.step,
            "classes": checkpoint.classes.names,
            "settings": asdict(tiling),
            "crf": {"iterations": config.crf, **asdict(config.dense_crf)} if config.crf else None,
            "opacity": config.opacity,
            "tolerance": config.tolerance,
            "write": config.write,
        }
        for warning in _depth_warning(sources, predictor):
            console.print(f"warning: {warning}", markup=False, soft_wrap=True)
        wanted = on_main(lambda: _prepare(writer, sources, about, config, console))
        own = shard(wanted)
        total = None if any(source.is_video for source in own) else len(own)
        with patience() as group:
            results = list(track(writer.run(own), "predicting", console, total=total))
            everywhere = gather((results, writer.crf_seconds), group)
        together, unfinished = on_main(writer.finish_labels)
    results, seconds = ([each for part in parts for each in part] for parts in zip(*everywhere))
    problems = [problem for problem in results if problem is not None]
    kept = len(sources) - len(wanted)
    there = f" ({kept} more were there already)" if kept else ""
    images = counted(len(results) - len(problems), "image")
    console.print(f"{images}{there}: {', '.join(config.write)} in {out}", markup=False)
    for each in together:
        console.print(f"{'volume' if NIFTI in each.parts else 'labels of all images'}: {each}", markup=False)
    if seconds:
        console.print(f"dense CRF: {sum(seconds) / len(seconds):.2f} s an image")
    return Predictions(out, len(results) - len(problems), problems + unfinished, kept)


def _prepare(
    writer: Writer, sources: Sequence[Source], about: Mapping[str, Any], config: PredictConfig, console: Console
) -> Sequence[Source]:
    """Make the folder of the results, and note what they are made with; the images that are left to segment.

    Raises:
        ValueError, FileExistsError: Results are in the way.
    """
    if config.overwrite and config.resume == "auto":
        raise ValueError("--overwrite makes all results again, and --resume auto only those that are missing; give one")
    out = Path(config.out)
    check_places([out], [out / RESULTS_FILE])
    before = {} if config.overwrite else read_results_file(out, about)
    if config.resume == "auto":
        sources = _missing(writer, sources, before.get("since", 0)) if before else sources
    writer.check(sources, config.overwrite or config.resume == "auto")
    writable_folder(out)
    if config.overwrite:
        replaced = {*writer.together(), *(place for source in sources for place in writer.places(source))}
        if others := other_results(out, about, replaced):
            console.print(
                f"note: {out} keeps {counted(len(others), 'file')} of another checkpoint or of other settings, such as "
                f"{others[0].relative_to(out)}; --resume auto makes those of the images that it is given again",
                soft_wrap=True,
                markup=False,
            )
    write_results_file(out, about, before, writer.result_folders())
    return sources


def label_files(config: PredictConfig, sources: Sequence[Source], predictor: Predictor) -> list[ImageFiles]:
    """The formats of labelling tools, and of volumes, that are to be written.

    Raises:
        ValueError: There is no format of a name; or see `LabelFiles`.
    """
    wanted = [name for name in dict.fromkeys(config.write) if name not in PREDICTION_FORMATS]
    known = writable_labels() if wanted else []
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"write: {unknown[0]!r} is none of {', '.join([*PREDICTION_FORMATS, *known])}")
    volumes: list[ImageFiles] = [VolumeFiles(sources)] if NIFTI in config.write else []
    return [*volumes, *(LabelFiles(name, sources, predictor.classes, config.tolerance) for name in wanted)]


def _depth_warning(sources: Sequence[Source], predictor: Predictor) -> list[str]:
    """Say so, if one of the first images has more bits than those that the model was trained on."""
    if predictor.bands.count != RGB.count or predictor.bands.ranges is not None:
        return []
    deep = next((each.file for each in sources[:LOOKED_AT] if not each.is_video and has_deep_values(each.file)), None)
    if deep is None:
        return []
    return [
        f"{deep} has more than 8 bits, and the model was trained on images of 8: of 16 bits it sees the higher 8. "
        f"Scale the values as those of the training images were"
    ]


def _missing(writer: Writer, sources: Sequence[Source], since: int) -> list[Source]:
    """Those whose results are not all there, or older than the image; what a killed process left is removed.

    Args:
        writer: Says which results an image has.
        sources: The images.
        since: Time of the file system, in nanoseconds, before which results are of another checkpoint or setting.
    """
    files: dict[Path, set[str]] = {}
    for source in sources:
        for file in writer.files(source.name):
            files.setdefault(file.parent, set()).add(file.name)
    for folder, names in files.items():
        remove_leftovers(folder, names)

    def is_there(file: Path, image: Path) -> bool:
        return file.is_file() and file.stat().st_mtime_ns >= max(since, _time(image))

    return [
        source
        for source in sources
        if source.is_video or not all(is_there(file, source.file) for file in writer.files(source.name))
    ]


def _time(image: Path) -> int:
    """The time at which an image, or the volume that it is a slice of, was written; 0 if that cannot be told."""
    try:
        return (image.parent if is_slice(image) else image).stat().st_mtime_ns
    except OSError:
        return 0
