"""`rmiseg demo`: the same small model trained with cross entropy and with RMI, on data that comes along."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rmiseg.config import (
    DataConfig,
    DemoConfig,
    LoopConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from rmiseg.config.recipes import CONFIG_FILE
from rmiseg.data import load_split, write_demo_data
from rmiseg.data.spread import spread
from rmiseg.inference.pictures import colorize, titled_rows
from rmiseg.inference.predictor import Predictor
from rmiseg.runtime.device import select_device
from rmiseg.runtime.files import read_json, replacing
from rmiseg.runtime.places import check_places, check_room
from rmiseg.runtime.terminal import numbers_table
from rmiseg.training.run_folder import RESULT_FILE
from rmiseg.training.stored_options import stored_options, write_config

LOSSES = {"ce": "cross entropy", "rmi": "RMI"}
PICTURED_SLICES = 4


def run_demo(config: DemoConfig, console: Console) -> None:
    """Train twice, print a table, and draw a picture. Runs of an earlier demo in the same folder are replaced."""
    if config.steps < 1:
        raise ValueError(f"steps must be at least 1, not {config.steps}")
    select_device(config.device)
    out = Path(config.out)
    data, recipe, picture = out / "data", out / "recipe.yaml", out / "demo.png"
    check_places([out, data, *(out / loss for loss in LOSSES)], [recipe, picture])
    check_room(out)
    for run in (out / loss for loss in LOSSES):
        if (run / CONFIG_FILE).exists() and stored_options(run).get("data.name") != "demo":
            raise FileExistsError(f"{run} is a run on other data than the demo's; choose another folder with --out")
    console.print(
        "Data: axial slices of the ICBM 152 brain template (nilearn), with noise and uneven brightness added."
    )
    console.print("It is one averaged brain, with masks thresholded from tissue probabilities: good for a first look.")
    write_demo_data(data)
    write_config(recipe, demo_recipe(config, data))

    results = {}
    for loss, title in LOSSES.items():
        run = out / loss
        if (run / CONFIG_FILE).exists():
            shutil.rmtree(run)
        arguments = ["train", str(recipe), "--loss.name", loss, "--out", str(run)]
        console.rule(f"Training with {title}")
        console.print(f"$ rmiseg {shlex.join(arguments)}", highlight=False)
        # A process of its own, so that its peak memory is its own.
        status = subprocess.run([sys.executable, "-m", "rmiseg", *arguments]).returncode
        if status:
            raise ChildProcessError(f"training with {title} ended with status {status}")
        results[loss] = read_json(run / RESULT_FILE)

    console.rule("Comparison")
    console.print(comparison_table(results))
    gain = 100 * (results["rmi"]["last"]["mean_iou"] - results["ce"]["last"]["mean_iou"])
    console.print(
        f"With this seed and after {config.steps} steps each, RMI is {abs(gain):.2f} points of mIoU "
        f"{'above' if gain > 0 else 'below'} cross entropy."
    )
    draw_comparison(picture, data, {title: out / loss for loss, title in LOSSES.items()}, config.device)
    console.print(f"Picture: {picture}. Curves: tensorboard --logdir {out}")


def demo_recipe(config: DemoConfig, data: Path) -> TrainConfig:
    """Options that both trainings have in common."""
    return TrainConfig(
        seed=config.seed,
        device=config.device,
        data=DataConfig(
            name="demo",
            root=str(data),
            crop_size=(128, 128),
            scale_range=(0.75, 1.25),
            batch_size=8,
            workers=1,
        ),
        model=ModelConfig(name="deeplabv3plus", backbone="tf_efficientnet_lite0", weights="package"),
        loss=LossConfig(name="rmi"),
        # Of 0.01, 0.03 and 0.1 the best learning rate for cross entropy, so warmed up; RMI does better still with 0.1.
        optim=OptimConfig(lr=0.03, warmup_steps=min(10, config.steps // 2), warmup_to="curve"),
        # So short a training needs quicker running statistics than the paper's 0.05.
        train=LoopConfig(steps=config.steps, val_every=5, norm_momentum=0.1),
    )


def comparison_table(results: dict[str, dict[str, Any]]) -> Table:
    """The runs' scores at their last step, which is chosen by nobody, and what they cost."""
    table = numbers_table("", *(LOSSES[loss] for loss in results))
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "mIoU %": lambda r: f"{100 * r['last']['mean_iou']:.2f}",
        "mIoU within 3 pixels of boundaries %": lambda r: f"{100 * r['last']['trimap_3_mean_iou']:.2f}",
        "boundary IoU %": lambda r: f"{100 * r['last']['boundary_mean_iou']:.2f}",
        "pixel accuracy %": lambda r: f"{100 * r['last']['pixel_accuracy']:.2f}",
        "time a step, ms": lambda r: f"{1000 * r['seconds_per_step']:.0f}",
        "peak memory, MB": lambda r: f"{r['peak_memory'] / 1e6:.0f}",
    }
    for name, value in rows.items():
        table.add_row(name, *(value(result) for result in results.values()))
    return table


def draw_comparison(path: Path, data: Path, runs: dict[str, Path], device: str) -> None:
    """A picture with image, truth and the prediction of each run, for some validation slices."""
    split = load_split("demo", data, "val")
    predictors = [Predictor.from_run(run / "checkpoints" / "last.pt", device) for run in runs.values()]
    rows = []
    for index in spread(len(split.samples), PICTURED_SLICES + 2)[1:-1]:
        pixels, truth = split.read(index)
        masks = [truth, *(predictor(pixels) for predictor in predictors)]
        rows.append([pixels, *(colorize(ids, split.classes) for ids in masks)])
    with replacing(path) as temporary:
        titled_rows(rows, ["image", "truth", *runs], split.classes).save(temporary, format="PNG")
