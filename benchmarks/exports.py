"""Compare the exports of a run: size, time of an image, pixels that get the class that PyTorch gives them, and mIoU.

python benchmarks/exports.py runs/mine [--format onnx,openvino] [--images 100] [--rounds 7]

It exports what is not in runs/mine/export yet, of the formats whose packages are installed, and reads the first images
of the validation split of the run. Times are of the processor, added up over threads, and the least of the rounds, in
which all formats take turns on one image: they mean the same on a machine that others use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from rmiseg.evaluation.metrics import count_image
from rmiseg.exports.export import export
from rmiseg.exports.onnx_file import onnx_runner
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.segmenter import Segmenter

Run = Callable[[Tensor], Tensor]
FORMATS = ("onnx", "onnx-int8", "openvino", "executorch", "torch-export", "torch-aoti")


def openvino_runner(path: Path, precision: str) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda images: torch.from_numpy(compiled(images.numpy())[0].copy())


def executorch_runner(path: Path) -> Run:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return lambda images: method.execute([images])[0].clone()  # which the next image is written over


def write_missing(run: Path, formats: Iterable[str]) -> None:
    """Export what is not there yet."""
    console = Console()
    for name in formats:
        try:
            export(run, name, console=console)
        except FileExistsError:
            continue
        except ModuleNotFoundError as error:
            console.print(f"{name} is left out: {error}")


def runners(run: Path) -> dict[str, tuple[Run, list[Path]]]:
    """The function from images to logits of each export that is there, with its files; PyTorch first."""
    checkpoint = load_checkpoint(run)
    found: dict[str, tuple[Run, list[Path]]] = {
        "PyTorch": (Segmenter.from_checkpoint(checkpoint).eval(), [run / "checkpoints" / "best.pt"])
    }
    folder = run / "export"
    if (path := folder / "model.onnx").exists():
        found["onnx"] = onnx_runner(path), [path]
    if (path := folder / "model-int8.onnx").exists():
        found["onnx-int8"] = onnx_runner(path), [path]
    if (path := folder / "model.xml").exists():
        for precision in ("f32", "bf16"):
            found[f"openvino, {precision}"] = openvino_runner(path, precision), [path, folder / "model.bin"]
    if (path := folder / "model.pte").exists():
        found["executorch"] = executorch_runner(path), [path]
    if (path := folder / "model.pt2").exists():
        found["torch-export"] = torch.export.load(path).module(), [path]
    if (path := folder / "model-aoti.pt2").exists():
        found["torch-aoti"] = torch._inductor.aoti_load_package(path), [path]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--format", default=",".join(FORMATS), help="of these, what is missing is exported first")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    write_missing(options.run, options.format.split(","))
    split = load_checkpoint(options.run).load_split()
    found = runners(options.run)
    counts: dict[str, torch.Tensor] = {}
    agreement = dict.fromkeys(found, 0.0)
    seconds = dict.fromkeys(found, float("inf"))
    indices = range(min(options.images, len(split)))
    with torch.inference_mode():
        for index in indices:
            pixels, target = split.read(index)
            image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).contiguous()
            expected = None
            for name, (run, _) in found.items():
                ids = run(image).argmax(dim=1)[0]
                expected = ids if expected is None else expected
                agreement[name] += (ids == expected).double().mean().item() / len(indices)
                counted = torch.from_numpy(
                    count_image(ids.numpy().astype("uint8"), target, len(split.classes)).counts[0]
                )
                counts[name] = counts.get(name, 0) + counted
        for _ in range(options.rounds):
            for name, (run, _) in found.items():
                start = time.process_time()
                run(image)
                seconds[name] = min(seconds[name], time.process_time() - start)
    height, width = image.shape[2:]
    print(f"{len(indices)} images; times of one of {width} x {height}\n")
    print("| format | MB | processor ms an image | pixels that agree % | mIoU % |\n|---|---:|---:|---:|---:|")
    for name, (_, files) in found.items():
        hit, true, predicted = counts[name].double()
        union = true + predicted - hit
        iou = (hit / union)[union > 0].mean().item()
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"| {name} | {size:.1f} | {1000 * seconds[name]:.0f} | {100 * agreement[name]:.3f} | {100 * iou:.2f} |")


if __name__ == "__main__":
    main()
