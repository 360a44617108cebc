"""On a CUDA GPU, in one call: are the Triton kernels right, how fast are they, and how much memory do they take.

Prints a table beside the targets of the project and writes everything as JSON. Times are medians of CUDA events around
runs in turn, forward plus backward. "x bytes" is the time divided by that of the bytes that must move (logits read
twice, gradient written once) at the bandwidth of a copy measured in the same run.

Run: python benchmarks/gpu_check.py result.json [--runs 20] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from rmiseg import functional
from rmiseg.functional import RMIOptions
from rmiseg.kernels.triton import launch as kernels
from rmiseg.kernels.triton import regions as triton_regions

CASES = (  # shape, stride of the logits, dtype, pool size
    ((16, 21, 513, 513), 1, torch.float32, 4),
    ((8, 19, 769, 769), 1, torch.float32, 4),
    ((16, 21, 513, 513), 1, torch.bfloat16, 4),
    ((8, 19, 769, 769), 1, torch.bfloat16, 4),
    ((16, 21, 513, 513), 1, torch.float32, 2),
    ((16, 21, 513, 513), 4, torch.float32, 4),
    ((16, 150, 512, 512), 4, torch.float32, 4),
    ((16, 150, 512, 512), 4, torch.bfloat16, 4),
    ((1, 150, 512, 512), 1, torch.float32, 4),
)

COLUMNS = ("shape", "stride", "dtype", "pool")
COLUMNS += ("RMI ms", "fwd ms", "x bytes", "x F.ce", "CE x", "BCE x", "MB", "F.ce MB")
LINE = "{:>20} {:>6} {:>9} {:>4}" + " {:>8}" * 8

Step = Callable[[], Any]


def make_batch(shape: tuple[int, ...], stride: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits at the stride, labels in blocks of 8 x 8 with 2 % ignored, and valid pixels."""
    n, c, h, w = shape
    generator = torch.Generator("cuda").manual_seed(0)
    blocks = torch.randint(0, c, (n, h // 8 + 1, w // 8 + 1), generator=generator, device="cuda")
    target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :h, :w].contiguous()
    target[torch.rand(target.shape, generator=generator, device="cuda") < 0.02] = 255
    low = (n, c, -(-h // stride), -(-w // stride))
    return torch.randn(low, generator=generator, device="cuda").to(dtype), target, (target >= 0) & (target < c)


def check_correctness() -> list[dict[str, Any]]:
    """Kernels against the plain definition in float64, on the GPU, over settings."""
    results = []
    # Not every combination: each compiles several kernels, in device time.
    pools = (("avg", 4, 3), ("avg", 1, 3), ("avg", 3, 2), ("avg", 8, 1), ("avg", 2, 4), ("max", 4, 3), ("interp", 4, 3))
    dtypes = (torch.float32, torch.float32, torch.bfloat16, torch.float64)
    settings = []
    for pool, pixel_loss, stride in itertools.product((*pools, ("avg", 4, 5)), ("bce", "ce"), (1, 4)):
        index = len(settings)
        settings.append((*pool, pixel_loss, stride, index % 3 == 1, dtypes[index // 4 % 4 if index > 3 else 0]))
    for pool, pool_size, region_size, pixel_loss, stride, corners, dtype in settings:
        if pool == "max" and dtype == torch.bfloat16:
            continue  # rounded logits tie, and which of equal values takes the gradient is not defined
        logits, target, valid = make_batch((2, 5, 129, 161), stride, dtype)
        options = RMIOptions(region_size, pool, pool_size, pixel_loss, corners)
        grad_rmi = torch.randn((2, 5), device="cuda", dtype=torch.float64)
        wide = logits.double().requires_grad_()
        pixel, rmi, present = functional.rmi_sums(wide, target, valid, None, options)
        ((0.7 * pixel).sum() + (grad_rmi * rmi).sum()).backward()
        result: dict[str, Any] = {"setting": f"{options} stride {stride} {dtype}"}
        try:
            found, found_rmi, found_present, _, maps = forward(logits, target, valid, options)
            grad_pixel = torch.full_like(found, 0.7)
            grad = kernels.rmi_backward(grad_pixel, grad_rmi, logits, target, valid, None, maps, options)
            result["pixel"] = ((found - pixel).abs() / pixel.abs()).max().item()
            result["rmi"] = ((found_rmi - rmi).abs() / (10 + rmi.abs())).max().item()
            result["gradient"] = ((grad.double() - wide.grad).norm() / wide.grad.norm()).item()
            tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float64: 1e-8}
            result["ok"] = bool(
                result["pixel"] < 1e-6
                and result["rmi"] < 1e-6
                and result["gradient"] < tolerance[dtype]
                and torch.equal(present, found_present)
            )
        except Exception:
            result["error"], result["ok"] = traceback.format_exc()[-1500:], False
        results.append(result)
    return results


def forward(logits: Tensor, target: Tensor, valid: Tensor, options: RMIOptions) -> tuple[Tensor, ...]:
    """As `rmiseg.kernels.operators` calls it in training."""
    keeps = kernels.keeps_maps(logits.shape, target.shape, options)
    return kernels.rmi_forward(logits, target, valid, None, options, keeps, False)


def copy_bandwidth() -> float:
    """Bytes per second of a copy, read and written bytes counted."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / time_in_turn({"copy": lambda: target.copy_(source)}, 20)["copy"]


def time_in_turn(steps: dict[str, Step], runs: int) -> dict[str, float]:
    """Median seconds of each, run in turn, ten calls at a time so that the host keeps ahead of the GPU."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 2):
        for name, step in steps.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            step()
            start.record()
            for _ in range(10):
                step()
            end.record()
            torch.cuda.synchronize()
            if run > 1:
                times[name].append(start.elapsed_time(end) / 10 / 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(step: Step) -> int:
    """Bytes beyond those allocated before."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(shape: tuple[int, ...], stride: int, dtype: torch.dtype, pool_size: int, runs: int) -> dict[str, Any]:
    logits, target, valid = make_batch(shape, stride, dtype)
    leaf = logits.clone().requires_grad_()
    options = RMIOptions(3, "avg", pool_size, "bce", False)
    grad_rmi = torch.full(shape[:2], 0.5 / shape[0], device="cuda", dtype=torch.float64)
    one = torch.ones(shape[0], device="cuda")

    def rmi() -> None:
        *_, maps = forward(logits, target, valid, options)
        kernels.rmi_backward(one, grad_rmi, logits, target, valid, None, maps, options)

    def rmi_forward() -> None:
        forward(logits, target, valid, options)

    def pixel(name: str) -> Step:
        def step() -> None:
            kernels.pixel_forward(logits, target, valid, None, name, False)
            kernels.pixel_backward(one, logits, target, valid, None, name, False)

        return step

    def cross_entropy() -> None:
        leaf.grad = None
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            full = leaf if stride == 1 else F.interpolate(leaf, shape[-2:], mode="bilinear")
            loss = F.cross_entropy(full, target, ignore_index=255)
        loss.backward()

    steps: dict[str, Step] = {
        "rmi": rmi,
        "rmi forward": rmi_forward,
        "ce": pixel("ce"),
        "bce": pixel("bce"),
        "F.cross_entropy": cross_entropy,
    }
    times = time_in_turn(steps, runs)
    return {
        "shape": shape,
        "stride": stride,
        "dtype": str(dtype),
        "pool_size": pool_size,
        "bytes": 2 * logits.nbytes + logits.nbytes,
        "seconds": times,
        "peak_bytes": {name: peak_memory(step) for name, step in steps.items()},
        "gradient_bytes": logits.nbytes,
    }


def kernel_times() -> dict[str, float]:
    """Microseconds of each kernel of the first case, by the profiler: what to look at first when it is too slow."""
    shape, stride, dtype, pool_size = CASES[0]
    logits, target, valid = make_batch(shape, stride, dtype)
    options = RMIOptions(3, "avg", pool_size, "bce", False)
    one, grad_rmi = torch.ones(shape[0], device="cuda"), torch.ones(shape[:2], device="cuda", dtype=torch.float64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            *_, maps = forward(logits, target, valid, options)
            kernels.rmi_backward(one, grad_rmi, logits, target, valid, None, maps, options)
        torch.cuda.synchronize()
    return {event.key: event.device_time_total / 5 for event in profile.key_averages()}


def sweep_tiles(runs: int) -> dict[str, float]:
    """Milliseconds of the first case for other constants than the chosen ones."""
    shape, stride, dtype, pool_size = CASES[0]
    logits, target, valid = make_batch(shape, stride, dtype)
    options = RMIOptions(3, "avg", pool_size, "bce", False)
    one, grad_rmi = torch.ones(shape[0], device="cuda"), torch.ones(shape[:2], device="cuda", dtype=torch.float64)

    def step() -> None:
        *_, maps = forward(logits, target, valid, options)
        kernels.rmi_backward(one, grad_rmi, logits, target, valid, None, maps, options)

    result = {}
    for module, name, values in (
        (kernels, "TILE", (256, 512, 1024, 2048)),
        (triton_regions, "ROWS", (32, 64, 128)),
        (triton_regions, "GRADIENT_ROWS", (4, 8, 16)),
    ):
        chosen = getattr(module, name)
        for value in values:
            setattr(module, name, value)
            result[f"{name}={value}"] = 1000 * time_in_turn({"step": step}, runs)["step"]
        setattr(module, name, chosen)
    return result


def table_line(r: dict[str, Any], bandwidth: float) -> str:
    """One line of the table, of what `measure` returned."""
    t, peak = r["seconds"], r["peak_bytes"]
    shown = (
        f"{1000 * t['rmi']:.3f}",
        f"{1000 * t['rmi forward']:.3f}",
        f"{t['rmi'] * bandwidth / r['bytes']:.2f}",
        f"{t['rmi'] / t['F.cross_entropy']:.2f}",
        f"{t['ce'] / t['F.cross_entropy']:.2f}",
        f"{t['bce'] / t['F.cross_entropy']:.2f}",
        f"{(peak['rmi'] - r['gradient_bytes']) / 1e6:.0f}",
        f"{(peak['F.cross_entropy'] - r['gradient_bytes']) / 1e6:.0f}",
    )
    size = "x".join(map(str, r["shape"]))
    return LINE.format(size, r["stride"], r["dtype"][6:], r["pool_size"], *shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="the first three cases only, and no sweep of tile sizes")
    parser.add_argument("--tests", action="store_true", help="run tests/kernels/test_triton.py first")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }

    def save() -> None:  # after every part: a lease may end
        arguments.result.write_text(json.dumps(result, indent=1))

    if arguments.tests:
        run = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/kernels/test_triton.py"], check=False)
        result["tests"] = run.returncode
        save()
    result["correctness"] = check_correctness()
    wrong = [r for r in result["correctness"] if not r["ok"]]
    print(f"correctness: {len(result['correctness']) - len(wrong)} settings right, {len(wrong)} wrong")
    for r in wrong[:8]:
        print("  wrong:", r)
    save()
    bandwidth = result["copy_bytes_per_second"] = copy_bandwidth()
    print(f"{result['device']}, torch {result['torch']}, triton {result['triton']}; copy {bandwidth / 1e12:.2f} TB/s")
    print(LINE.format(*COLUMNS))
    result["cases"] = []
    for case in CASES[:3] if arguments.quick else CASES:
        try:
            r = measure(*case, arguments.runs)
        except Exception:
            print(case, traceback.format_exc()[-1500:])
            continue
        torch.cuda.empty_cache()
        result["cases"].append(r)
        save()
        print(table_line(r, bandwidth))
    print("MB: peak beyond what was held before, without the gradient itself")
    result["kernel_microseconds"] = kernel_times()
    for name, microseconds in sorted(result["kernel_microseconds"].items(), key=lambda item: -item[1])[:16]:
        print(f"{microseconds:10.1f} us  {name[:90]}")
    save()
    if not arguments.quick:
        result["sweep_milliseconds"] = sweep_tiles(arguments.runs)
        print(result["sweep_milliseconds"])
        save()


if __name__ == "__main__":
    main()
