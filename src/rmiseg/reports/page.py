"""One HTML page that shows and compares runs; it needs no network, and no file beside it.

What is on the page is computed here and put into it as JSON; page.js, page.css and page.html show it.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from torch import nn
from torch.utils.data import Dataset

from rmiseg.config import EvaluateConfig, ReportConfig
from rmiseg.config.recipes import CONFIG_FILE
from rmiseg.config.registry import loss_title
from rmiseg.data import LabeledImages
from rmiseg.data.classes import ClassTable, hex_of
from rmiseg.data.spread import spread
from rmiseg.evaluation.compare import check_same_masks
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.scoring import find_or_score, own_images
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint
from rmiseg.inference.predictor import Predictor
from rmiseg.runtime.files import printable, remove_leftovers, replacing, to_json
from rmiseg.runtime.places import writable_folder
from rmiseg.runtime.progress import track
from rmiseg.runtime.words import some
from rmiseg.training.curves import read_curves
from rmiseg.training.stored_options import stored_options

CURVE_POINTS = 400
"""Most points of a curve; longer ones are thinned."""

JPEG_QUALITY = 82


@dataclass(frozen=True)
class Run:
    """A run, and how it does on the split.

    Attributes:
        name: What it is called on the page.
        path: Where it is.
        checkpoint: Its checkpoint.
        evaluation: What was counted in every image of the split.
        network: Its network, if that was given in Python.
    """

    name: str
    path: Path
    checkpoint: Checkpoint
    evaluation: Evaluation
    network: nn.Module | None = None

    @property
    def image_scores(self) -> np.ndarray:
        """(I,) mean IoU in each image, over the classes in it; NaN where nothing counts."""
        return self.evaluation.image_scores["mean_iou"]


def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path = "report.html",
    *,
    split: str | None = None,
    root: str | Path | None = None,
    data: LabeledImages | Dataset[Any] | None = None,
    model: nn.Module | None = None,
    images: int = 24,
    image_size: int = 640,
    device: str = "auto",
    console: Console | None = None,
) -> Path:
    """Write one HTML page that shows and compares runs, as `rmiseg report` does.

    Args:
        runs: Folder of a run, or several of runs with the same classes.
        out: File of the page; an existing one is replaced.
        split: Split to score on and to show; by default the validation split of the first run.
        root: Folder of the data set, if it is no longer where the runs found it.
        data: See `write_report`.
        model: See `write_report`.
        images: Most pictures to show.
        image_size: Longer side of the pictures, in pixels.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        console: Where to show progress; by default nowhere.

    Returns:
        The file.

    Raises:
        ValueError, OSError: As `write_report`.
    """
    paths = [runs] if isinstance(runs, str | Path) else runs
    where = None if root is None else str(root)
    config = ReportConfig([str(path) for path in paths], str(out), split, where, images, image_size, device)
    write_report(config, console, data=data, model=model)
    return Path(out)


def write_report(
    config: ReportConfig,
    console: Console | None = None,
    *,
    data: LabeledImages | Dataset[Any] | None = None,
    model: nn.Module | None = None,
) -> None:
    """Score the runs and write the page.

    Args:
        config: The runs, and what to show of them.
        console: Where to show progress; by default nowhere.
        data: Instead of a split, images of any kind: `LabeledImages`, or a torch data set of (image, mask).
        model: The network, of those runs whose network was given in Python.

    Raises:
        ValueError, OSError: Anything wrong with the runs, the data or the file to write, with what to do about it.
    """
    console = console or Console(quiet=True)
    if config.images < 1 or config.image_size < 32:
        raise ValueError(
            f"images must be at least 1 and image_size at least 32, not {config.images} and {config.image_size}"
        )
    out = Path(config.out)
    paths = [Path(path) for path in config.runs]
    checkpoints = [load_checkpoint(path) for path in paths]
    _check_same_classes(paths, checkpoints)
    first = checkpoints[0]
    # All runs on the data of the first.
    split, root = (
        (config.split or first.data.scored_split, config.root or first.data.root) if data is None else (None, None)
    )
    images = first.load_split(config.split, config.root) if data is None else own_images(data, first, config)
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; name a file with --out")
    writable_folder(out.parent)
    remove_leftovers(out.parent, [out.name])
    with replacing(out) as temporary:
        temporary.touch()  # so that a folder that cannot be written to shows now, and not after all the work
        runs, evaluations = [], []
        for name, path, checkpoint in zip(short_names(paths), paths, checkpoints):
            console.print(f"Scores of {name}", soft_wrap=True)
            options = EvaluateConfig(checkpoint=str(path), split=split, root=root, device=config.device)
            network = model if checkpoint.given_in_python else None
            saved = find_or_score(options, console, data=None if data is None else images, model=network)
            runs.append(Run(name, path, checkpoint, saved.evaluation, network))
            evaluations.append(saved)
        _check_same_images(runs, images)
        check_same_masks(evaluations)
        shown = select_images(np.stack([run.image_scores for run in runs]), config.images)
        pictures = track(_pictures(runs, images, shown, config), "drawing", console, total=len(shown))
        page = render(_content(runs, images, list(pictures)))
        temporary.write_text(printable(page), encoding="utf-8")
    console.print(f"{out}  {len(page) / 1e6:.1f} MB: runs: {len(runs)}, pictures: {len(shown)}", soft_wrap=True)


def render(content: dict[str, Any]) -> str:
    """The page that shows `content`."""
    files = resources.files("rmiseg.reports")
    parts = {
        "css": (files / "page.css").read_text(encoding="utf-8"),
        "js": (files / "page.js").read_text(encoding="utf-8"),
        # Inside a script element nothing ends the text but "</", and nothing else than "<" begins anything.
        "data": json.dumps(json.loads(to_json(content)), separators=(",", ":")).replace("<", r"\u003c"),
    }
    template = (files / "page.html").read_text(encoding="utf-8")
    # In one pass, so that what stands in the data is not taken for a place to fill.
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], template)


def select_images(scores: np.ndarray, count: int) -> list[int]:
    """The images worth looking at: in turn the worst, the best, and the one on which the runs differ most.

    Args:
        scores: (R, I) score of each run in each image; NaN where nothing counts.
        count: How many images; all, if there are fewer.

    Returns:
        Indices of images, those of the worst, the best and the most changed mixed, none twice.
    """
    judged = np.flatnonzero(~np.isnan(scores).all(axis=0))
    mean = np.nanmean(scores[:, judged], axis=0)
    ranked = judged[np.argsort(mean, kind="stable")].tolist()
    rankings = [ranked, ranked[::-1]]
    if len(scores) > 1:
        spread = np.nanmax(scores[:, judged], axis=0) - np.nanmin(scores[:, judged], axis=0)
        rankings.append(judged[np.argsort(-spread, kind="stable")].tolist())
    in_turn = chain.from_iterable(zip_longest(*rankings))
    return list(dict.fromkeys(i for i in in_turn if i is not None))[:count] or list(range(scores.shape[1]))[:count]


def _check_same_classes(paths: Sequence[Path], checkpoints: Sequence[Checkpoint]) -> None:
    first = checkpoints[0].classes.names
    for path, checkpoint in zip(paths, checkpoints):
        if checkpoint.classes.names != first:
            raise ValueError(
                f"runs on one page must have the same classes, but {paths[0]} has {_listed(first)} and {path} has "
                f"{_listed(checkpoint.classes.names)}"
            )


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({some(names)})"


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, less what all end with."""
    parts = [path.absolute().parts for path in paths]
    while len(parts) > 1 and len({each[-1:] for each in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [each[:-1] for each in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a run is given twice: {', '.join(map(str, paths))}")


def _check_same_images(runs: Sequence[Run], images: LabeledImages) -> None:
    names = tuple(images.names)
    for run in runs:
        if run.evaluation.names != names:
            raise ValueError(
                f"the evaluation of {run.path} has other images than split {images.name} has now; {_again(run, images)}"
            )


def _again(run: Run, images: LabeledImages) -> str:
    return f"`rmiseg evaluate {run.path} --split {images.name}` replaces its scores"


def _pictures(
    runs: Sequence[Run], images: LabeledImages, indices: Sequence[int], config: ReportConfig
) -> Iterator[dict[str, Any]]:
    """Image, truth and predictions of images, as the page needs them."""
    classes = runs[0].checkpoint.classes
    predictors = [Predictor(run.checkpoint, config.device, model=run.network) for run in runs]
    for index in indices:
        pixels, target = images.read(index)
        true = np.bincount(target.flat, minlength=256)[: len(classes)]
        if (true != runs[0].evaluation.counts["iou"][index, 0, 1]).any():
            raise ValueError(
                f"the mask of {images.names[index]} is not the one that {runs[0].path} was scored by; "
                f"{_again(runs[0], images)}"
            )
        results = [target, *(predictor(pixels) for predictor in predictors)]
        factor = min(1.0, config.image_size / max(pixels.shape[:2]))
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        truth, *predictions = (_ids_url(ids, (width, height), classes) for ids in results)
        yield {
            "name": images.names[index],
            "width": width,
            "height": height,
            "photo": _photo_url(images.bands.picture_of(pixels), (width, height)),
            "truth": truth,
            "predictions": predictions,
            "scores": [float(run.image_scores[index]) for run in runs],
        }


def _photo_url(pixels: np.ndarray, size: tuple[int, int]) -> str:
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    return _data_url(image, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)


def _ids_url(ids: np.ndarray, size: tuple[int, int], classes: ClassTable) -> str:
    """Class ids as a palette PNG whose colors are the ids, as gray: the page reads them, and colors them itself.

    Ignored pixels have the id after the last class, so that few classes need few bits.
    """
    image = Image.fromarray(np.minimum(ids, len(classes)).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    count = len(classes) + 1
    image.putpalette(np.repeat(np.arange(count, dtype=np.uint8), 3).tobytes())
    bits = next(bits for bits in (1, 2, 4, 8) if count <= 2**bits)
    return _data_url(image, "PNG", optimize=True, bits=bits)


def _data_url(image: Image.Image, format: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _content(runs: Sequence[Run], images: LabeledImages, pictures: list[dict[str, Any]]) -> dict[str, Any]:
    classes = images.classes
    true_pixels = runs[0].evaluation.confusion.sum(axis=1)
    shares = (true_pixels / max(true_pixels.sum(), 1)).tolist()
    return {
        "data": {"name": runs[0].checkpoint.data.name, "split": images.name, "images": len(images)},
        "classes": [
            {"name": name, "color": hex_of(color), "share": share}
            for name, color, share in zip(classes.names, classes.palette, shares)
        ],
        "runs": [
            {
                "name": run.name,
                "model": str(run.checkpoint),
                "loss": _loss(run.path),
                "steps": run.checkpoint.step,
                "scores": run.evaluation.summary(),
                "scope": run.evaluation.everywhere.scope,
                "further": list(run.evaluation.further_scores()),
                "iou": run.evaluation.everywhere.iou,
                "confusion": run.evaluation.confusion.tolist(),
                "curves": {tag: _thinned(*curve) for tag, curve in read_curves(run.path).items()},
            }
            for run in runs
        ],
        "images": pictures,
    }


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    kept = spread(len(steps), CURVE_POINTS)
    return [steps[i] for i in kept], [float(f"{values[i]:.6g}") for i in kept]


def _loss(path: Path) -> str | None:
    """Return the losses that the run was trained with, as its config.yaml says; None where that does not exist."""
    if not (path / CONFIG_FILE).is_file():
        return None
    options = stored_options(path)
    name = options.get("loss.name")
    return None if name is None else loss_title(str(name), options.get("loss.plus") or ())
