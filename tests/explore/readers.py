"""Mutate files, and count what becomes of them: read, refused, traceback, hang, silently different.

    python tests/explore/readers.py --inputs 10000 --seed 1 [READER...]

Every reader of files that a user may be given has inputs of its own, mutated at random: flipped bits, bytes that are
cut out, repeated or replaced, and text that breaks YAML, JSON and numbers. An error that is said in words (ValueError,
OSError) is a refusal; anything else is a traceback. Silently different: it was read, it has a checksum, and what was
read differs. The exit status is 1 if the last three are not 0; such inputs are kept in a folder that is named.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from data_files import data_readers
from rich.console import Console
from rich.table import Table

from rmiseg.config import DataConfig, ModelConfig, TrainConfig
from rmiseg.config.parser import train_config
from rmiseg.data import ClassTable
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import count_image
from rmiseg.evaluation.results import load_evaluation, make_report, save_evaluation
from rmiseg.experiment.plan import EXAMPLE, read_plan
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.models import build_model
from rmiseg.training.assembly import complete
from rmiseg.training.loggers.table import read_table
from rmiseg.training.run_folder import RunResult
from rmiseg.training.state import RunState, SavedState, StateFolder

HANG_SECONDS, PATIENCE = 10, 300
"""Seconds of the processor that a reader may take, and seconds in all: other programs may have the processor."""
OUTCOMES = ("read", "refused", "traceback", "hang", "silently different")
CLASSES = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
TEXTS = tuple(
    text.encode("latin-1")
    for text in (
        *("\0", "\xff\xfe", "{", "]", "&a", "*a", "<<: *a", "!!timestamp x", "!!python/name:os.system", "- ", ": "),
        *("null", "NaN", "-1", "1e999", "99999999999999999999", "true", "class_path: os.x", '"', "'", "\n", "\t"),
    )
)

Reader = tuple[list[Path], Callable[[], Any], bool]
"""Files to mutate, a function that reads them, and whether they are sealed with checksums."""


class Hang(BaseException):
    """A reader took too long."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(result) + 1)
        kind = chance.randrange(6)
        if kind <= 1 and result:
            result[at % len(result)] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del result[at : at + chance.choice((1, 4, 100, 10**6))]
        elif kind == 3:
            result[at:at] = chance.choice(TEXTS)
        elif kind == 4:
            text = chance.choice(TEXTS)
            result[at : at + len(text)] = text
        else:
            result[at:at] = result[at : at + chance.choice((1, 10, 300))]
    return bytes(result)


