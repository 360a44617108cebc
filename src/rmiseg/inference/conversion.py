"""Checkpoints of other programs: their weights as initial ones, and as checkpoints of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from rmiseg.config import ConvertConfig, DataConfig, ModelConfig
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
from rmiseg.models import build_model
from rmiseg.models.conversion import Family, Fit, fit, recognize
from rmiseg.models.conversion.mmsegmentation import MMSEGMENTATION
from rmiseg.models.conversion.original import ORIGINAL
from rmiseg.models.conversion.own import OWN
from rmiseg.models.conversion.smp_files import SMP, saved_options
from rmiseg.models.conversion.timm_files import TIMM
from rmiseg.models.conversion.torchvision_files import LAST_LAYERS, TORCHVISION, torchvision_name
from rmiseg.models.external.wrapped import IMAGENET
from rmiseg.models.original import IMAGE_STATISTICS
from rmiseg.models.weights import load_file, read_weights
from rmiseg.runtime.files import read_json
from rmiseg.runtime.places import check_places, check_room

CLASS_TABLES: dict[str, tuple[ClassTable, ...]] = {
    "voc": (VOC,),
    "cityscapes": (CITYSCAPES["labelIds"],),
    "camvid": (CAMVID, WITH_VOID),
    "ade20k": (ADE20K,),
}
DEPTHS = {8: "26", 16: "50", 33: "101", 50: "152"}
"""Depths of ResNets of bottlenecks by the number of their blocks."""

AS_A_BEGINNING = "A backbone alone goes into a training as --model.weights, and what fits of a whole model as --init"
ADVICE = f"{AS_A_BEGINNING}. Is it a model of another library? Name it: --model smp:NAME --backbone ENCODER"
AUXILIARY = "auxiliary."
"""Beginning of the names of a head that training alone uses, which files made for predicting may lack."""
SHALLOW = {8: "18", 16: "34"}
"""Depths of ResNets of basic blocks by the number of their blocks."""


def initial_weights(path: str | Path) -> Mapping[str, Tensor]:
    """Weights of a checkpoint or run of this package, or of a file or folder of another program, as it names them.

    Raises:
        FileNotFoundError: There is no such file, or no weights in the folder.
        ValueError: The file is damaged, or holds objects other than tensors and plain values; or it is an ensemble.
    """
    path = Path(path)
    if not _is_own(path):
        return read_weights(path)
    checkpoint = load_checkpoint(path)
    if checkpoint.members > 1:
        raise ValueError(
            f"{path} is an ensemble of {checkpoint.members} networks: name one of them, such as its fold-1"
        )
    return checkpoint.weights


def _is_own(path: Path) -> bool:
    if (path / PRETRAINED_CONFIG).is_file():
        return _settings(path).get("format") == PRETRAINED_FORMAT
    if (path / CHECKPOINTS).is_dir() or not path.exists():
        return True  # which says what is missing
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    content = load_file(path)
    return isinstance(content, dict) and str(content.get("format", "")) == FORMAT


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = read_json(folder / PRETRAINED_CONFIG)
    except ValueError as error:
        raise ValueError(f"{folder / PRETRAINED_CONFIG} is no JSON: {error}") from error
    return settings if isinstance(settings, dict) else {}


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
    found = _describe(state, family, source, config)
    description, num_classes = found.model, found.num_classes
    table = _class_table(config.data, num_classes)
    options = {name: value for name, value in asdict(description).items() if name != "weights"}
    model = build_model(num_classes=num_classes, weights="none", architecture=found.architecture, **options)
    fitted = fit(state, model)
    if lacking := [f"missing {name}" for name in fitted.missing if not name.startswith(AUXILIARY)] + fitted.misshapen:
        raise ValueError(
            f"{source} ({family.title}) does not hold all of {description}: {_some(lacking)}"
            f"{'; the file alone has ' + _some(fitted.unused) if fitted.unused else ''}. As far as it fits, it can be "
            "the beginning of a training: --init"
        )
    model.load_state_dict(fitted.found, strict=False)
    data = _data(config.data, family, num_classes)
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
    _report(out, found, fitted, console)
    return checkpoint


def _report(out: Path, found: Description, fitted: Fit, console: Console) -> None:
    """Say what was written, and all that the file does not say or that is otherwise here."""
    made = f"{found.model} of {fitted.family.title}, {found.num_classes} classes, {len(fitted.found)} tensors"
    lines = [f"{out}: {made}"]
    if found.guessed_stride:
        lines.append(f"Output stride {found.model.output_stride}, as usual; the file does not tell it: --output_stride")
    if fitted.doubled:
        lines.append("Its only class, behind a sigmoid, is class 1 of two, with the same probabilities")
    if fitted.missing:
        lines.append("The auxiliary head, which training alone uses, is not in the file, and random")
    if fitted.unused:
        lines.append(f"Left out: {_some(fitted.unused)}")
    for line in lines:
        console.print(line, soft_wrap=True)


@dataclass(frozen=True)
class Description:
    """Way in which the model of a file is built.

    Attributes:
        model: Options of the network.
        num_classes: Number of its classes; 2 where the file has one, behind a sigmoid.
        architecture: What else it is built from, see `rmiseg.models.SegmentationModel`.
        guessed_stride: True if the output stride is that of most networks of the program, and matters.
    """

    model: ModelConfig
    num_classes: int
    architecture: dict[str, Any] | None = None
    guessed_stride: bool = False


def _describe(state: Mapping[str, Tensor], family: Family, source: Path, config: ConvertConfig) -> Description:
    """Say how the model of a file is built, and how many classes it has."""
    settings = _settings(source) if (source / PRETRAINED_CONFIG).is_file() else {}
    if config.model is None and family is SMP and settings.get("_model_class"):
        return _of_saved_smp(settings, source, config)
    if config.model is None and family is TORCHVISION and (name := torchvision_name(state)):
        classes = next(state[key] for key in LAST_LAYERS if key in state)
        auxiliary = {} if "aux_classifier.4.weight" in state else {"auxiliary": False}
        return Description(
            _overridden(ModelConfig(f"torchvision:{name}"), config), _classes(classes), {**IMAGENET, **auxiliary}
        )
    names = {ours: tensor for name, tensor in state.items() if (ours := family.own_name(name))}
    heads = {"pyramid.": "pspnet", "low_level.": "deeplabv3plus", "aspp.": "deeplabv3"}
    head = next((head for mark, head in heads.items() if any(name.startswith(mark) for name in names)), None)
    classifier = next((n for n in ("classifier.2.weight", "classifier.weight") if n in names), None)
    if config.model is None and (head is None or classifier is None or family is OWN):
        raise ValueError(f"{source} {_unknown(family)}. It holds {_some(list(state))}. {ADVICE}")
    num_classes = _classes(names[classifier] if classifier else list(state.values())[-1])
    if config.model is not None:
        return Description(_overridden(ModelConfig(), config), num_classes)
    options = dict(family.options)
    if head == "deeplabv3" and "refine.conv.weight" in names:
        options["refine"] = True
    backbone = config.backbone or _resnet(names, family)
    stride = config.output_stride or family.output_stride
    if head == "deeplabv3" and family is not ORIGINAL and stride != family.output_stride:
        if family is SMP:
            name = f"tu-{backbone}" if "encoder.model.conv1.weight" in state else backbone
            return Description(ModelConfig("smp:DeepLabV3", name, "none", config.output_stride), num_classes)
        raise ValueError(
            f"--output_stride {stride}: DeepLabv3 of {family.title} has the rates 12, 24 and 36 at any output stride, "
            f"and deeplabv3 here at {family.output_stride} alone; leave it out"
        )
    model = ModelConfig(
        head or "",
        backbone,
        output_stride=stride,  # type: ignore[arg-type]  # 8 or 16
        compat="original" if family is ORIGINAL else None,
        options=options,
    )
    guessed = config.output_stride is None and family is not TORCHVISION
    return Description(_overridden(model, config), num_classes, guessed_stride=guessed)


def _of_saved_smp(settings: Mapping[str, Any], source: Path, config: ConvertConfig) -> Description:
    """Describe a model of segmentation-models-pytorch by the settings that are saved with it."""
    if (channels := settings.get("in_channels", 3)) != 3:
        raise ValueError(
            f"{source} takes images of {channels} channels, and does not say what they are. {AS_A_BEGINNING}"
        )
    stride = settings.get("encoder_output_stride")
    model = ModelConfig(f"smp:{settings['_model_class']}", settings["encoder_name"], output_stride=stride)
    return Description(
        _overridden(model, config), max(int(settings["classes"]), 2), {"options": saved_options(settings)}
    )


def _classes(last: Tensor) -> int:
    """The number of classes of a last layer; two of a single one, behind a sigmoid."""
    return max(len(last) if last.ndim else 0, 2)


def _unknown(family: Family) -> str:
    """Say what is wrong with a file of which no whole model is known."""
    if family is SMP:
        return "is of segmentation-models-pytorch, and does not say of which of its models"
    if family is MMSEGMENTATION:
        return "is of mmsegmentation, of whose heads that of PSPNet alone is one of rmiseg"
    return f"holds no whole model that rmiseg knows{'' if family is TIMM else f', but something of {family.title}'}"


def _overridden(found: ModelConfig, config: ConvertConfig) -> ModelConfig:
    if config.model is not None:
        found = ModelConfig(config.model, compat=None, output_stride=None)
    return replace(
        found,
        weights="none",
        backbone=config.backbone or found.backbone,
        output_stride=config.output_stride or found.output_stride,
    )


def _resnet(names: Mapping[str, Tensor], family: Family) -> str:
    """Name the ResNet of a file, by its blocks and its first convolutions."""
    body = {name.removeprefix("backbone.body."): tensor for name, tensor in names.items() if "backbone.body." in name}
    blocks = {found[0] for name in body if (found := re.match(r"layer\d\.\d+\.", name))}
    deep = "layer1.0.conv3.weight" in body
    depth = (DEPTHS if deep else SHALLOW).get(len(blocks))
    stem = body.get("conv1.0.weight")
    if family is MMSEGMENTATION and "layer1.0.downsample.2.weight" in body:
        raise ValueError(
            "the backbone is a ResNetV1d of mmsegmentation, whose dilated stages average no pixels where timm's "
            "average 2 x 2: no network of rmiseg has equal logits. It can be the beginning of a training: "
            "--model.backbone resnet50d, or 101d, and --init"
        )
    if depth is None or (stem is None and "conv1.weight" not in body):
        raise ValueError("the backbone of the file is no ResNet that rmiseg knows; name it: --backbone NAME")
    return f"resnet{depth}{'' if stem is None else {64: 's', 32: 'c'}.get(len(stem), '')}"


def _class_table(data: str | None, num_classes: int) -> ClassTable:
    if data is None:
        values = tuple(range(num_classes))
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


def _some(items: list[str], count: int = 6) -> str:
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")
