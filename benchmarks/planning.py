"""The defaults of the options against a plan, in the same number of seconds of the optimizer.

    python benchmarks/planning.py results.jsonl --seconds 600 CamVid=camvid:DATA/CamVid cracks=folder:DATA/cracks
    python benchmarks/planning.py results.jsonl --seconds 600 --leave-out data.image_scale cracks=folder:DATA/cracks
    python benchmarks/planning.py results.jsonl --runs plan --change 'optim.lr=0.02;data.batch_size=4' cracks=folder:...

Each data set is trained with the defaults of the options, as `rmiseg train --plan false` does, and with a plan; with
--leave-out also with a plan in which one option keeps its default, with --change with a plan in which some options have
other values. Seconds are those of the processor in the main process, for which train.hours chooses the steps. The
defaults have EfficientNet-Lite0 and weights of an installed package, which they could not have without a network. A
line a run is added to the results: steps, seconds a step, mIoU of the last weights, IoU of each class.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from rich.console import Console

from rmiseg import Callback, Trainer
from rmiseg.config import TrainConfig
from rmiseg.config.recipes import merged
from rmiseg.training import cost

BACKBONE = {"backbone": "tf_efficientnet_lite0", "weights": "package"}
QUIET = {"val_every": 10**6, "panels": 0, "loggers": [], "keep": 0, "checkpoint_every": 10**6}


class Clock(Callback):
    """Seconds of the processor that each step takes, and the scores at the end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last = 0.0
        self.scores: dict[str, float] = {}

    def on_epoch_start(self, run: Any) -> None:
        self.last = time.process_time()

    def on_step_end(self, run: Any, outcome: Any) -> None:
        now = time.process_time()
        self.seconds.append(now - self.last)
        self.last = now

    def on_validation_end(self, run: Any, evaluation: Any) -> None:
        scores = evaluation.everywhere
        self.scores = {"mean_iou": scores.mean_iou, **dict(zip(run.classes.names, scores.iou))}


def train(options: dict[str, Any], budget: dict[str, float]) -> tuple[dict[str, float], list[float]]:
    """Train for some hours or steps; the IoU of each class and their mean at the end, and the seconds of each step."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        length = {"out": f"{folder}/run", "train": {**budget, **QUIET}}
        Trainer(merged(options, length), callbacks=[clock], console=Console(quiet=True)).fit()
    return clock.scores, clock.seconds


def default(option: str) -> dict[str, Any]:
    """An option with its default, nested."""
    value: Any = TrainConfig()
    for name in option.split("."):
        value = getattr(value, name)
    return nested(option, value)


def changed(text: str) -> dict[str, Any]:
    """Options in words, such as "optim.lr=0.02;data.crop_size=[256, 256]", nested."""
    options: dict[str, Any] = {}
    for each in text.split(";"):
        name, _, value = each.partition("=")
        options = merged(options, nested(name, yaml.safe_load(value)))
    return options


def nested(option: str, value: Any) -> dict[str, Any]:
    """An option as a recipe has it."""
    for name in reversed(option.split(".")):
        value = {name: value}
    return dict(value)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("data", nargs="+", metavar="TITLE=NAME:ROOT")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--steps", type=int, help="in place of seconds, where it is known what a step takes")
    parser.add_argument("--runs", nargs="*", default=["defaults", "plan"], choices=["defaults", "plan"])
    parser.add_argument("--change", nargs="*", default=[], metavar="OPTION=VALUE;...", help="values are YAML")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="OPTION")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Times are those of the processor, whatever else it does.
    cost.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    for each in arguments.data:
        title, _, place = each.partition("=")
        name, _, root = place.partition(":")
        common = {"seed": arguments.seed, "data": {"name": name, "root": root, "workers": 1}}
        plan = {**common, "plan": True}
        runs = {kind: {"defaults": {**common, "model": BACKBONE}, "plan": plan}[kind] for kind in arguments.runs}
        runs |= {f"plan less {option}": merged(plan, default(option)) for option in arguments.leave_out}
        runs |= {f"plan with {text}": merged(plan, changed(text)) for text in arguments.change}
        for kind, options in runs.items():
            budget = {"hours": arguments.seconds / 3600} if arguments.steps is None else {"steps": arguments.steps}
            scores, seconds = train(options, budget)
            steps = len(seconds)
            found = {"data": title, "run": kind, "steps": steps, "seconds_per_step": round(sum(seconds) / steps, 3)}
            rounded = {name: round(value, 4) for name, value in scores.items()}
            found |= {"optimizer_seconds": round(sum(seconds)), "mean_iou": rounded.pop("mean_iou"), "iou": rounded}
            line = json.dumps({**found, "seed": arguments.seed})
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
