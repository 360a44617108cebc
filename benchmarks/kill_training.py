"""Kill a training again and again, at random moments, and compare its weights with those of an undisturbed one.

    python benchmarks/kill_training.py --kills 20 --processes 1

Each time the same command is given again, with --resume auto. Every other kill waits for a file of tensors that is
being written. Prints a table of what was done and found; the exit status is 1 if a weight differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

STEPS_PER_KILL = 3  # so that there is something left to kill


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(Path(scratch, "data"))

        def command(out: Path) -> list[str]:
            launch = [sys.executable, "-m"]
            if options.processes > 1:
                launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={options.processes}", "-m"]
            words = f"""train --out {out} --resume auto --device cpu --data.root {data} --data.crop_size 48,48
                --data.batch_size 4 --data.workers 1 --model.backbone mobilenetv3_small_050 --model.weights none
                --train.steps {STEPS_PER_KILL * (options.kills + 2)} --train.checkpoint_every 1 --train.val_every 5"""
            return [*launch, "rmiseg", *words.split()]

        undisturbed, killed = Path(scratch, "undisturbed"), Path(scratch, "killed")
        start(command(undisturbed)).wait()
        for number in track(range(options.kills), "killing"):
            kind = "while a file is written" if number % 2 else "at any moment"
            process = start(command(killed))
            outcomes[kill(process, killed, kind, options.processes, chance)] += 1
        final = start(command(killed)).wait()
        torn = len(list(killed.rglob("*.tmp")))
        differing = compare(undisturbed, killed) if final == 0 else -1

    table = Table("kill -9", "times", title=f"{options.processes} process(es)")
    for kind, times in sorted(outcomes.items()):
        table.add_row(kind, str(times))
    console = Console()
    console.print(table)
    console.print(f"last start: status {final}; weights that differ in any bit: {differing}; files left half: {torn}")
    return 0 if differing == 0 and torn == 0 else 1


def start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill(process: subprocess.Popen[bytes], run: Path, kind: str, processes: int, chance: random.Random) -> str:
    """Wait for a moment, and kill; says when, and whom."""
    states = run / "checkpoints" / "resume"
    before = set(states.glob("*.pt"))
    while process.poll() is None and not set(states.glob("*.pt")) - before:  # at least a step further than before
        time.sleep(0.01)
    give_up = time.monotonic() + chance.uniform(0.0, 1.0 if kind == "at any moment" else 5.0)
    while process.poll() is None and time.monotonic() < give_up:
        if kind == "while a file is written" and any(run.glob("checkpoints/**/.*.tmp")):
            break
        time.sleep(0.0005)
    else:
        kind = "at any moment"
    if process.poll() is not None:
        return f"none: it had ended by itself, status {process.returncode}"
    alive = ranks(process.pid) if processes > 1 else []
    if alive and chance.random() < 0.5:
        kind += ", one of the processes"
        os.kill(chance.choice(alive), signal.SIGKILL)  # torchrun ends the others
    else:
        kind += ", all processes" if processes > 1 else ""
        for each in [*alive, process.pid]:  # each that torchrun started is a group of its own
            os.killpg(each, signal.SIGKILL)
    process.wait()
    return kind


def ranks(parent: int) -> list[int]:
    """The processes that torchrun started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def compare(first: Path, second: Path) -> int:
    """How many tensors differ."""
    weights = [torch.load(run / "checkpoints" / "last.pt", weights_only=True)["weights"] for run in (first, second)]
    return sum(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def write_data(root: Path, count: int = 40) -> Path:
    """Noisy squares on a dark ground."""
    rng = np.random.default_rng(0)
    for index in range(count):
        mask = np.zeros((64, 80), np.uint8)
        y, x = rng.integers(0, 30, 2)
        mask[y : y + 30, x : x + 30] = 1
        pixels = (mask[..., None] * 120 + rng.integers(0, 90, (64, 80, 3))).astype(np.uint8)
        for folder, array in (("images", pixels), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{index:02d}.png")
    (root / "dataset.yaml").write_text("classes: [ground, square]\n")
    return root


if __name__ == "__main__":
    sys.exit(main())
