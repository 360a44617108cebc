"""What `rmiseg evaluate` does: a checkpoint, a split, scores in a folder and in a table."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rmiseg.config import DataConfig, EvaluateConfig, ViewConfig, view_config
from rmiseg.data import SegmentationDataset, Split, eval_loader, eval_transform, load_split
from rmiseg.evaluation.evaluate import Evaluation, evaluate_model, evaluate_refined
from rmiseg.evaluation.metrics import TRIMAP_WIDTHS, load_metrics
from rmiseg.evaluation.results import (
    SCORES_FILE,
    SavedEvaluation,
    digest,
    evaluation_folder,
    load_evaluation,
    make_report,
    percent,
    save_evaluation,
)
from rmiseg.inference.checkpoint import find_checkpoint, load_checkpoint
from rmiseg.inference.crf import DenseCRF
from rmiseg.inference.tiles import plan_tiles
from rmiseg.runtime.device import select_device
from rmiseg.runtime.distributed import is_main, on_main, rank, world_size
from rmiseg.runtime.progress import track


def score_checkpoint(
    config: EvaluateConfig, console: Console, device: torch.device | None = None
) -> list[SavedEvaluation]:
    """Score a checkpoint as `config` says, and save what was counted.

    Of several processes each scores its part of the images; all get all scores, and the main process saves them.

    Args:
        config: What to score.
        console: Where to show progress.
        device: Where to compute; by default as `config` says.

    Returns:
        The evaluation of the network alone, and of its refinement by each number of iterations of a dense CRF.

    Raises:
        ValueError, OSError: Anything wrong with checkpoint, data or options; checked before scoring, where it can be.
    """
    path = find_checkpoint(config.checkpoint)
    checkpoint = load_checkpoint(path)
    device = device or select_device(config.device)
    data = replace(checkpoint.data, root=config.root or checkpoint.data.root)
    split_name = config.split or data.val_split
    views = view_config(config)
    plan_tiles((1, 1), views)  # whose errors come before any work
    load_metrics(config.metrics, len(checkpoint.classes))  # likewise
    settings = [_settings(views, config, count) for count in (0, *config.crf)]
    if config.out is None:
        folders = [evaluation_folder(path, split_name, each) for each in settings]
    else:
        folders = [Path(config.out) / (f"crf{count}" if count else "") for count in (0, *config.crf)]
    for folder in folders:
        _check_folder(folder)
    split = on_main(lambda: load_split(data.name, data.root, split_name))
    if split.classes.names != checkpoint.classes.names:
        raise ValueError(
            f"the checkpoint was trained on {len(checkpoint.classes)} classes ({', '.join(checkpoint.classes.names)}), "
            f"but {data.root} has {len(split.classes)} ({', '.join(split.classes.names)})"
        )
    once = views == ViewConfig(overlap=views.overlap) and not config.crf  # then the loader's processes resize
    transform = eval_transform(data.image_scale if once else 1.0)
    loader = eval_loader(
        SegmentationDataset(split, transform), workers=data.workers, rank=rank(), world_size=world_size()
    )
    batches = track(loader, f"evaluating {split_name}", console, total=len(loader))
    classes = len(split.classes)
    with DenseCRF(config.crf, config.dense_crf) if config.crf else nullcontext() as crf:
        model = checkpoint.build_model(device)
        if crf:
            evaluations = evaluate_refined(model, batches, classes, crf, views, data.image_scale, config.metrics)
        else:
            test_time: dict[str, Any] = {"views": None if once else views, "image_scale": data.image_scale}
            evaluations = [evaluate_model(model, batches, classes, device, **test_time, metrics=config.metrics)]
    return [
        _save(folder, evaluation, path, checkpoint.step, data, split, each)
        for folder, each, evaluation in zip(folders, settings, evaluations)
    ]


def save_validation(path: Path, step: int, split: Split, data: DataConfig, evaluation: Evaluation) -> None:
    """Save what training counted on the validation split, just as if `score_checkpoint` had done it."""
    if len(evaluation.names) == len(split.samples):  # none was skipped because it could not be read
        settings = _settings(ViewConfig(), EvaluateConfig(checkpoint=str(path)), 0)
        folder = evaluation_folder(path, data.val_split, settings)
        _save(folder, evaluation, path, step, data, split, settings)


def _save(
    folder: Path,
    evaluation: Evaluation,
    checkpoint: Path,
    step: int,
    data: DataConfig,
    split: Split,
    settings: dict[str, Any],
) -> SavedEvaluation:
    about = {
        "checkpoint": str(checkpoint.absolute()),
        "sha256": digest(checkpoint),
        "step": step,
        "data": data.name,
        "root": None if data.root is None else str(Path(data.root).absolute()),
        "split": split.name,
        "settings": settings,
    }
    report = make_report(evaluation, split.classes.names, about)
    if is_main():
        save_evaluation(folder, evaluation, report)
    return SavedEvaluation(folder, report, split.classes.names, evaluation)


def find_or_score(config: EvaluateConfig, console: Console) -> SavedEvaluation:
    """The evaluation in the folder `config.checkpoint`, or of that checkpoint, which is scored if it was not yet.

    It has the metrics of `config`, and perhaps others. With a number of iterations in `config.crf`, the evaluation
    refined by them.
    """
    if (Path(config.checkpoint) / SCORES_FILE).is_file():
        saved = load_evaluation(Path(config.checkpoint))
        if missing := _missing(saved, config):
            raise ValueError(
                f"the evaluation {saved.folder} lacks the metric {missing[0]}; name its run instead, or run `rmiseg "
                f"evaluate {saved.report['checkpoint']} --metrics {','.join(config.metrics)}`"
            )
        return saved
    path = find_checkpoint(config.checkpoint)
    split = config.split or load_checkpoint(path).data.val_split
    folder = evaluation_folder(path, split, _settings(ViewConfig(), config, config.crf[-1] if config.crf else 0))
    if (folder / SCORES_FILE).is_file():
        saved = load_evaluation(folder)
        if saved.report["sha256"] != digest(path):
            console.print(f"{folder} is of another checkpoint than {path} is now: evaluating again")
        elif missing := _missing(saved, config):
            console.print(f"{folder} lacks the metric {', '.join(missing)}: evaluating again")
        else:
            return saved
    return score_checkpoint(config, console)[-1]


def _missing(saved: SavedEvaluation, config: EvaluateConfig) -> list[str]:
    """The metrics of `config` that an evaluation does not have."""
    return [name for name in config.metrics if name not in saved.evaluation.counts]


def print_scores(saved: list[SavedEvaluation], console: Console) -> None:
    """The scores as tables: of the network alone, and what a dense CRF makes of it."""
    report, scores = saved[0].report, saved[0].evaluation.everywhere
    table = Table(title=f"{report['checkpoint']} on {report['data']} {report['split']}: {report['images']} images")
    for column in ("class", "IoU %", "95 % interval", "accuracy %", "boundary IoU %"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in report["classes"].items():
        interval = " to ".join(map(percent, row["iou_interval"]))
        table.add_row(name, percent(row["iou"]), interval, percent(row["accuracy"]), percent(row["boundary_iou"]))
    table.add_section()
    interval = " to ".join(map(percent, report["intervals"]["mean_iou"]))
    boundary = percent(report["boundary_mean_iou"])
    table.add_row("mean", percent(scores.mean_iou), interval, percent(scores.mean_accuracy), boundary)
    console.print(table)
    console.print(
        f"pixel accuracy {scores.pixel_accuracy:.2%}   frequency-weighted IoU {scores.frequency_weighted_iou:.2%}   "
        "mIoU within "
        + ", ".join(f"{width} px: {percent(report[f'trimap_{width}_mean_iou'])} %" for width in TRIMAP_WIDTHS)
        + " of a boundary"
    )
    for name, score in saved[0].evaluation.further_scores().items():
        interval = " to ".join(map(percent, report["intervals"][name]))
        console.print(f"{name.replace('_', ' ')} {percent(score)} %, 95 % interval {interval}")
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
    table = Table()
    table.add_column("iterations of the CRF")
    for column in columns:
        table.add_column(column, justify="right")
    for title, saved in rows:
        table.add_row(title, *(percent(saved.report[name]) for name in columns.values()))
    return table


def _iterations(saved: SavedEvaluation) -> str:
    return str(saved.report["settings"]["crf"]["iterations"])


def check_output(path: str | None) -> None:
    """See whether a file can be written, before there is something to write.

    Raises:
        OSError: It cannot.
    """
    if path is None or path == "-":
        return
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to write to")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {file.absolute().parent}")
    if not os.access(file.absolute().parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: no permission to write in {file.absolute().parent}")


def _settings(views: ViewConfig, config: EvaluateConfig, iterations: int) -> dict[str, Any]:
    kernels = {name: value for name, value in asdict(config.dense_crf).items() if name != "workers"}
    return {**asdict(views), "crf": {"iterations": iterations, **kernels} if iterations else None}


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {folder} for the results ({error}); name another with --out") from error
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"no permission to write the results to {folder}; name another folder with --out")
