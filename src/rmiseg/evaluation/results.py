"""The folder of an evaluation: what `rmiseg compare` and `rmiseg report` read without running a model again.

    scores.json   all scores of the split, with intervals; the confusion matrix; what was evaluated, and how
    images.npz    what was counted in every image, by which scores of any selection of images can be taken
    images.csv    the scores of every image, for people

docs/evaluation.md describes each field.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmiseg.evaluation.bootstrap import intervals
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import MEASURES, Scores
from rmiseg.runtime.files import replacing, to_json

FORMAT = "rmiseg evaluation 1"
EVALUATIONS, SCORES_FILE, IMAGES_FILE, TABLE_FILE = "evaluation", "scores.json", "images.npz", "images.csv"


@dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation as it was read from its folder.

    Attributes:
        folder: The folder.
        report: The content of scores.json.
        class_names: Names of the C classes.
        evaluation: What was counted in every image.
    """

    folder: Path
    report: dict[str, Any]
    class_names: tuple[str, ...]
    evaluation: Evaluation


def make_report(evaluation: Evaluation, class_names: tuple[str, ...], about: dict[str, Any]) -> dict[str, Any]:
    """The content of scores.json: `about`, which says what was evaluated, and the scores. Shares are from 0 to 1."""
    scores, boundary = evaluation.everywhere, evaluation.measures["boundary"]
    interval = intervals(evaluation)
    return {
        "format": FORMAT,
        **about,
        "images": len(evaluation.names),
        "pixels": scores.pixels,
        **evaluation.summary(),
        "intervals": interval.summary,
        "classes": {
            name: {
                "iou": scores.iou[index],
                "iou_interval": interval.iou[index],
                "accuracy": scores.accuracy[index],
                "boundary_iou": boundary.iou[index],
            }
            for index, name in enumerate(class_names)
        },
        "confusion": evaluation.confusion.tolist(),
        "seconds": evaluation.seconds,
    }


def save_evaluation(folder: Path, evaluation: Evaluation, report: dict[str, Any]) -> None:
    """Write the files of an evaluation, in place of an earlier one; scores.json comes last and stands for the whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCORES_FILE).unlink(missing_ok=True)
    with replacing(folder / IMAGES_FILE) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, names=np.array(evaluation.names, np.str_), measures=np.array(MEASURES), regions=evaluation.regions
        )
    with replacing(folder / TABLE_FILE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        class_names = list(report["classes"])
        writer.writerow(
            ["name", "pixels", "pixel_accuracy", "mean_iou"]
            + [f"{measure}_mean_iou" for measure in MEASURES[1:]]
            + [f"iou {name}" for name in class_names]
        )
        for name, regions in zip(evaluation.names, evaluation.regions):
            measures = [Scores.from_regions(counts) for counts in regions]
            shares = [measures[0].pixel_accuracy, *(scores.mean_iou for scores in measures), *measures[0].iou]
            cells = ["" if math.isnan(share) else f"{share:.6f}" for share in shares]
            writer.writerow([name, measures[0].pixels, *cells])
    with replacing(folder / SCORES_FILE) as temporary:
        temporary.write_text(to_json(report), encoding="utf-8")


def load_evaluation(folder: Path) -> SavedEvaluation:
    """Read the folder of an evaluation.

    Raises:
        FileNotFoundError: One of its files is not there.
        ValueError: A file is damaged, or not of this format.
    """
    try:
        report = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
        if not isinstance(report, dict) or report.get("format") != FORMAT:
            raise ValueError(f"{SCORES_FILE} is not of the format {FORMAT!r}")
        confusion = np.array(report["confusion"], np.int64)
        with np.load(folder / IMAGES_FILE, allow_pickle=False) as content:
            names, measures, regions = content["names"], content["measures"], content["regions"]
        if tuple(measures) != MEASURES or regions.shape != (len(names), len(MEASURES), 3, len(report["classes"])):
            raise ValueError(f"{IMAGES_FILE} holds other measures or sizes than {SCORES_FILE}")
    except FileNotFoundError:
        raise
    except Exception as error:  # of zip files, JSON, NumPy
        raise ValueError(
            f"{folder} cannot be read as an evaluation ({error}); run `rmiseg evaluate` again to replace it"
        ) from error
    evaluation = Evaluation(tuple(names.tolist()), confusion, regions, report["seconds"])
    return SavedEvaluation(folder, report, tuple(report["classes"]), evaluation)


def evaluation_folder(checkpoint: Path, split: str, settings: dict[str, Any]) -> Path:
    """Where the evaluation of a checkpoint file goes: evaluation/NAME in the folder of the run.

    The name is that of the split; other checkpoints than the best, and settings other than the default, are appended.
    """
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    parts = [split, *([] if checkpoint.stem == "best" else [checkpoint.stem])]
    if settings["scales"] != [1.0]:
        parts.append("scales" + ",".join(f"{scale:g}" for scale in settings["scales"]))
    if settings["flip"]:
        parts.append("flip")
    if settings["window"]:
        parts.append(f"window{settings['window']},{settings['overlap']:g}")
    if settings.get("crf"):
        parts.append(f"crf{settings['crf']['iterations']}")
    return run / EVALUATIONS / "-".join(parts)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits: which checkpoint an evaluation is of."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def percent(share: float) -> str:
    """A share in percent, with two digits; a dash for what has no value."""
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
