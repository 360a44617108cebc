"""Tables for docs/performance.md of what `benchmarks/gpu_check.py` found.

python benchmarks/gpu_table.py benchmarks/results/*.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BASE = "F.cross_entropy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    for path in parser.parse_args().results:
        result = json.loads(path.read_text())
        first = result.get("first", {}).get("found", {})
        versions = "".join(f", {name} {first[name]}" for name in ("torch", "triton") if name in first)
        print(f"{path.name}: {result['device']}{versions}\n")
        for part, table in {
            "speed": speed,
            "correctness": correctness,
            "profile": profile,
            "peers": peers,
            "training": training,
            "loading": loading,
            "evaluation": evaluation,
            "planned": planned,
            "suite": suite,
        }.items():
            found = result.get(part, {}).get("found")
            if found:
                print("\n".join(table(found)), end="\n\n")


def speed(found: dict[str, Any]) -> list[str]:
    """Time and memory of each loss; of the device alone where that was measured."""
    lines = [
        "| logits | loss | ms | x CE | host ms | device ms | x CE | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, value in found.items():
        base = value["times"][BASE]
        for loss, time in value["times"].items():
            peak = value["peak"][loss] / 1e6
            lines.append(f"| {case} | {loss} | {_times(time, base)} | {peak:.0f} |")
    return lines


def _times(time: dict[str, Any], base: dict[str, Any]) -> str:
    """Cells: milliseconds from call to end, and times those of `base`; the host's; the device's own, likewise."""
    seconds, alone, base_alone = time["seconds"], time.get("graph"), base.get("graph")
    shown = f"{1e3 * seconds:.2f} | {seconds / base['seconds']:.2f} | {1e3 * time['host']:.2f}"
    if not isinstance(alone, float) or not isinstance(base_alone, float):
        return f"{shown} | | "
    return f"{shown} | {1e3 * alone:.2f} | {alone / base_alone:.2f}"


def peers(found: dict[str, Any]) -> list[str]:
    """Time and memory beside other implementations and losses."""
    lines = ["| loss | ms | x CE | host ms | device ms | x CE | peak MB |", "|---|---|---|---|---|---|---|"]
    for loss, time in found.items():
        if isinstance(time, dict):
            lines.append(f"| {loss} | {_times(time, found[BASE])} | {time['peak'] / 1e6:.0f} |")
    return lines


def correctness(found: dict[str, Any]) -> list[str]:
    """How many settings are right, and the largest errors of those."""
    worst: dict[str, float] = {}
    right = {setting: value for setting, value in found.items() if value["ok"]}
    for setting, value in right.items():
        dtype = next(each for each in setting.split() if each in ("float16", "bfloat16", "float32", "float64"))
        worst[dtype] = max(worst.get(dtype, 0.0), value["gradient"])
    shown = ", ".join(f"{dtype} {error:.1e}" for dtype, error in sorted(worst.items()))
    return [f"{len(right)} of {len(found)} settings right; largest error of a gradient: {shown}"]


def profile(found: dict[str, Any]) -> list[str]:
    """The device's own time by kernel."""
    lines = ["| logits: loss | microseconds of the device | launches | kernels |", "|---|---|---|---|"]
    for case, value in found.items():
        kernels = value["kernels"]
        total, launches = (sum(each[i] for each in kernels.values()) for i in (0, 1))
        largest = ", ".join(f"{name[:24]} {each[0]:.0f}" for name, each in list(kernels.items())[:6])
        lines.append(f"| {case} | {total:.0f} | {launches:.0f} | {largest} |")
    return lines


def training(found: dict[str, Any]) -> list[str]:
    """Steps of a whole network."""
    lines = ["| step | seconds | peak GB |", "|---|---|---|"]
    for name, value in found.items():
        if isinstance(value, dict):
            lines.append(f"| {name} | {value['seconds']:.3f} | {value['peak'] / 1e9:.1f} |")
    return lines


def loading(found: dict[str, Any]) -> list[str]:
    """Images a second that arrive from files."""
    rows = [f"| {name} | {value:.0f} |" for name, value in found.items()]
    return ["| loading | images/s |", "|---|---|", *rows]


def evaluation(found: dict[str, Any]) -> list[str]:
    """Seconds an image, and how much longer that is than its forward passes."""
    lines = ["| evaluation | ms an image | of which forward | x forward |", "|---|---|---|---|"]
    for name, value in found.items():
        total, model = value["total"], value["model"]
        lines.append(f"| {name} | {1e3 * total:.1f} | {1e3 * model:.1f} | {total / model:.2f} |")
    return lines


def suite(found: dict[str, Any]) -> list[str]:
    """The outcome of the tests, and those that failed."""
    return [f"tests: {found.get('outcome', 'cut off')}", *found.get("failed", [])]


def planned(found: dict[str, Any]) -> list[str]:
    """Scores and costs of whole trainings."""
    lines = [
        "| training | mIoU % | boundary mIoU % | steps | seconds a step | minutes | peak GB | foreseen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, value in found.items():
        if isinstance(value, dict):
            scores = [100 * value["scores"][score] for score in ("mean_iou", "boundary_mean_iou")]
            shown = " | ".join(f"{score:.2f}" for score in scores)
            costs = f"{value['seconds a step']:.3f} | {value['wall'] / 60:.1f} | {value['peak'] / 1e9:.1f}"
            foreseen = "" if value["foreseen"] is None else f"{value['foreseen'] / 1e9:.1f}"
            lines.append(f"| {name} | {shown} | {value['steps']} | {costs} | {foreseen} |")
    return lines


if __name__ == "__main__":
    main()
