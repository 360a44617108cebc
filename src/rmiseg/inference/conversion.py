"""Checkpoints of other programs: their weights as initial ones, and as checkpoints of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from torch import Tensor

from rmiseg.config import ConvertConfig, DataConfig, ModelConfig
from rmiseg.config.registry import GIVEN
from rmiseg.data import ClassTable
from rmiseg.data.classes import IGNORE_INDEX, voc_palette
from rmiseg.data.sets.ade20k import CLASSES as ADE20K
from rmiseg.data.sets.camvid import CLASSES as CAMVID
from rmiseg.data.sets.camvid import WITH_VOID
from rmiseg.data.sets.cityscapes import CLASSES as CITYSCAPES
from rmiseg.data.sets.voc import CLASSES as VOC
from rmiseg.inference.checkpoint import (
    CHECKPOINTS,
    FORMAT,
    PRETRAINED_CONFIG,
    PRETRAINED_FORMAT,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from rmiseg.inference.describing import Description, describe, saved_settings
from rmiseg.models import build_model
from rmiseg.models.conversion import Family, Fit, fit, recognize
from rmiseg.models.conversion.original import ORIGINAL
from rmiseg.models.original import IMAGE_STATISTICS
from rmiseg.models.weights import load_file, read_weights
from rmiseg.runtime.places import check_places, check_room
from rmiseg.runtime.words import some

CLASS_TABLES: dict[str, tuple[ClassTable, ...]] = {
    "voc": (VOC,),
    "cityscapes": (CITYSCAPES["labelIds"],),
    "camvid": (CAMVID, WITH_VOID),
    "ade20k": (ADE20K,),
}
AUXILIARY = "auxiliary."
"""Beginning of the names of a head that training alone uses, which files made for predicting may lack."""


def initial_weights(path: str | Path) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Weights of a checkpoint or run of this package, or of a file or folder of another program, as it names them.

    Returns:
        The weights; and the names of the classes, of this package's alone.

    Raises:
        FileNotFoundError: There is no such file, or no weights in the folder.
        ValueError: The file is damaged, or holds objects other than tensors and plain values; or it is an ensemble.
    """
    path = Path(path)
    if not _is_own(path):
        return read_weights(path), ()
    checkpoint = load_checkpoint(path)
    if checkpoint.members > 1:
        raise ValueError(
            f"{path} is an ensemble of {checkpoint.members} networks: name one of them, such as its fold-1"
        )
    return checkpoint.weights, checkpoint.classes.names


def initial_network(path: str | Path) -> ModelConfig | None:
    """The network of a checkpoint or run of this package; None for files of other programs, and for networks that were
    given in Python.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged.
    """
    model = load_checkpoint(path).model if _is_own(Path(path)) else None
    return None if model is None or model.name.startswith(GIVEN) else model


def _is_own(path: Path) -> bool:
    if (path / PRETRAINED_CONFIG).is_file():
        return saved_settings(path).get("format") == PRETRAINED_FORMAT
    if (path / CHECKPOINTS).is_dir() or not path.exists():
        return True  # which says what is missing
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    content = load_file(path)
    return isinstance(content, dict) and str(content.get("format", "")) == FORMAT


