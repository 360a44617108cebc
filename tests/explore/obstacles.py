"""Put something in the way of each file that a command writes, and see what it says.

    python tests/explore/obstacles.py [COMMAND...]

Each command runs once undisturbed. Then, for each file that it makes, a folder of that name is there before it starts,
and for each folder a file; and its folder is a file, lies below one, or where nobody may write. It must say so in one
line that names the path, without a traceback, leave what was there as it is, and leave nothing half. Where it can go on
without, it may. The exit status is 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
import yaml
from kill_plugin import WORK
from kills import PLUGIN, RECIPE, Started, leftovers, write_shapes
from PIL import Image
from rich.console import Console
from rich.table import Table

from foreign import original_names
from rmiseg.models import build_model
from support.launch import context

KEPT = b"somebody's"
"""Content of what is in the way."""
OUTCOMES = ("refused", "went on", "after work", "traceback", "hang", "no reason", "touched", "left half")
REASONS = ("is a file, where", "is a folder", "exist", "there is no folder", "cannot be made", "cannot be read as")
PROBES = 2
"""Uses of a network that show how it is built."""
UNWRITABLE = Path("/proc/sys/rmiseg")


class Trial:
    """One command and what is put in its way.

    Args:
        name: Its name.
        arguments: What stands behind `rmiseg`, with OUT for what it writes to.
        out: The file or folder that it writes to.
        start: Folder whose content is there before it starts; None for none.
        deepest: Folders of what it makes, beyond which nothing is put in its way, where a try takes long.
    """

    def __init__(self, name: str, arguments: list[str], out: Path, start: Path | None, deepest: int = 9) -> None:
        self.name, self.arguments, self.out, self.start, self.deepest = name, arguments, out, start, deepest
        self.log = out.parent / "log"
        self.outcomes: Counter[str] = Counter()

    def run(self, out: Path, seconds: float = 120) -> tuple[int | None, str]:
        """Exit status, and what was printed."""
        arguments = [each.replace("OUT", str(out)) for each in self.arguments]
        started = Started([*arguments, "--plugin", str(PLUGIN)], self.log, "", 1)
        status = started.wait(seconds)
        if status is None and started.forked is not None:
            started.forked.kill()
        return status, self.log.read_text(errors="replace")

    def fresh(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.unlink(missing_ok=True)
        if self.start is not None:
            shutil.copytree(self.start, self.out)

    def undisturbed(self) -> list[Path]:
        """Paths that the command makes, below its folder."""
        self.fresh()
        before = {path: path.stat().st_mtime_ns for path in self.out.rglob("*")}
        status, said = self.run(self.out, 600)
        if status != 0:
            raise SystemExit(f"{self.name} fails by itself, status {status}:\n{said[-3000:]}")
        after = sorted(path for path in self.out.rglob("*") if path not in before)
        made = [path.relative_to(self.out) for path in after]
        return [path for path in made if len(path.parts) <= self.deepest]

    def obstacle(self, made: Path, is_folder: bool) -> None:
        """Put a file in place of a folder, or the other way round."""
        self.fresh()
        path = self.out / made
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path
        if not is_folder:
            path.mkdir()
            held = path / "kept"
        held.write_bytes(KEPT)
        self.judge(str(made), self.out, held)

    def elsewhere(self, kind: str) -> None:
        """Write to a file in place of a folder, below a file, or where nobody may."""
        self.fresh()
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.unlink(missing_ok=True)
        if kind == "not writable":
            self.judge(kind, UNWRITABLE / self.out.name, None)
            return
        folder_in_place = kind == "a folder"
        held = self.out / "kept" if folder_in_place else self.out
        held.parent.mkdir(parents=True, exist_ok=True)
        held.write_bytes(KEPT)
        self.judge(kind, self.out / "below" / self.out.name if kind == "below a file" else self.out, held)

    def leftovers(self) -> set[str]:
        """Files that are half written."""
        folders = (self.out.parent, self.out, *self.out.rglob("*/"))
        return {str(path) for folder in folders for path in leftovers(folder)}

    def judge(self, what: str, out: Path, held: Path | None) -> None:
        before = self.leftovers()
        status, said = self.run(out)
        lines = [line for line in said.splitlines() if line.strip()]
        half = self.leftovers() - before
        if status is None:
            outcome = "hang"
        elif "Traceback" in said or "Error ignored" in said:
            outcome = "traceback"
        elif held is not None and (not held.is_file() or held.read_bytes() != KEPT):
            outcome = "touched"
        elif half:
            outcome = "left half"
        elif status == 0:
            outcome = "went on"
        elif not any("error: " in line and any(each in line for each in REASONS) for line in lines) or "Errno" in said:
            outcome = "no reason"
        else:
            outcome = "after work" if said.count("network used") > PROBES else "refused"
        self.outcomes[outcome] += 1
        shown = [line for line in lines if "error: " in line or outcome not in OUTCOMES[:3]][-12:]
        print(f"{self.name}, {what}: {outcome}", *shown, *half, sep="\n    ", flush=True)


def foreign_weights(path: Path) -> Path:
    """Write a file of weights as another program has them."""
    model = build_model("deeplabv3", num_classes=3, backbone="resnet18", weights="none", compat="original")
    names = original_names("deeplabv3")
    torch.save({"state_dict": {names(name): value for name, value in model.state_dict().items()}}, path)
    return path


def trials(scratch: Path) -> dict[str, Trial]:
    """The commands."""
    data = scratch / "data"
    write_shapes(data, count=10)
    (scratch / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "data": {**RECIPE["data"], "root": str(data)}}))
    plan = {"recipe": "recipe.yaml", "methods": {"CE": {"loss": {"name": "ce"}}}, "train": {"train": {"steps": 2}}}
    (scratch / "plan.yaml").write_text(yaml.safe_dump(plan))
    labels = scratch / "labels"
    labels.mkdir()
    Image.new("RGB", (32, 24)).save(labels / "a.png")
    shape = {"label": "car", "points": [[2, 3], [20, 4], [18, 19]], "shape_type": "polygon"}
    (labels / "a.json").write_text(
        json.dumps({"imagePath": "a.png", "imageHeight": 24, "imageWidth": 32, "shapes": [shape], "version": "5"})
    )
    (scratch / "trained").mkdir()
    run, train = scratch / "trained" / "run", ["train", str(scratch / "recipe.yaml"), "--out"]
    started = Started([*train, str(run), "--plugin", str(PLUGIN)], scratch / "log", "", 1)
    if started.wait() != 0:
        raise SystemExit((scratch / "log").read_text())
    trained = scratch / "trained" / "run"
    images, cpu = str(data / "images"), ["--device", "cpu"]
    half, counter = scratch / "half", scratch / "count"
    for number in range(60, 0, -4):  # killed as late as leaves a state
        shutil.rmtree(half, ignore_errors=True)
        counter.unlink(missing_ok=True)
        fault = f"kill {number} {half} {counter}"
        if Started([*train, str(half), "--plugin", str(PLUGIN)], scratch / "log", fault, 1).wait() != 0 and any(
            (half / "checkpoints").glob("resume/*")
        ):
            break
    fresh = scratch / "fresh"
    shutil.copytree(trained, fresh)
    shutil.rmtree(fresh / "evaluation")
    written = "index,overlay,probabilities,coco,labelme"
    theirs = foreign_weights(scratch / "theirs.pth")
    every: dict[str, tuple[list[str], Path | None]] = {
        "train": ([*train, "OUT"], None),
        "train, go on": ([*train, "OUT", "--resume", "auto"], half),
        "train, folds": ([*train, "OUT", "--data.folds", "2"], None),
        "experiment": (["experiment", str(scratch / "plan.yaml"), "--out", "OUT", *cpu], None),
        "predict": (["predict", str(run), images, "--out", "OUT", "--write", written, *cpu], None),
        "predict, go on": (["predict", str(run), images, "--out", "OUT", "--resume", "auto", *cpu], None),
        "evaluate": (["evaluate", "OUT", *cpu], fresh),
        "evaluate --out": (["evaluate", str(run), "--out", "OUT", *cpu], None),
        "evaluate --json": (["evaluate", str(run), "--json", "OUT", *cpu], None),
        "compare --json": (["compare", str(run), str(fresh), "--json", "OUT", *cpu], None),
        "crf-search --json": (["crf-search", str(run), "--json", "OUT", "--trials", "2", *cpu], None),
        "report": (["report", str(run), "--out", "OUT", *cpu], None),
        "export": (["export", str(run), "--format", "safetensors,torch-export", "--out", "OUT"], None),
        "export, in the run": (["export", "OUT", "--format", "safetensors"], fresh),
        "data import": (["data", "import", str(labels), "--out", "OUT"], None),
        "convert": (["convert", str(theirs), "--out", "OUT"], None),
        "convert --overwrite": (["convert", str(theirs), "--out", "OUT", "--overwrite"], None),
        "demo": (["demo", "--out", "OUT", "--steps", "1", "--device", "cpu"], None),
    }
    found = {}
    for name, (arguments, start) in every.items():
        folder = scratch / name.replace(" ", "-").replace(",", "")
        folder.mkdir()
        found[name] = Trial(name, arguments, folder / "out", start, 1 if name == "demo" else 9)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*")
    options = parser.parse_args()
    preloaded = ["rmiseg.training.trainer", "rmiseg.reports.page", "rmiseg.experiment.driver", "rmiseg.exports.export"]
    context.set_forkserver_preload(preloaded)
    os.environ[WORK] = "1"
    table = Table("command", *OUTCOMES)
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        every = trials(Path(scratch))
        for name in options.commands or every:
            trial = every[name]
            made = trial.undisturbed()
            is_file = trial.out.is_file()
            kinds = {path: (trial.out / path).is_dir() for path in made}
            for kind in ("below a file", "not writable", *(["a folder"] if is_file else ["a file"])):
                trial.elsewhere(kind)
            for path, is_folder in kinds.items():
                if ".lock" not in path.name and not path.name.startswith("events.out"):
                    trial.obstacle(path, is_folder)
            bad += sum(trial.outcomes[outcome] for outcome in OUTCOMES[3:])
            table.add_row(name, *(str(trial.outcomes[outcome]) for outcome in OUTCOMES))
    Console(width=140).print(table)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.path.append(os.fspath(Path(__file__).parents[1]))
    sys.exit(main())
