"""Cross validation: a training for each part of the images, and the ensemble of all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rmiseg.config import DataConfig, EvaluateConfig, TrainConfig
from rmiseg.config.options import POOLED
from rmiseg.config.parser import train_config
from rmiseg.config.recipes import CONFIG_FILE, check_types, flat, read_recipe, shortened
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.results import EVALUATIONS, FILES, SavedEvaluation, make_report, save_evaluation
from rmiseg.evaluation.scoring import find_or_score
from rmiseg.inference.checkpoint import BEST, CHECKPOINTS, digest, load_checkpoint, save_checkpoint
from rmiseg.inference.ensemble import ensemble
from rmiseg.planning import planned_folds
from rmiseg.runtime.checksums import sealed, unsealed
from rmiseg.runtime.distributed import on_main, processes
from rmiseg.runtime.files import locked, read_json, to_json, write_text
from rmiseg.runtime.places import check_places, check_room, writable_folder
from rmiseg.runtime.words import percent
from rmiseg.training.run_folder import LOCK_FILE, RESULT_FILE, RunResult, occupied, write_result
from rmiseg.training.stored_options import plain_options, write_config

FOLDS_FILE = "folds.json"

TrainFold = Callable[[TrainConfig], RunResult]


@dataclass(frozen=True)
class Division:
    """The division of the images of a cross validation, as its folder stores it.

    Attributes:
        asked: Number of folds that were asked for.
        options: Own options of the data set by which the split to train on holds all these images.
        held_out: The images of each fold, see `DataConfig.held_out`.
    """

    asked: int
    options: dict[str, Any]
    held_out: list[list[str]]


def cross_validate(config: TrainConfig, train: TrainFold, console: Console) -> RunResult:
    """Train on all parts of the images but one, for each part in turn, and make an ensemble of the models.

    Each is a run in a folder of its own, fold-1 and so on. The first decides what is open; the others have its options.
    The folder of `config` gets config.yaml, folds.json (the images of each fold), result.json (scores of the folds and
    of all images together, each scored by the model that had not seen it), evaluation/cross-validation/ and
    checkpoints/best.pt, which is the ensemble.

    Args:
        config: The options; with `resume`, trainings that are over are left alone, and one that was interrupted goes
            on.
        train: Trains one of them.
        console: Where to show what is going on.

    Raises:
        FileExistsError: The folder holds something else.
        ValueError: Its folds are others; or see `planned_folds`.
    """
    out = Path(config.out)
    with processes(config.device):
        division = on_main(lambda: _division(config, out, console))
        count = len(division.held_out)
        results = []
        for number in range(1, count + 1):
            console.print(f"Fold {number} of {count}", markup=False)
            results.append(train(_fold(config, division, number)))
        folders = [result.out for result in results]
        saved = [find_or_score(EvaluateConfig(checkpoint=str(each), device=config.device), console) for each in folders]
        result = on_main(lambda: _finish(config, division, results, saved))
        _show(result, saved, console)
        return result


def _division(config: TrainConfig, out: Path, console: Console) -> Division:
    """The division that is stored in the folder, or a new one."""
    assert config.data.folds is not None
    path = out / FOLDS_FILE
    check_room(out)
    pooled = out / EVALUATIONS / POOLED
    written = [path, out / CHECKPOINTS / BEST, out / RESULT_FILE, out / CONFIG_FILE, *(pooled / each for each in FILES)]
    check_places([pooled, out / CHECKPOINTS], written)
    if config.resume == "never" or not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise occupied(out, path.is_file())
        data, held_out = planned_folds(config, config.data.folds, console)
        division = Division(config.data.folds, data.options, held_out)
        writable_folder(out)
        with locked(out / LOCK_FILE):
            write_text(path, to_json(sealed(asdict(division))))
        return division
    try:
        division = read_division(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as the folds of a cross validation: {error}") from error
    count = len(division.held_out)
    if division.asked != config.data.folds:
        raise ValueError(
            f"{out} has {count} folds, of {division.asked} asked for, not {config.data.folds}: choose another folder"
        )
    return division


def read_division(path: Path) -> Division:
    """The division that a file holds.

    Raises:
        ValueError: It is damaged, or divides nothing.
    """
    content = unsealed(read_json(path))
    names = {each.name for each in fields(Division)}
    if content.keys() != names:
        raise ValueError(f"it must hold {', '.join(sorted(names))}, and nothing else")
    division = Division(**content)
    check_types(division)
    images = [name for part in division.held_out for name in part]
    if len(division.held_out) < 2 or not all(division.held_out):
        raise ValueError("it has fewer than two folds, or one without images")
    if len({*images}) < len(images):
        double = next(name for name in images if images.count(name) > 1)
        raise ValueError(f"the image {shortened(repr(double), 100)} is in two folds")
    return division


def _fold(config: TrainConfig, division: Division, number: int) -> TrainConfig:
    """The options of one of the trainings."""
    out = Path(config.out)
    stored = out / "fold-1" / CONFIG_FILE
    if number > 1:
        own = {name: getattr(config, name) for name in ("resume", "device")}
        config = replace(train_config({**read_recipe(stored), "plan": None}), **own)
    elif config.train.hours is not None:
        config = replace(config, train=replace(config.train, hours=config.train.hours / len(division.held_out)))
    data = replace(config.data, folds=None, options=division.options, held_out=division.held_out[number - 1])
    return replace(config, out=str(out / f"fold-{number}"), data=data)


def _finish(
    config: TrainConfig, division: Division, results: Sequence[RunResult], saved: Sequence[SavedEvaluation]
) -> RunResult:
    """Write the ensemble, and the scores of the folds and of all images."""
    out = Path(config.out)
    first = train_config({**read_recipe(results[0].out / CONFIG_FILE), "plan": None})
    asked = replace(first.data, folds=config.data.folds, held_out=None, options=config.data.options)
    pooled = pool([each.evaluation for each in saved])
    path = out / CHECKPOINTS / BEST
    path.parent.mkdir(exist_ok=True)
    checkpoints = [load_checkpoint(result.out) for result in results]
    scored_on = ensemble_data(replace(asked, options=division.options), checkpoints[0].data)
    save_checkpoint(path, ensemble(checkpoints, scored_on, pooled.summary()))
    names = {"checkpoint": str(path.absolute()), "sha256": digest(path), "split": POOLED}
    about = {**saved[0].report, **names, "step": max(result.steps for result in results)}
    about = {name: about[name] for name in ("checkpoint", "sha256", "step", "data", "root", "split", "settings")}
    folder = out / EVALUATIONS / POOLED
    save_evaluation(folder, pooled, make_report(pooled, saved[0].class_names, about))
    config = replace(first, out=config.out, data=asked)
    write_config(out / CONFIG_FILE, config)
    result = RunResult(
        out,
        results[0].steps,
        statistics.median(each.seconds_per_step for each in results),
        max(each.peak_memory for each in results),
        last=pooled.summary(),
        best=pooled.summary(),
    )
    folds = [each.evaluation.summary() for each in saved]
    write_result(out / RESULT_FILE, result, {"folds": folds, "options": flat(plain_options(config))})
    return result


def ensemble_data(asked: DataConfig, trained: DataConfig) -> DataConfig:
    """The data of an ensemble: prepared as its members', and where all of them found their images."""
    return replace(trained, folds=asked.folds, held_out=None, options=asked.options)


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of the images of several evaluations together."""
    metrics = [name for name in evaluations[0].counts if all(name in each.counts for each in evaluations)]
    return Evaluation(
        names=tuple(name for each in evaluations for name in each.names),
        confusion=np.sum([each.confusion for each in evaluations], axis=0),
        counts={name: np.concatenate([each.counts[name] for each in evaluations]) for name in metrics},
        seconds={name: sum(each.seconds[name] for each in evaluations) for name in ("total", "model")},
    )


def _show(result: RunResult, saved: Sequence[SavedEvaluation], console: Console) -> None:
    """Print the scores of the folds and of all images."""
    table = Table("fold", "images", "mIoU %", "pixel accuracy %", title="Scores of images that the model had not seen")
    for number, each in enumerate(saved, 1):
        scores = each.evaluation.everywhere
        row = percent(scores.mean_iou), percent(scores.pixel_accuracy)
        table.add_row(str(number), str(len(each.evaluation.names)), *row)
    means = [each.evaluation.everywhere.mean_iou for each in saved]
    images = sum(len(each.evaluation.names) for each in saved)
    table.add_section()
    table.add_row("pooled", str(images), percent(result.best["mean_iou"]), percent(result.best["pixel_accuracy"]))
    console.print(table)
    spread = f" (standard deviation {percent(statistics.stdev(means))})" if len(means) > 1 else ""
    console.print(
        f"Mean over the folds {percent(statistics.fmean(means))} %{spread}. The ensemble of the {len(saved)} models is "
        f"in {result.out}, for rmiseg evaluate, predict and export",
        markup=False,
    )
