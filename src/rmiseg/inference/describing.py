"""Description of the model in a file of another program: its network, its options, its backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from rmiseg.config import ConvertConfig, ModelConfig
from rmiseg.config.parser import checked_options
from rmiseg.config.registry import find
from rmiseg.inference.checkpoint import PRETRAINED_CONFIG
from rmiseg.models.conversion import Family
from rmiseg.models.conversion.family import BODY
from rmiseg.models.conversion.mmsegmentation import DEEPLAB, HEAD, MMSEGMENTATION
from rmiseg.models.conversion.mmsegmentation_settings import Settings, read_classes, read_settings
from rmiseg.models.conversion.original import ORIGINAL
from rmiseg.models.conversion.own import OWN
from rmiseg.models.conversion.smp_files import SMP, saved_options
from rmiseg.models.conversion.timm_files import TIMM
from rmiseg.models.conversion.torchvision_files import LAST_LAYERS, TORCHVISION, torchvision_name
from rmiseg.models.deeplab import AUXILIARY_WIDTH
from rmiseg.models.external.wrapped import IMAGENET
from rmiseg.models.weights import load_file
from rmiseg.runtime.files import read_json
from rmiseg.runtime.words import some

HEADS = {"pyramid.": "pspnet", "low_level.": "deeplabv3plus", "aspp.": "deeplabv3", "lateral.": "upernet"}
"""Models of this package, by what a name in them begins with."""
DEPTHS = {8: "26", 16: "50", 33: "101", 50: "152"}
"""Depths of ResNets of bottlenecks by the number of their blocks."""
SHALLOW = {8: "18", 16: "34"}
"""Depths of ResNets of basic blocks by the number of their blocks."""
CONVNEXTS = {(18, 96): "tiny", (36, 96): "small", (36, 128): "base", (36, 192): "large", (36, 256): "xlarge"}
"""ConvNeXts by the number of their blocks and their first channels."""

AS_A_BEGINNING = "A backbone alone goes into a training as --model.weights, and what fits of a whole model as --init"
ADVICE = f"{AS_A_BEGINNING}. Is it a model of another library? Name it: --model smp:NAME --backbone ENCODER"


@dataclass(frozen=True)
class Description:
    """Way in which the model of a file is built.

    Attributes:
        model: Options of the network.
        num_classes: Number of its classes; 2 where the file has one, behind a sigmoid.
        architecture: What else it is built from, see `rmiseg.models.SegmentationModel`.
        guessed_stride: True if the output stride is that of most networks of the program, and matters.
        settings: What a file of mmsegmentation says of the network.
        classes: Names and colors of the classes that it says.
    """

    model: ModelConfig
    num_classes: int
    architecture: dict[str, Any] | None = None
    guessed_stride: bool = False
    settings: Settings | None = None
    classes: tuple[tuple[str, ...], tuple[Any, ...]] | None = None


def saved_settings(folder: Path) -> dict[str, Any]:
    """Return what stands in the config.json of a folder; nothing if that is no dictionary.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        settings = read_json(folder / PRETRAINED_CONFIG)
    except ValueError as error:
        raise ValueError(f"{folder / PRETRAINED_CONFIG} is no JSON: {error}") from error
    return settings if isinstance(settings, dict) else {}


def describe(state: Mapping[str, Tensor], family: Family, source: Path, config: ConvertConfig) -> Description:
    """Say how the model of a file is built, and how many classes it has.

    Args:
        state: The entries of the file.
        family: Family that it is of.
        source: The file or folder.
        config: What is said of it from outside.

    Raises:
        ValueError: It is no model of this package, or another than is said; the message names what is otherwise.
    """
    saved = saved_settings(source) if (source / PRETRAINED_CONFIG).is_file() else {}
    if config.model is None and family is SMP and saved.get("_model_class"):
        return _of_saved_smp(saved, source, config)
    if config.model is None and family is TORCHVISION and (name := torchvision_name(state)):
        classes = next(state[key] for key in LAST_LAYERS if key in state)
        auxiliary = {} if "aux_classifier.4.weight" in state else {"auxiliary": False}
        return Description(
            _overridden(ModelConfig(f"torchvision:{name}"), config), _classes(classes), {**IMAGENET, **auxiliary}
        )
    names = {ours: tensor for name, tensor in state.items() if (ours := family.own_name(name))}
    head = next((head for mark, head in HEADS.items() if any(name.startswith(mark) for name in names)), None)
    last = next((n for n in ("classifier.2.weight", "classifier.weight") if n in names and names[n].ndim > 1), None)
    if config.model is not None:
        classes = names[last] if last else list(state.values())[-1]
        return Description(_overridden(ModelConfig(), config), _classes(classes))
    content = load_file(source) if family in MMSEGMENTATION else None
    settings = read_settings(content)
    if head is None or last is None or family is OWN:
        raise ValueError(f"{source} {_unknown(family, state, settings)}. It holds {some(state)}. {ADVICE}")
    num_classes = _classes(names[last])
    stride = _output_stride(family, settings, source, config)
    _check_dilation(names, family, stride)
    backbone = config.backbone or _backbone(names, settings)
    if head == "deeplabv3" and family not in (ORIGINAL, DEEPLAB) and stride != family.output_stride:
        if family is SMP:
            name = f"tu-{backbone}" if "encoder.model.conv1.weight" in state else backbone
            return Description(ModelConfig("smp:DeepLabV3", name, "none", config.output_stride), num_classes)
        raise ValueError(
            f"--output_stride {stride}: DeepLabv3 of {family.title} has the rates 12, 24 and 36 at any output stride, "
            f"and deeplabv3 here at {family.output_stride} alone; leave it out"
        )
    options = dict(family.options) | ({"align_corners": True} if settings and settings.align_corners else {})
    model = ModelConfig(
        head,
        backbone,
        output_stride=stride,  # type: ignore[arg-type]  # 8, 16 or 32
        compat="original" if family is ORIGINAL else None,
        options=options | _told(head, names, names[last]),
    )
    told = config.output_stride or (settings and settings.output_stride) or family is TORCHVISION
    return Description(_overridden(model, config), num_classes, None, not told, settings, read_classes(content))


