"""The folder of an evaluation: what `rmiseg compare` and `rmiseg report` read without running a model again.

    scores.json   all scores of the split, with intervals; the confusion matrix; what was evaluated, and how
    images.npz    what was counted in every image, by which scores of any selection of images can be taken
    images.csv    the scores of every image, for people

docs/evaluation.md describes each field.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rmiseg.config.recipes import shortened
from rmiseg.config.registry import loaded_plugins
from rmiseg.evaluation.bootstrap import intervals
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.metrics import BUILT_IN, MEASURES, find_metric, iou
from rmiseg.runtime.checksums import HEADER_ENTRY, content_crc32, file_crc32, sealed
from rmiseg.runtime.files import cell, read_json, remove_leftovers, replacing, to_json, write_rows

FORMAT, FORMAT_1 = "rmiseg evaluation 2", "rmiseg evaluation 1"
COUNTS = "counts_"
"""Beginning of the names of those arrays in images.npz that hold counts; the name of the metric follows."""
EVALUATIONS = "evaluation"
FILES = SCORES_FILE, IMAGES_FILE, TABLE_FILE = "scores.json", "images.npz", "images.csv"
CHECKSUM, IMAGES_CHECKSUM = HEADER_ENTRY, "images_crc32"
"""Entries of scores.json: the checksums of itself, and of images.npz."""
APART = ("seconds",)
"""Entries of scores.json that have a checksum of their own: the times, which are others each time."""
MOST_UNPACKED, RATIO = 1 << 26, 200
"""Bytes that images.npz may have when it is unpacked, and for each of its own, of which zeros make up to a thousand."""


@dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation as it was read from its folder.

    Attributes:
        folder: The folder.
        report: The content of scores.json.
        class_names: Names of the C classes.
        evaluation: What was counted in every image.
        refined: The evaluations of its refinement by a dense CRF, by each number of iterations that was asked for.
        left_out: Metrics that are not known here, such as those of a plugin, and what would make them known.
    """

    folder: Path
    report: dict[str, Any]
    class_names: tuple[str, ...]
    evaluation: Evaluation
    refined: tuple[SavedEvaluation, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def make_report(evaluation: Evaluation, class_names: tuple[str, ...], about: dict[str, Any]) -> dict[str, Any]:
    """The content of scores.json: `about`, which says what was evaluated, and the scores. Shares are from 0 to 1."""
    scores, boundary = evaluation.everywhere, evaluation.measures["boundary"]
    interval = intervals(evaluation)
    return {
        "format": FORMAT,
        **about,
        "metrics": list(evaluation.counts),
        "made_with": loaded_plugins(),
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
    remove_leftovers(folder, FILES)
    (folder / SCORES_FILE).unlink(missing_ok=True)
    arrays: dict[str, Any] = {f"{COUNTS}{name}": counts for name, counts in evaluation.counts.items()}
    with replacing(folder / IMAGES_FILE) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, names=np.array(evaluation.names, np.str_), measures=np.array(MEASURES), **arrays)
    write_rows(folder / TABLE_FILE, _rows(evaluation, list(report["classes"])))
    with replacing(folder / SCORES_FILE) as temporary:
        content = {**report, "seconds": sealed(report["seconds"]), IMAGES_CHECKSUM: file_crc32(folder / IMAGES_FILE)}
        temporary.write_text(to_json(sealed(content, APART)), encoding="utf-8")


def _check(folder: Path, report: dict[str, Any]) -> None:
    """See whether scores.json and images.npz are what was written; older ones hold no checksums.

    Raises:
        ValueError: One is not.
    """
    found = [CHECKSUM in report, CHECKSUM in report["seconds"], IMAGES_CHECKSUM in report]
    if not any(found):
        return
    if not all(found) or any(each[CHECKSUM] != content_crc32(each, APART) for each in (report, report["seconds"])):
        raise ValueError(f"{SCORES_FILE} is damaged: it is not what was written, by its checksum")
    if report[IMAGES_CHECKSUM] != file_crc32(folder / IMAGES_FILE):
        raise ValueError(f"{IMAGES_FILE} is damaged: it is not what was written, by its checksum")


def _check_unpacked(path: Path) -> None:
    """See whether a zip file would become far larger than what was written ever does.

    Raises:
        ValueError: It would.
    """
    with zipfile.ZipFile(path) as file:
        total = sum(each.file_size for each in file.infolist())
    if total > MOST_UNPACKED + RATIO * path.stat().st_size:
        raise ValueError(f"{path.name} would have {total} bytes when it is unpacked")


def _check_types(report: dict[str, Any]) -> None:
    """See whether the entries of scores.json that are read are of their types.

    Raises:
        ValueError: One is missing, or of another type.
    """
    texts, mappings = ("checkpoint", "sha256", "split", "data"), ("classes", "seconds", "settings")
    for kind, names in ((str, texts), (dict, mappings), (int, ("images",))):
        if wrong := [name for name in names if not isinstance(report.get(name), kind)]:
            raise ValueError(f"{SCORES_FILE} has no {wrong[0]}, or one of another kind")
    if not all(isinstance(each, int | float) for name, each in report["seconds"].items() if name != CHECKSUM):
        raise ValueError("its times are no numbers")


def _rows(evaluation: Evaluation, class_names: Sequence[str]) -> Iterator[list[object]]:
    """A header, and a row for each image: its pixels, its scores, and the IoU of each class."""
    everywhere, scores = evaluation.counts[BUILT_IN][:, 0], evaluation.image_scores
    yield ["name", "pixels", *map(cell, scores), *(f"iou {name}" for name in class_names)]
    shares = np.column_stack([*scores.values(), iou(everywhere)])
    for name, pixels, row in zip(evaluation.names, everywhere[:, 1].sum(axis=-1).tolist(), shares.tolist()):
        yield [cell(name), pixels, *("" if math.isnan(share) else f"{share:.6f}" for share in row)]


def load_evaluation(folder: Path) -> SavedEvaluation:
    """Read the folder of an evaluation, without what metrics counted that are not known here.

    Raises:
        FileNotFoundError: One of its files is not there.
        ValueError: A file is damaged, or not of this format.
    """
    try:
        for name in (SCORES_FILE, IMAGES_FILE):
            if (folder / name).exists() and not (folder / name).is_file():
                raise ValueError(f"{name} is no file")
        report = read_json(folder / SCORES_FILE)
        if not isinstance(report, dict) or report.get("format") not in (FORMAT, FORMAT_1):
            raise ValueError(f"{SCORES_FILE} is not of the format {FORMAT!r}")
        _check_types(report)
        _check(folder, report)
        confusion = np.array(report["confusion"], np.int64)
        _check_unpacked(folder / IMAGES_FILE)
        with np.load(folder / IMAGES_FILE, allow_pickle=False) as content:
            names, measures = content["names"], content["measures"]
            if report["format"] == FORMAT_1:
                counts = {BUILT_IN: content["regions"]}
            else:
                counts = {name: content[f"{COUNTS}{name}"] for name in report["metrics"]}
        shape = (len(names), len(MEASURES), 3, len(report["classes"]))
        if tuple(measures) != MEASURES or counts[BUILT_IN].shape != shape or {*map(len, counts.values())} != {shape[0]}:
            raise ValueError(f"{IMAGES_FILE} holds other measures or sizes than {SCORES_FILE}")
        if confusion.shape != 2 * shape[-1:] or any(each.size and each.min() < 0 for each in counts.values()):
            raise ValueError("the confusion matrix is not one of these classes, or something was counted below 0")
    except FileNotFoundError:
        raise
    except Exception as error:  # of zip files, JSON, NumPy
        raise ValueError(
            f"{folder} cannot be read as an evaluation ({shortened(str(error))}); run `rmiseg evaluate` again to "
            "replace it"
        ) from error
    left_out = {}
    for name in counts:
        try:
            find_metric(name, report.get("made_with", ()))
        except ValueError as error:
            left_out[name] = str(error)
    counts = {name: each for name, each in counts.items() if name not in left_out}
    seconds = {name: value for name, value in report["seconds"].items() if name != CHECKSUM}
    evaluation = Evaluation(tuple(names.tolist()), confusion, counts, seconds)
    return SavedEvaluation(folder, report, tuple(report["classes"]), evaluation, left_out=left_out)


def evaluation_folder(checkpoint: Path, split: str, settings: dict[str, Any]) -> Path:
    """The folder that the evaluation of a checkpoint file goes to: evaluation/NAME in the folder of the run.

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
