"""What each command does, in the order that it does it. Returns the exit status."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from rmiseg.config import (
    BenchLossConfig,
    DataCheckConfig,
    DemoConfig,
    EvaluateConfig,
    ModelsConfig,
    PredictConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    import torch


def train(config: TrainConfig) -> int:
    """`rmiseg train`"""
    from rmiseg.engine.train import train as train_model

    train_model(config, Console(markup=False))
    return 0


def evaluate(config: EvaluateConfig) -> int:
    """`rmiseg evaluate`"""
    from rmiseg.engine.distributed import processes

    with processes(config.device) as device:
        return _evaluate(config, device)


def _evaluate(config: EvaluateConfig, device: torch.device) -> int:
    from rmiseg.data import SegmentationDataset, eval_loader, eval_transform, load_split
    from rmiseg.engine.checkpoint import load_checkpoint
    from rmiseg.engine.distributed import is_main, on_main, rank, world_size
    from rmiseg.engine.evaluate import evaluate as evaluate_model
    from rmiseg.files import replacing, to_json
    from rmiseg.progress import track

    console = Console(markup=False, quiet=not is_main())
    checkpoint = load_checkpoint(config.checkpoint)
    data = checkpoint.data
    root, split_name = config.root or data.root, config.split or data.val_split
    split = on_main(lambda: load_split(data.name, root, split_name))
    if split.classes.names != checkpoint.classes.names:
        raise ValueError(
            f"the checkpoint was trained on {len(checkpoint.classes)} classes ({', '.join(checkpoint.classes.names)}), "
            f"but {root} has {len(split.classes)} ({', '.join(split.classes.names)})"
        )
    model = checkpoint.build_model(device)
    loader = eval_loader(
        SegmentationDataset(split, eval_transform(data.image_scale)),
        workers=data.workers,
        rank=rank(),
        world_size=world_size(),
    )
    batches = track(loader, f"evaluating {split_name}", console, total=len(loader))
    result = evaluate_model(model, batches, len(split.classes), device)

    scores = result.everywhere
    table = Table(title=f"{config.checkpoint} on {data.name} {split_name}: {len(split.samples)} images")
    for column in ("class", "IoU %", "accuracy %"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, iou, accuracy in zip(split.classes.names, scores.iou, scores.accuracy):
        table.add_row(name, _percent(iou), _percent(accuracy))
    table.add_section()
    table.add_row("mean", _percent(scores.mean_iou), _percent(scores.mean_accuracy))
    console.print(table)
    console.print(
        f"pixel accuracy {scores.pixel_accuracy:.2%}   frequency-weighted IoU {scores.frequency_weighted_iou:.2%}   "
        f"mIoU near boundaries {result.near_boundary.mean_iou:.2%}"
    )

    if config.json is not None and is_main():
        report = {
            "checkpoint": str(config.checkpoint),
            "data": data.name,
            "split": split_name,
            "images": len(split.samples),
            "pixels": scores.pixels,
            **result.summary(),
            "classes": {
                name: {"iou": iou, "accuracy": accuracy}
                for name, iou, accuracy in zip(split.classes.names, scores.iou, scores.accuracy)
            },
        }
        with replacing(Path(config.json)) as temporary:
            temporary.write_text(to_json(report))
        console.print(f"Scores written to {config.json}")
    return 0


def predict(config: PredictConfig) -> int:
    """`rmiseg predict`"""
    from rmiseg.data import load_split
    from rmiseg.engine.checkpoint import load_checkpoint
    from rmiseg.inference.predictor import Predictor, find_images, predict_files
    from rmiseg.progress import track

    console = Console(markup=False)
    if bool(config.images) == bool(config.split):
        raise ValueError("name the images to segment: either files, folders or patterns, or --split and a split's name")
    images = find_images(config.images)
    checkpoint = load_checkpoint(config.checkpoint)
    if config.split:
        split = load_split(checkpoint.data.name, config.root or checkpoint.data.root, config.split, masks=False)
        images = [(sample.image, Path(sample.name)) for sample in split.samples]
    predictor = Predictor(checkpoint, config.device)
    out = Path(config.out)
    results = predict_files(predictor, images, out, opacity=config.opacity, overwrite=config.overwrite)
    failures = [problem for problem in track(results, "predicting", console, total=len(images)) if problem is not None]
    console.print(f"{len(images) - len(failures)} images: class ids in {out / 'index'}, overlays in {out / 'overlay'}")
    for problem in failures:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if failures else 0


def demo(config: DemoConfig) -> int:
    """`rmiseg demo`"""
    from rmiseg.demo import run_demo

    run_demo(config, Console(markup=False))
    return 0


def models(config: ModelsConfig) -> int:
    """`rmiseg models`"""
    from rich.progress import track

    from rmiseg.models import MODELS
    from rmiseg.models.external import SOURCES, external_names
    from rmiseg.models.survey import find_backbones, survey_backbone

    console = Console()
    if config.backbones is None:
        table = Table("model", "what it is")
        for name, model in MODELS.items():
            table.add_row(name, (model.__doc__ or "").splitlines()[0])
        for prefix, source in SOURCES.items():
            table.add_row(f"{prefix}:NAME", f"{source.title}. {source.naming} {external_names(prefix)}")
        console.print(table)
        console.print('--backbones PATTERN lists the backbones of timm that work, such as "resnet*" or mobilenet')
        return 0
    names = find_backbones(config.backbones)
    table = Table("backbone", "million parameters", "output strides", "models")
    for name in track(names, "trying", console=console, transient=True):
        if found := survey_backbone(name):
            strides = ", ".join(map(str, found.output_strides))
            usable = "all" if len(found.models) == len(MODELS) else ", ".join(found.models)
            table.add_row(name, f"{found.parameters / 1e6:.1f}", strides, usable)
    console.print(table)
    console.print(f"{table.row_count} of {len(names)} timm models that match can be backbones")
    return 0


def data_check(config: DataCheckConfig) -> int:
    """`rmiseg data check`"""
    from rmiseg.data.check import check_dataset, print_report

    console = Console()
    report = check_dataset(**dataclasses.asdict(config), console=console)
    print_report(report, console)
    return 1 if report.problem_count else 0


def bench_loss(config: BenchLossConfig) -> int:
    """`rmiseg bench loss`"""
    from rmiseg.benchmarks.loss import run_loss_benchmark

    run_loss_benchmark(config, Console())
    return 0


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