def _told(head: str, names: Mapping[str, Tensor], last: Tensor) -> dict[str, Any]:
    """Return the options of a model that names and shapes tell, where they are not the defaults."""
    project = names.get("aspp.project.conv.weight")
    auxiliary = names.get("auxiliary.0.conv.weight")
    told = {
        "width": last.shape[1],
        "project_kernel": 3 if project is not None and project.shape[2:] == (3, 3) else 1,
        "separable": "decoder.0.depthwise.conv.weight" in names,
        "refine": "refine.conv.weight" in names,
        "norm_features": "norms.0.weight" in names,
        "auxiliary": auxiliary is not None and auxiliary.shape[:1] == (AUXILIARY_WIDTH,),
    }
    defaults = checked_options(find("model", head), {}, "model.options")
    return {name: value for name, value in told.items() if name in defaults and value != defaults[name]}


def _output_stride(family: Family, settings: Settings | None, source: Path, config: ConvertConfig) -> int:
    if settings and settings.differences:
        raise ValueError(
            f"{source}: by the configuration in it, the network has {' and '.join(settings.differences)}, and no model "
            "of rmiseg has that. As far as it fits, it can be the beginning of a training: --init"
        )
    said = settings.output_stride if settings else None
    if said and config.output_stride not in (said, None):
        raise ValueError(f"--output_stride {config.output_stride}: the configuration in {source} says {said}")
    return config.output_stride or said or family.output_stride


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


def _unknown(family: Family, state: Mapping[str, Tensor], settings: Settings | None) -> str:
    """Say what is wrong with a file of which no whole model is known."""
    if family is SMP:
        return "is of segmentation-models-pytorch, and does not say of which of its models"
    if family in MMSEGMENTATION:
        parts = [".".join(name.split(".")[:2]) for name in state if re.match(HEAD, name)]
        head = f"{settings.head if settings and settings.head else 'a head'} of {some(dict.fromkeys(parts))}"
        return (
            f"is of mmsegmentation, with {head}: no model of rmiseg has that, but those of PSPNet, DeepLabV3, "
            "DeepLabV3+ and UPerNet"
        )
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


def _check_dilation(names: Mapping[str, Tensor], family: Family, stride: int) -> None:
    """Refuse ResNets whose dilated stages are others than timm's.

    Raises:
        ValueError: It is one of these, and stages of it are dilated.
    """
    if family not in MMSEGMENTATION or stride == 32:
        return
    if f"{BODY}layer1.0.downsample.2.weight" in names:
        raise ValueError(
            "the backbone is a ResNetV1d of mmsegmentation, whose dilated stages average no pixels where timm's "
            "average 2 x 2: no network of rmiseg has equal logits. It can be the beginning of a training: "
            "--model.backbone resnet50d, or 101d, and --init"
        )
    if f"{BODY}layer1.0.conv1.weight" in names and f"{BODY}layer1.0.conv3.weight" not in names:
        raise ValueError(
            "the backbone is a ResNet-18 or 34 of mmsegmentation, whose dilated stages dilate the first convolution "
            "of a block where timm's dilate both: no network of rmiseg has equal logits. It can be the beginning of a "
            "training: --model.backbone resnet18, or 34, and --init"
        )


def _backbone(names: Mapping[str, Tensor], settings: Settings | None) -> str:
    """Name the backbone of a file, by its blocks and its first convolutions."""
    body = {name.removeprefix(BODY): tensor for name, tensor in names.items() if name.startswith(BODY)}
    blocks = len({found[0] for name in body if (found := re.match(r"(layer|stages\.)\d\.(blocks\.)?\d+\.", name))})
    depth = (DEPTHS if "layer1.0.conv3.weight" in body else SHALLOW).get(blocks)
    convnext = CONVNEXTS.get((blocks, len(body.get("stem.0.weight", ()))))
    stem = len(body.get("conv1.0.weight", ()))
    if "stages.0.blocks.0.conv_dw.weight" in body and convnext:
        name = f"convnext_{convnext}"
    elif depth and (stem or "conv1.weight" in body):
        averaging = "layer2.0.downsample.2.weight" in body
        name = f"resnet{depth}" + {64: "s", 32: "d" if averaging else "c"}.get(stem, "")
    else:
        parts = some(dict.fromkeys(name.split(".")[0] for name in body))
        raise ValueError(
            f"the backbone of the file{f', {settings.backbone},' if settings else ''} has {parts}: it is no ResNet or "
            f"ConvNeXt that rmiseg knows. If timm has these entries, name it: --backbone. {AS_A_BEGINNING}"
        )
    if not timm.is_model(name):
        raise ValueError(f"the backbone of the file is {name}, which timm does not have. {AS_A_BEGINNING}")
    return name
