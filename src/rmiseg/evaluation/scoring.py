"""Scoring a checkpoint, as `rmiseg evaluate` does: a checkpoint, a split, scores in a folder and in a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import Dataset

from rmiseg.config import CRFConfig, DataConfig, EvaluateConfig, ReportConfig, TilingConfig, tiling_config
from rmiseg.config.registry import given_name
from rmiseg.data import LabeledImages, OwnImages, SegmentationDataset, eval_loader, eval_transform
from rmiseg.data.bands import Bands
from rmiseg.data.fingerprint import changes, fingerprint
from rmiseg.data.loader import Loader
from rmiseg.evaluation.evaluate import Evaluation, evaluate_model, evaluate_refined
from rmiseg.evaluation.metrics import BUILT_IN, TRIMAP_WIDTHS, load_metrics
from rmiseg.evaluation.results import (
    FILES,
    SCORES_FILE,
    SavedEvaluation,
    evaluation_folder,
    load_evaluation,
    make_report,
    save_evaluation,
)
from rmiseg.inference.checkpoint import Checkpoint, digest, find_checkpoint, load_checkpoint
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.tiles import plan_tiles
from rmiseg.runtime.device import select_device
from rmiseg.runtime.distributed import is_main, on_main, processes, rank, world_size
from rmiseg.runtime.places import check_places, writable_folder
from rmiseg.runtime.progress import track
from rmiseg.runtime.terminal import numbers_table
from rmiseg.runtime.words import percent, percents


def evaluate(
    run: str | Path,
    *,
    split: str | None = None,
    root: str | Path | None = None,
    data: LabeledImages | Dataset[Any] | None = None,
    model: nn.Module | None = None,
    tiling: TilingConfig | None = None,
    crf: Sequence[int] = (),
    dense_crf: CRFConfig | None = None,
    metrics: str | Sequence[str] = (),
    device: str = "auto",
    out: str | Path | None = None,
    console: Console | None = None,
) -> SavedEvaluation:
    """Score the model of a run at the size of the masks, and save what was counted, as `rmiseg evaluate` does.

    Args:
        run: The folder of a run (its best checkpoint), or a checkpoint file.
        split: Split to score on; by default the validation split of the run.
        root: Folder of the data set, if it is no longer where the run found it.
        data: Instead of a split, images of any kind: `LabeledImages`, or a torch data set of (image, mask).
        model: The network, if that of the run was given in Python.
        tiling: Scales, flip and windows; by default the network sees every image once, whole.
        crf: Iterations of a dense CRF; each is scored beside the network alone.
        dense_crf: Its kernels.
        metrics: Names of further metrics.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...
        out: Folder for the results, which replace earlier ones; by default evaluation/SPLIT in the folder of the run.
        console: Where to show progress; by default nowhere.

    Returns:
        The evaluation of the network alone; those with a dense CRF are its `refined`.

    Raises:
        ValueError, OSError: Anything wrong with checkpoint, data or options.
    """
    config = EvaluateConfig(
        **asdict(tiling or TilingConfig()),
        checkpoint=str(run),
        split=split,
        root=None if root is None else str(root),
        out=None if out is None else str(out),
        crf=list(crf),
        dense_crf=dense_crf or CRFConfig(),
        metrics=[metrics] if isinstance(metrics, str) else list(metrics),
        device=device,
    )
    with processes(device) as place:
        first, *refined = score_checkpoint(config, console, place, data=data, model=model)
    return replace(first, refined=tuple(refined))


def score_checkpoint(
    config: EvaluateConfig,
    console: Console | None = None,
    device: torch.device | None = None,
    *,
    data: LabeledImages | Dataset[Any] | None = None,
    model: nn.Module | None = None,
) -> list[SavedEvaluation]:
    """Score a checkpoint as `config` says, and save what was counted.

    Of several processes each scores its part of the images; all get all scores, and the main process saves them.

    Args:
        config: What to score.
        console: Where to show progress.
        device: Where to compute; by default as `config` says.
        data: See `evaluate`.
        model: See `evaluate`.

    Returns:
        The evaluation of the network alone, and of its refinement by each number of iterations of a dense CRF.

    Raises:
        ValueError, OSError: Anything wrong with checkpoint, data or options; checked before scoring, where it can be.
    """
    path = find_checkpoint(config.checkpoint)
    checkpoint = load_checkpoint(path)
    device = device or select_device(config.device)
    tiling = tiling_config(config)
    plan_tiles((1, 1), tiling)  # whose errors come before any work
    load_metrics(config.metrics, len(checkpoint.classes), checkpoint.made_with)  # likewise
    images = None if data is None else own_images(data, checkpoint, config)
    split_name = images.name if images else config.split or checkpoint.data.scored_split
    settings = [_settings(tiling, config, count) for count in (0, *config.crf)]
    if config.out is None:
        folders = [evaluation_folder(path, split_name, each) for each in settings]
    else:
        folders = [Path(config.out) / (f"crf{count}" if count else "") for count in (0, *config.crf)]
    for folder in folders:
        check_places(files=[writable_folder(folder) / name for name in FILES])
    images = images or on_main(lambda: checkpoint.load_split(config.split, config.root))
    once = tiling == TilingConfig(overlap=tiling.overlap) and not config.crf  # then the loader's processes resize
    loader = _loader(images, checkpoint.data, checkpoint.data.image_scale if once else 1.0)
    with (
        closing(loader),
        DenseCRF(config.crf, config.dense_crf) if config.crf else nullcontext() as crf,
    ):
        loader.start()  # it reads the first images while the network is built
        network = checkpoint.build_model(device, model)
        batches = track(loader, f"evaluating {images.name}", console, total=len(loader))
        classes, scale = len(images.classes), checkpoint.data.image_scale
        if crf:
            evaluations = evaluate_refined(network, batches, classes, crf, tiling, scale, config.metrics)
        else:
            test_time: dict[str, Any] = {"tiling": None if once else tiling, "image_scale": scale}
            evaluations = [evaluate_model(network, batches, classes, **test_time, metrics=config.metrics)]
    if data is None:
        about = _about(path, checkpoint.step, checkpoint.data.name, config.root or checkpoint.data.root, images)
    else:
        about = _about(path, checkpoint.step, given_name(images.origin), "", images)
    return [
        _save(folder, evaluation, images, {**about, "settings": each})
        for folder, each, evaluation in zip(folders, settings, evaluations)
    ]


def own_images(
    data: LabeledImages | Dataset[Any], checkpoint: Checkpoint, config: EvaluateConfig | ReportConfig
) -> LabeledImages:
    """Images that were given in Python, with the classes of the checkpoint."""
    if config.split or config.root:
        raise ValueError("give images in Python as data=, or the split and root of a data set, but not both")
    images = (
        data
        if isinstance(data, LabeledImages)
        else OwnImages(data, checkpoint.classes, bands=Bands.of(checkpoint.data))
    )
    checkpoint.check_classes(images.classes, f"the data {images.name}")
    return images


def _loader(images: LabeledImages, data: DataConfig, scale: float) -> Loader:
    """Images and masks, the images resized by a factor."""
    dataset = SegmentationDataset(images, eval_transform(scale))
    return eval_loader(dataset, workers=data.workers, rank=rank(), world_size=world_size())


def save_validation(path: Path, step: int, images: LabeledImages, data: DataConfig, evaluation: Evaluation) -> None:
    """Save what training counted on the validation split, just as if `score_checkpoint` had done it."""
    if len(evaluation.names) == len(images):  # none was skipped because it could not be read
        settings = _settings(TilingConfig(), EvaluateConfig(checkpoint=str(path)), 0)
        folder = evaluation_folder(path, data.scored_split, settings)
        about = _about(path, step, data.name, data.root, images)
        _save(folder, evaluation, images, {**about, "settings": settings})


def _about(checkpoint: Path, step: int, data: str, root: str, images: LabeledImages) -> dict[str, Any]:
    """Describe the checkpoint and the images of an evaluation, for scores.json."""
    return {
        "checkpoint": str(checkpoint.absolute()),
        "sha256": digest(checkpoint),
        "step": step,
        "data": data,
        "root": str(Path(root).absolute()) if root else None,
        "split": images.name,
        "fingerprint": fingerprint(images),
    }


def _save(folder: Path, evaluation: Evaluation, images: LabeledImages, about: dict[str, Any]) -> SavedEvaluation:
    report = make_report(evaluation, images.classes.names, about)
    if is_main():
        save_evaluation(folder, evaluation, report)
    return SavedEvaluation(folder, report, images.classes.names, evaluation)


def find_or_score(
    config: EvaluateConfig,
    console: Console | None = None,
    *,
    data: LabeledImages | Dataset[Any] | None = None,
    model: nn.Module | None = None,
    moved_to: str | None = None,
) -> SavedEvaluation:
    """The evaluation in the folder `config.checkpoint`, or of that checkpoint, which is scored if it was not yet.

    It has the metrics of `config`, and perhaps others. With a number of iterations in `config.crf`, the evaluation
    refined by them. On data that is given in Python a checkpoint is always scored: nothing tells whether it is the same
    as before.

    Args:
        config: What to score. An evaluation of data in another folder than its root is made again.
        console: Where to say what is going on; by default nowhere.
        data: Images in place of those of the checkpoint.
        model: The network of a checkpoint whose network was given in Python.
        moved_to: Where the images are, which are the same that were scored elsewhere, if they were. Otherwise they are
            looked at, if they are still there, and scored again if they have changed.
    """
    if (Path(config.checkpoint) / SCORES_FILE).is_file():
        saved = _read(Path(config.checkpoint), console)
        if other := _otherwise(saved, config):
            raise ValueError(
                f"the evaluation {saved.folder} {other}; name its run instead, {saved.report['checkpoint']}, which is "
                f"scored as asked for"
            )
        return saved
    path = find_checkpoint(config.checkpoint)
    checkpoint = load_checkpoint(path)
    trained_on = checkpoint.data
    settings = _settings(TilingConfig(), config, config.crf[-1] if config.crf else 0)
    folder = evaluation_folder(path, config.split or trained_on.scored_split, settings)
    if data is None and (folder / SCORES_FILE).is_file():
        saved = _read(folder, console)
        if saved.report["sha256"] != digest(path):
            why = f"is of another checkpoint than {path} is now"
        elif saved.report["data"] != trained_on.name:
            why = f"is of the data {saved.report['data']}"
        elif not (why := _otherwise(saved, config) or ("" if moved_to else _changed(saved, checkpoint))):
            return saved
        if console:
            console.print(f"{folder} {why}: evaluating again")
        had = [name for name in saved.evaluation.counts if name != BUILT_IN]
        config = replace(config, metrics=list(dict.fromkeys([*had, *config.metrics])))  # what is written loses none
    return score_checkpoint(replace(config, root=config.root or moved_to), console, data=data, model=model)[-1]


def _read(folder: Path, console: Console | None) -> SavedEvaluation:
    """Read an evaluation, and say which of its scores are left out."""
    saved = load_evaluation(folder)
    for name, why in saved.left_out.items():
        if console:
            text = f"note: {folder} is read without the metric {name}: {why}"
            console.print(text, soft_wrap=True, markup=False)
    return saved


def _otherwise(saved: SavedEvaluation, config: EvaluateConfig) -> str:
    """Say why an evaluation is not the one that is asked for; "" if it is."""
    root = saved.report.get("root") or ""
    if config.split and config.split != saved.report["split"]:
        return f"is of the split {saved.report['split']}"
    if config.root and os.path.realpath(config.root) != os.path.realpath(root):
        return f"is of the data in {root}"
    missing = [name for name in config.metrics if name not in saved.evaluation.counts]
    return f"lacks the metric {', '.join(missing)}" if missing else ""


def _changed(saved: SavedEvaluation, checkpoint: Checkpoint) -> str:
    """Say that the images of an evaluation have changed; "" if they have not, or are no longer there."""
    split, before = saved.report["split"], saved.report.get("fingerprint")
    if before is None:  # of an older version
        return ""
    try:
        now = on_main(lambda: fingerprint(checkpoint.load_split(split, saved.report["root"])))
    except (ValueError, OSError):
        return ""
    found = changes({split: before}, {split: now})
    return f"is not of these images: {found}" if found else ""


def print_scores(saved: list[SavedEvaluation], console: Console) -> None:
    """The scores as tables: of the network alone, and what a dense CRF makes of it."""
    report, scores = saved[0].report, saved[0].evaluation.everywhere
    title = f"{report['checkpoint']} on {report['data']} {report['split']}: {report['images']} images"
    table = numbers_table("class", "IoU %", "95 % interval", "accuracy %", "boundary IoU %", title=title)
    for name, row in report["classes"].items():
        interval = percents(row["iou_interval"])
        table.add_row(name, percent(row["iou"]), interval, percent(row["accuracy"]), percent(row["boundary_iou"]))
    table.add_section()
    interval = percents(report["intervals"]["mean_iou"])
    boundary = percent(report["boundary_mean_iou"])
    table.add_row(f"mean{scores.scope}", percent(scores.mean_iou), interval, percent(scores.mean_accuracy), boundary)
    console.print(table)
    console.print(
        f"pixel accuracy {percent(scores.pixel_accuracy, ' %')}   "
        f"frequency-weighted IoU {percent(scores.frequency_weighted_iou, ' %')}   mIoU within "
        + ", ".join(f"{width} px: {percent(report[f'trimap_{width}_mean_iou'], ' %')}" for width in TRIMAP_WIDTHS)
        + " of a boundary"
    )
    for name, score in saved[0].evaluation.further_scores().items():
        interval = percents(report["intervals"][name])
        console.print(f"{name.replace('_', ' ')} {percent(score, ' %')}, 95 % interval {interval}")
    if len(saved) > 1:
        console.print(crf_table([("none", saved[0]), *((_iterations(each), each) for each in saved[1:])]))
    seconds = report["seconds"]
    console.print(
        f"{seconds['total']:.1f} s, {seconds['model'] / max(seconds['total'], 1e-9):.0%} of it in the model"
        + (f"; dense CRF: {seconds['crf']:.2f} s an image in its process" if "crf" in seconds else "")
    )
    console.print(f"Scores of every image: {', '.join(str(each.folder) for each in saved)}")


def crf_table(rows: list[tuple[str, SavedEvaluation]]) -> Table:
    """The scores of evaluations that differ in their dense CRF."""
    columns = {"mIoU %": "mean_iou", "pixel accuracy %": "pixel_accuracy", "boundary IoU %": "boundary_mean_iou"}
    table = numbers_table("iterations of the CRF", *columns)
    for title, saved in rows:
        table.add_row(title, *(percent(saved.report[name]) for name in columns.values()))
    return table


def _iterations(saved: SavedEvaluation) -> str:
    return str(saved.report["settings"]["crf"]["iterations"])


def _settings(tiling: TilingConfig, config: EvaluateConfig, iterations: int) -> dict[str, Any]:
    kernels = {name: value for name, value in asdict(config.dense_crf).items() if name != "workers"}
    return {**asdict(tiling), "crf": {"iterations": iterations, **kernels} if iterations else None}