def convert(config: ConvertConfig, console: Console) -> Checkpoint:
    """Write the model of another program as a checkpoint of this package.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: The file to write exists.
        ValueError: It holds no whole model that this package has; the message says what is missing.
    """
    source, out = Path(config.source), Path(config.out)
    if out.exists() and not config.overwrite:
        raise FileExistsError(f"{out} exists; choose another file with --out, or replace it with --overwrite")
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    check_places(files=[out])
    check_room(out.absolute().parent)
    if _is_own(source):
        raise ValueError(f"{find_checkpoint(source)} is a checkpoint of rmiseg already")
    state = read_weights(source)
    family = recognize(state)
    found = describe(state, family, source, config)
    description, num_classes = found.model, found.num_classes
    table = _class_table(config.data, found)
    options = {name: value for name, value in asdict(description).items() if name != "weights"}
    model = build_model(num_classes=num_classes, weights="none", architecture=found.architecture, **options)
    fitted = fit(state, model)
    lacking = [f"missing {name}" for name in fitted.missing if not name.startswith(AUXILIARY)] + fitted.misshapen
    further = [name for name in fitted.unused if re.match(family.needed, name)]
    if lacking or further:
        what = f"does not hold all of {description}: {some(lacking)}" if lacking else f"is no {description}"
        alone = f"; the file alone has {some(further or fitted.unused)}" if fitted.unused else ""
        raise ValueError(
            f"{source} ({family.title}) {what}{alone}. As far as it fits, it can be the beginning of a training: --init"
        )
    model.load_state_dict(fitted.found, strict=False)
    data = _data(config.data, family, num_classes)
    if found.settings:
        data = replace(data, **found.settings.other_statistics(model.image_mean, model.image_std))
    checkpoint = Checkpoint(
        weights=model.state_dict(),
        model=description,
        data=data,
        classes=table,
        step=0,
        scores={},
        architecture=model.architecture,
        align_corners=model.align_corners,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, checkpoint)
    _report(out, checkpoint, found, fitted, console)
    return checkpoint


def _report(out: Path, checkpoint: Checkpoint, found: Description, fitted: Fit, console: Console) -> None:
    """Say what was written, and all that the file does not say or that is otherwise here."""
    made = f"{found.model} of {fitted.family.title}, {found.num_classes} classes, {len(fitted.found)} tensors"
    lines = [f"{out}: {made}"]
    if found.guessed_stride:
        lines.append(f"Output stride {found.model.output_stride}, as usual; the file does not tell it: --output_stride")
    if fitted.doubled:
        lines.append("Its only class, behind a sigmoid, is class 1 of two, with the same probabilities")
    if found.classes and checkpoint.classes.names == found.classes[0]:
        lines.append(f"Classes by the file: {some(found.classes[0])}")
    if fitted.missing:
        lines.append("The auxiliary head, which training alone uses, is not in the file, and random")
    if fitted.unused:
        lines.append(f"Left out: {some(fitted.unused)}")
    if found.model.options:
        options = ", ".join(f"{name}: {str(value).lower()}" for name, value in found.model.options.items())
        lines.append(f"A training that goes on with it needs --model.options '{{{options}}}'")
    for line in lines:
        console.print(line, soft_wrap=True)


def _class_table(data: str | None, found: Description) -> ClassTable:
    """Return the classes of a data set; or those that the file names, or else numbers."""
    num_classes = found.num_classes
    if data is None:
        values = tuple(range(num_classes))
        if found.classes:
            try:
                return ClassTable(found.classes[0], values, (IGNORE_INDEX,), found.classes[1])
            except (ValueError, TypeError):  # whatever somebody wrote there
                pass
        names = tuple(f"class {value}" for value in values)
        return ClassTable(names, values, (IGNORE_INDEX,), voc_palette(num_classes))
    tables = CLASS_TABLES.get(data)
    if tables is None:
        raise ValueError(f"--data {data} is none of {', '.join(CLASS_TABLES)}, whose classes are known; leave it out")
    table = next((table for table in tables if len(table) == num_classes), None)
    if table is None:
        raise ValueError(f"the model has {num_classes} classes, and {data} has {len(tables[0])}")
    return table


def _data(name: str | None, family: Family, num_classes: int) -> DataConfig:
    data = DataConfig(name=name or "folder")
    if name == "camvid" and num_classes == len(WITH_VOID):
        data = replace(data, options={"void": True})
    if family is ORIGINAL and name in IMAGE_STATISTICS:
        mean, std = IMAGE_STATISTICS[name]
        data = replace(data, image_mean=mean, image_std=std)
    return data
