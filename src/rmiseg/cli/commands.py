"""Commands, each in the order of its work. Returns the exit status."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from rmiseg.config import (
    AppConfig,
    BenchDataConfig,
    BenchFormsConfig,
    BenchLossConfig,
    CompareConfig,
    ConvertConfig,
    CRFSearchConfig,
    DataCheckConfig,
    DataImportConfig,
    DemoConfig,
    EvaluateConfig,
    ExperimentConfig,
    ExportConfig,
    ModelsConfig,
    PlanConfig,
    PredictConfig,
    ReportConfig,
    TrainConfig,
)
from rmiseg.runtime.files import to_json, visible, write_text
from rmiseg.runtime.terminal import Console, loading


def train(config: TrainConfig) -> int:
    """`rmiseg train`"""
    with loading():
        from rmiseg.training.trainer import Trainer

    Trainer(config, console=Console(markup=False)).fit()
    return 0


def plan(config: PlanConfig) -> int:
    """`rmiseg plan`"""
    with loading():
        from rmiseg.training.estimate import show_plan

    show_plan(config, Console(markup=False))
    return 0


def evaluate(config: EvaluateConfig) -> int:
    """`rmiseg evaluate`"""
    with loading():
        from rmiseg.evaluation.scoring import print_scores, score_checkpoint
        from rmiseg.runtime.distributed import is_main, processes

    with processes(config.device) as device:
        console = Console(markup=False, stderr=config.json == "-", quiet=not is_main())
        _check_json(config.json)
        saved = score_checkpoint(config, console, device)
        if is_main():
            print_scores(saved, console)
            report = saved[0].report if len(saved) == 1 else [each.report for each in saved]
            _write_json(config.json, report, console)
    return 0


def compare(config: CompareConfig) -> int:
    """`rmiseg compare`"""
    with loading():
        from rmiseg.evaluation.compare import compare as compare_runs
        from rmiseg.evaluation.compare import print_comparison

    console = Console(markup=False, stderr=config.json == "-")
    _check_json(config.json)
    comparison = compare_runs(
        config.a,
        config.b,
        split=config.split,
        root=config.root,
        resamples=config.resamples,
        seed=config.seed,
        device=config.device,
        console=console,
    )
    print_comparison(comparison, console, images=config.images)
    _write_json(config.json, comparison, console)
    return 0


def crf_search(config: CRFSearchConfig) -> int:
    """`rmiseg crf-search`"""
    with loading():
        from rmiseg.evaluation.crf_search import print_trials, search_kernels

    console = Console(markup=False, stderr=config.json == "-")
    _check_json(config.json)
    trials = search_kernels(config, console)
    print_trials(trials, console)
    _write_json(config.json, trials, console)
    return 0


def _check_json(path: str | None) -> None:
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


def _write_json(path: str | None, value: Any, console: Console) -> None:
    if path == "-":
        print(to_json(value), end="")
    elif path is not None:
        write_text(Path(path), to_json(value))
        console.print(f"Written to {path}")


def predict(config: PredictConfig) -> int:
    """`rmiseg predict`"""
    with loading():
        from rmiseg.inference.predict import predict_files
        from rmiseg.runtime.distributed import is_main, processes

    with processes(config.device) as device:
        console = Console(markup=False, quiet=not is_main())
        predictions = predict_files(config, console, device)
        problems = predictions.problems if is_main() else []
    for problem in problems:
        print(f"error: {visible(problem)}", file=sys.stderr)
    return 1 if predictions.problems else 0


def export(config: ExportConfig) -> int:
    """`rmiseg export`"""
    with loading():
        from rmiseg.exports.export import export as export_run

    formats = [name.strip() for name in config.format.split(",")]
    console = Console(markup=False, highlight=False)
    export_run(
        config.checkpoint,
        formats,
        out=config.out,
        overwrite=config.overwrite,
        images=config.images,
        root=config.root,
        license=config.license,
        push=config.push,
        private=config.private,
        console=console,
    )
    return 0


def app(config: AppConfig) -> int:
    """`rmiseg app`"""
    with loading():
        from rmiseg.app.page import serve

    serve(config, Console(markup=False, highlight=False))
    return 0


def convert(config: ConvertConfig) -> int:
    """`rmiseg convert`"""
    with loading():
        from rmiseg.inference.conversion import convert as convert_file

    convert_file(config, Console(markup=False, highlight=False))
    return 0


def report(config: ReportConfig) -> int:
    """`rmiseg report`"""
    with loading():
        from rmiseg.reports.page import write_report

    console = Console(markup=False, highlight=False)
    write_report(config, console)
    return 0


def demo(config: DemoConfig) -> int:
    """`rmiseg demo`"""
    from rmiseg.experiment.demo import run_demo

    run_demo(config, Console(markup=False))
    return 0


def experiment(config: ExperimentConfig) -> int:
    """`rmiseg experiment`"""
    with loading():
        from rmiseg.experiment.driver import run_experiment

    run_experiment(config, Console(markup=False))
    return 0


def models(config: ModelsConfig) -> int:
    """`rmiseg models`"""
    with loading():
        from rich.progress import track

    from rmiseg.models import backbone_models, describe_models
    from rmiseg.models.survey import find_backbones, survey_backbone

    console = Console()
    if config.backbones is None:
        table = Table("model", "what it is")
        for name, text in describe_models().items():
            table.add_row(name, text)
        console.print(table)
        console.print('--backbones PATTERN lists the backbones of timm that work, such as "resnet*" or mobilenet')
        return 0
    names = find_backbones(config.backbones)
    table = Table("backbone", "million parameters", "output strides", "models")
    for name in track(names, "trying", console=console, transient=True):
        if found := survey_backbone(name):
            strides = ", ".join(map(str, found.output_strides))
            usable = "all" if len(found.models) == len(backbone_models()) else ", ".join(found.models)
            table.add_row(name, f"{found.parameters / 1e6:.1f}", strides, usable)
    console.print(table)
    console.print(f"{table.row_count} of {len(names)} timm models that match can be backbones")
    return 0


def data_check(config: DataCheckConfig) -> int:
    """`rmiseg data check`"""
    from rmiseg.data import check_dataset, print_report
    from rmiseg.data.sets.finding import recognized

    console = Console()
    name = config.name or recognized(config.root) or "folder"
    report = check_dataset(name, config.root, config.splits, config.workers, console)
    print_report(report, console)
    return 1 if report.problem_count else 0


def data_import(config: DataImportConfig) -> int:
    """`rmiseg data import`"""
    from rmiseg.data.labels import import_labels, print_import

    console = Console(markup=False)
    print_import(import_labels(config, console), config.out, console)
    return 0


def bench_data(config: BenchDataConfig) -> int:
    """`rmiseg bench data`"""
    with loading():
        from rmiseg.benchmarks.data import run_data_benchmark
        from rmiseg.config.parser import train_config

    run_data_benchmark(config, train_config(config.recipe), Console(markup=False))
    return 0


def bench_forms(config: BenchFormsConfig) -> int:
    """`rmiseg bench forms`"""
    with loading():
        from rmiseg.benchmarks.forms import run_forms_benchmark

    run_forms_benchmark(config, Console(markup=False))
    return 0


def bench_loss(config: BenchLossConfig) -> int:
    """`rmiseg bench loss`"""
    with loading():
        from rmiseg.benchmarks.loss import run_loss_benchmark

    run_loss_benchmark(config, Console())
    return 0