def plain(value: Any) -> Any:
    """A value that can be compared with another: tensors and arrays as bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return sorted((str(key), plain(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return [plain(vars(value))] if hasattr(value, "__dict__") else repr(value)


def outcome(read: Callable[[], Any], expected: Any, sealed: bool) -> tuple[str, str]:
    """What became of an input, and the error, if it is none that is said in words."""
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
    signal.alarm(PATIENCE)
    try:
        found = read()
    except (ValueError, OSError) as error:
        return ("refused", "") if len(str(error)) < 3000 else ("traceback", f"{len(str(error))} letters")
    except ModuleNotFoundError as error:  # an extra that is not installed here
        return ("refused", "") if "pip install" in str(error) else ("traceback", str(error))
    except Hang:
        return "hang", ""
    except BaseException as error:  # whatever it is, it is the finding
        return "traceback", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ("silently different" if sealed and plain(found) != expected else "read"), ""


def readers(folder: Path) -> dict[str, Reader]:
    """The readers by their names, with files that are as they should be."""
    torch.manual_seed(0)
    recipe, plan, result = folder / "recipe.yaml", folder / "plan.yaml", folder / "result.json"
    recipe.write_text(yaml.safe_dump(json.loads(json.dumps(complete_options()))))
    plan.write_text(EXAMPLE.replace("recipe: my.yaml", "title: x #").replace("title: my", "# my"))
    curves = folder / "curves.csv"
    curves.write_text("step,curve,value\n" + "".join(f"{step},loss,{1 / step:.8g}\n" for step in range(1, 20)))
    scores = {"last": {"mean_iou": 0.5}, "best": {"mean_iou": None}}
    result.write_text(json.dumps({"steps": 3, "seconds_per_step": 0.5, "peak_memory": 10**9, **scores}))
    save_checkpoint(
        folder / "best.pt", Checkpoint({"w": torch.randn(300)}, ModelConfig(), DataConfig(), CLASSES, 1, {})
    )
    old = folder / "old.pt"
    torch.save(torch.load(folder / "best.pt", weights_only=True), old)
    states = StateFolder(folder / "resume")
    momentum = {"state": {"w": {"momentum_buffer": torch.randn(300)}}, "param_groups": [{"lr": 0.1}]}
    confusion = torch.zeros(2, 2, dtype=torch.int64)
    states.save(SavedState(RunState(step=3), {"w": torch.randn(300)}, momentum, {}, confusion, options={"seed": 0}))
    small = ModelConfig(backbone="mobilenetv3_small_050", weights="none")
    model = build_model("deeplabv3plus", num_classes=2, backbone="mobilenetv3_small_050", weights="none")
    trained = Checkpoint(model.state_dict(), small, DataConfig(), CLASSES, 1, {"mean_iou": 0.5})
    Segmenter.from_checkpoint(trained).save_pretrained(folder / "exported")
    counts = [count_image(*np.random.default_rng(n).integers(0, 2, (2, 9, 9), dtype=np.uint8), 2) for n in range(5)]
    iou = {"iou": np.stack([each.counts for each in counts])}
    evaluation = Evaluation(tuple("abcde"), sum(each.confusion for each in counts), iou, {"total": 2.5, "model": 1.25})
    about = {"checkpoint": "a.pt", "sha256": "0", "step": 1, "data": "folder", "split": "val", "settings": {}}
    save_evaluation(folder / "val", evaluation, make_report(evaluation, ("a", "b"), about))
    exported, val = [folder / "exported" / name for name in ("model.safetensors", "config.json")], folder / "val"
    quiet = Console(file=io.StringIO())
    return {
        "recipe": ([recipe], lambda: complete(train_config(recipe)), False),
        "plan": ([plan], lambda: read_plan(plan), False),
        "result": ([result], lambda: RunResult.read(result), False),
        "curves": ([curves], lambda: read_table(curves), False),
        "checkpoint": ([folder / "best.pt"], lambda: load_checkpoint(folder / "best.pt"), True),
        "older checkpoint": ([old], lambda: load_checkpoint(old), False),
        "state": (states.files(), lambda: states.load(quiet), True),
        "exported model": (exported, lambda: load_checkpoint(folder / "exported"), True),
        "evaluation": ([val / "scores.json", val / "images.npz"], lambda: load_evaluation(val), True),
    }


def complete_options() -> dict[str, Any]:
    options: dict[str, Any] = plain_options(complete(TrainConfig()))
    return options


def plain_options(config: Any) -> dict[str, Any]:
    return {name: plain_options(value) if hasattr(value, "__dict__") else value for name, value in vars(config).items()}


def explore(name: str, reader: Reader, inputs: int, chance: random.Random, kept: Path) -> Counter[str]:
    files, read, sealed = reader
    whole = {path: path.read_bytes() for path in files}
    expected, found = plain(read()), Counter[str]()
    for number in range(inputs):
        path = chance.choice(files)
        data = mutated(whole[path], chance)
        path.write_bytes(data)
        kind, error = outcome(read, expected, sealed)
        found[kind] += 1
        if kind not in ("read", "refused"):
            kept.mkdir(parents=True, exist_ok=True)
            copy = kept / f"{name.replace(' ', '-')}-{number}-{path.name}"
            shutil.copyfile(path, copy)
            print(f"{kind}: {copy} {error}", file=sys.stderr)
        path.write_bytes(whole[path])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--inputs", type=int, default=1000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir(), "rmiseg-explore"))
    options = parser.parse_args()

    def hang(number: int, frame: Any) -> None:
        raise Hang

    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, hang)
    warnings.simplefilter("ignore")
    table = Table("reader", *OUTCOMES)
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        every = {**readers(Path(scratch)), **data_readers(Path(scratch))}
        if unknown := set(options.readers) - every.keys():
            parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(every)}")
        for name in options.readers or every:
            chance = random.Random(f"{name} {options.seed}")
            found = explore(name, every[name], options.inputs, chance, options.kept)
            bad += sum(found[kind] for kind in OUTCOMES[2:])
            table.add_row(name, *(str(found[kind]) for kind in OUTCOMES))
            print(name, dict(found), file=sys.stderr, flush=True)  # hours of them may be interrupted
    Console(width=100).print(table)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
