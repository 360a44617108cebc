"""Ask a CUDA GPU all that is to be known: are the losses right there, how fast are they, what do they take.

The parts in benchmarks/gpu/ run in processes of their own, each with a limit of its own, the most telling first, until
the budget is spent; those that measure no time run side by side. Whatever they find is written as it comes; what a file
already holds is not asked again, so that a second call goes on where the first was cut off. `benchmarks/gpu_table.py`
makes tables of the file.

    python benchmarks/gpu_check.py result.json [--budget 540] [--parts speed profile] [--again]
    python benchmarks/gpu_check.py /tmp/try.json --tiny          # on a CPU: only whether the script runs

`benchmarks/gpu_pack.py` packs all that is needed on a machine that reaches nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = "RMISEG_GPU_DATA"
STAGES: tuple[dict[str, float], ...] = (  # the parts that run side by side, and the seconds that each may take
    {"first": 60},
    {"correctness": 150, "modes": 120, "compilation": 120},
    {"speed": 150},
    {"profile": 60},
    {"suite": 150},
    {"evaluation": 60},
    {"loading": 60},
    {"training": 150},
    {"peers": 90},
    {"sweep": 100},
    {"planned": 540},  # what is left
)
PARTS = {name: seconds for stage in STAGES for name, seconds in stage.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--budget", type=float, default=540, help="seconds for everything")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--again", action="store_true", help="also the parts that the file already holds")
    parser.add_argument("--best", action="store_true", help="set the constants to what the sweep found best")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, at sizes that mean nothing")
    parser.add_argument("--workers", type=int, default=min(14, os.cpu_count() or 1), help="processes that compile")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        run_part(options)
        return 0
    started = time.monotonic()
    result = json.loads(options.result.read_text()) if options.result.exists() else {}
    result.setdefault("device", device_name(options.tiny))
    failed = False
    for stage in STAGES:
        left = options.budget - (time.monotonic() - started)
        known = () if options.again else [name for name, part in result.items() if name in PARTS and part["complete"]]
        names = [name for name in stage if name in options.parts and name not in known]
        if not names or left < 5:
            continue
        best = result.get("sweep", {}).get("found", {}).get("best", {}) if options.best else {}
        limits = {name: min(stage[name] * (10 if options.tiny else 1), left) for name in names}
        with ThreadPoolExecutor() as pool:
            asked = {pool.submit(ask, name, options, limit, best): name for name, limit in limits.items()}
            for over in as_completed(asked):
                name, part = asked[over], over.result()
                result[name] = {**part, "constants": best}
                write(options.result, result)
                failed |= summarize(name, part)
    return int(failed)


def device_name(tiny: bool) -> str:
    code = "import torch; print(torch.cuda.get_device_name())"
    return "cpu" if tiny else subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def ask(name: str, options: argparse.Namespace, limit: float, constants: dict[str, Any]) -> dict[str, Any]:
    """Run a part in a process of its own; what it had found when its time was over, too."""
    own = options.result.with_name(f".{name}.json")
    own.unlink(missing_ok=True)
    command = [sys.executable, __file__, str(own), "--part", name, "--workers", str(options.workers)]
    command += ["--seconds", f"{limit:.0f}"]
    # What was packed comes last: packages that are installed here fit this machine.
    places = [str(ROOT / "src"), str(ROOT / "benchmarks"), *sys.path, str(ROOT / "packages")]
    environment = {DATA: str(ROOT / "data"), **os.environ, "PYTHONPATH": os.pathsep.join(places)}
    environment["RMISEG_GPU_CONSTANTS"] = json.dumps(constants)
    if options.tiny:
        command.append("--tiny")
        environment["TRITON_INTERPRET"] = "1"
    started = time.monotonic()
    part = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        problem = part.communicate(timeout=limit)[1][-3000:]
        problem = problem if part.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(part.pid, signal.SIGKILL)  # with the processes that it has started
        part.communicate()
        problem = f"cut off after {limit:.0f} s"
    found: dict[str, Any] = json.loads(own.read_text()) if own.exists() else {}
    own.unlink(missing_ok=True)
    return {"complete": not problem, "problem": problem, "wall": time.monotonic() - started, "found": found}


def run_part(options: argparse.Namespace) -> None:
    """The part itself, in its own process."""
    from gpu.batches import Place

    part = importlib.import_module(f"gpu.{options.part}")
    place = Place("cpu" if options.tiny else "cuda", options.workers, options.tiny, options.seconds)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        if place.device == "cuda":
            import torch

            # Not the default stream, which autograd would wait for inside of a CUDA graph.
            stack.enter_context(torch.cuda.stream(torch.cuda.Stream()))
        for key, value in part.measure(place):
            found[key] = value
            write(options.result, found)


def write(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(content, indent=1))
    beside.replace(path)


def summarize(name: str, part: dict[str, Any]) -> bool:
    """Print what a part found, briefly; True if something is wrong."""
    print(f"== {name}: {part['wall']:.0f} s {part['problem'][-1500:]}", flush=True)
    found = part["found"]
    if name == "correctness":
        wrong = {key: value for key, value in found.items() if not value["ok"]}
        print(f"{len(found) - len(wrong)} right, {len(wrong)} wrong")
        for key, value in list(wrong.items())[:12]:
            print(" wrong:", key, str(value)[-700:])
        return bool(wrong or part["problem"])
    if name == "suite":
        print("\n".join([found.get("outcome", ""), *found.get("failed", [])[:30]]))
        return bool(found.get("failed") or part["problem"])
    if name == "modes":
        for key, value in found.items():
            print(f" {key}: {value[-700:]}")
        return any(value != "ok" for value in found.values()) or bool(part["problem"])
    if name == "speed":
        for key, value in found.items():
            times = value["times"]
            base, peak = times["F.cross_entropy"]["seconds"], value["peak"]
            line = " ".join(
                f"{each} {1e3 * t['seconds']:.2f}ms x{t['seconds'] / base:.2f} {shown(t.get('graph'))} "
                f"{peak[each] / 1e6:.0f}MB;"
                for each, t in times.items()
            )
            print(f" {key}: {line}")
        return bool(part["problem"])
    text = json.dumps(found)
    print(text if len(text) < 3000 else text[:3000] + " ...")
    return bool(part["problem"])


def shown(graph: float | str | None) -> str:
    """The time of a CUDA graph, or why there is none."""
    return f"graph {1e3 * graph:.2f}ms" if isinstance(graph, float) else str(graph or "")[:60]


if __name__ == "__main__":
    sys.exit(main())
