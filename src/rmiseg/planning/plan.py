"""The plan of a training: the rules in the order in which they need each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from rmiseg.config import ModelConfig, OpenConfig, TrainConfig
from rmiseg.config.registry import GIVEN
from rmiseg.models import DEFAULT_BACKBONE, takes_backbone
from rmiseg.models.weights import PACKAGES
from rmiseg.planning import images, network, schedule
from rmiseg.planning.decisions import Decision, Plan, closed, is_given, with_value
from rmiseg.planning.machine import Machine
from rmiseg.planning.memory import MemoryNeed
from rmiseg.planning.pace import Pace, steps_within
from rmiseg.planning.profile import DataProfile
from rmiseg.runtime.extras import is_installed

SOURCES = ("hub", "package", "none")
FEW_MASKS = 3
"""Masks of a class up to which a person should know of it."""


@dataclass(frozen=True)
class Measures:
    """Functions that measure what rules need; None for what cannot be measured.

    Attributes:
        weights: Where the weights of a backbone are to be had.
        origin: The network of a checkpoint that gives the initial weights; None of those of other programs.
        memory: Memory of a step with some options, on the device to plan for, if it can be foreseen.
        pace: Time of a step and of an evaluation with some options, on this machine.
        installed: Whether the packages of an extra are there.
    """

    weights: network.Weights
    origin: Callable[[str], ModelConfig | None] = lambda _: None
    memory: Callable[[TrainConfig], MemoryNeed | None] | None = None
    pace: Callable[[TrainConfig], Pace] | None = None
    installed: Callable[[str], bool] = is_installed


class _Deciding:
    """Options while they are being decided; what was given is left alone."""

    def __init__(self, config: OpenConfig, given: Iterable[str]) -> None:
        self.asked, self.given = config, set(given)
        self.config = closed(config)
        self.decisions: list[Decision] = []

    def is_open(self, option: str) -> bool:
        return option not in self.given and not is_given(self.asked, option)

    def is_begun(self, section: str) -> bool:
        """True if somebody gave something of a section."""
        return any(each.partition(".")[0] == section for each in (*self.given, *self.asked.given))

    def take(self, *decisions: Decision) -> None:
        for each in decisions:
            if self.is_open(each.option):
                self.config = with_value(self.config, each.option, each.value)
                self.decisions = [known for known in self.decisions if known.option != each.option] + [each]


def decide(
    config: OpenConfig, profile: DataProfile, machine: Machine, measures: Measures, given: Iterable[str] = ()
) -> Plan:
    """Decide all options that are open.

    Args:
        config: The options, complete.
        profile: Facts of the data.
        machine: Facts of the machine.
        measures: See there.
        given: Further options that are not to be decided, because objects stand in their place.

    Raises:
        ValueError: A budget of time that is not enough for a step.
    """
    deciding = _decided(config, profile, machine, measures, given)
    steps, scale = deciding.config.train.steps, deciding.config.data.image_scale
    timed = config.train.hours is not None and deciding.is_open("data.crop_size")
    if timed and steps is not None and schedule.is_hurried(steps, machine.device, scale):
        deciding = _decided(config, profile, machine, measures, given, hurried=True)
    return Plan(deciding.config, tuple(deciding.decisions), tuple(_notes(profile)))


def _decided(
    config: OpenConfig,
    profile: DataProfile,
    machine: Machine,
    measures: Measures,
    given: Iterable[str],
    hurried: bool = False,
) -> _Deciding:
    """All decisions; a training is hurried if there is no time for as many of the usual steps as it takes to learn."""
    deciding = _Deciding(config, given)
    _decide_network(deciding, profile, machine, measures)
    deciding.take(network.precision(machine))
    _decide_images(deciding, profile, machine.device, hurried)
    _decide_batches(deciding, profile, machine, measures.memory)
    _decide_length(deciding, profile, machine, measures.pace)
    deciding.take(network.workers(machine))
    return deciding


def _decide_network(deciding: _Deciding, profile: DataProfile, machine: Machine, measures: Measures) -> None:
    init, model, find = deciding.config.init, deciding.config.model, measures.weights
    free = all(map(deciding.is_open, (f"model.{name}" for name in network.OPTIONS)))
    if free and init is not None and (origin := measures.origin(init)) is not None:
        deciding.take(*network.of_checkpoint(init, origin))
        return
    if not model.name.startswith(GIVEN) and not model.compat and takes_backbone(model.name):
        if not deciding.is_open("model.backbone"):
            if deciding.is_open("model.weights"):
                deciding.take(network.weights(model.backbone or DEFAULT_BACKBONE, find))
        elif deciding.is_open("model.weights"):
            deciding.take(*network.backbone(machine, find))
        elif model.weights in SOURCES:  # a file says itself what it is of
            deciding.take(*network.backbone(machine, partial(_given_source, model.weights)))
    if free and measures.installed("smp"):
        chosen = network.unet(images.lines(profile), deciding.config.model.backbone)
        if chosen:
            for option, value in (("model.options", {}), ("model.output_stride", None)):  # those of the usual network
                deciding.config = with_value(deciding.config, option, value)
        deciding.take(*chosen)
    if init is None:  # whose head may be of the usual width
        deciding.take(*network.head_width(deciding.config.model.name, deciding.config.model.backbone))


def _given_source(source: str, backbone: str) -> str:
    """The source of weights that was given, for a backbone that may have none there."""
    return source if source != "package" or backbone in PACKAGES else "none"


def _decide_images(deciding: _Deciding, profile: DataProfile, device: str, hurried: bool) -> None:
    deciding.take(images.image_scale(profile, deciding.config.model.name == network.UNET, hurried))
    scale = deciding.config.data.image_scale
    deciding.take(images.crop_size(profile, scale, device, hurried))
    if deciding.is_open("data.scale_step"):
        deciding.take(*images.scales(profile))
    if deciding.config.data.transform == "scale-crop":  # others cannot be told where to look
        deciding.take(images.rare_share(profile, scale, deciding.config.data.crop_size))
    deciding.take(images.color_jitter(profile), *images.augment(profile))
    if not deciding.is_begun("loss"):  # what is given may be meant for another loss
        deciding.take(*images.loss(profile))
    if deciding.config.loss.name == "rmi":
        deciding.take(images.pool_size(profile, scale))


def _decide_batches(
    deciding: _Deciding,
    profile: DataProfile,
    machine: Machine,
    memory: Callable[[TrainConfig], MemoryNeed | None] | None,
) -> None:
    if deciding.is_open("data.batch_size"):
        need = memory(deciding.config) if memory is not None and machine.usable else None
        deciding.take(*schedule.batch_size(profile.images, machine, need))
    config = deciding.config
    if deciding.is_open("train.epochs"):
        deciding.take(schedule.repeat(profile.images, config.data.batch_size, config.train.accumulate))
    elif profile.images < config.data.batch_size:
        times = math.ceil(config.data.batch_size / profile.images)
        deciding.take(Decision("data.repeat", times, f"a batch of {profile.images} images"))


def _decide_length(
    deciding: _Deciding, profile: DataProfile, machine: Machine, pace: Callable[[TrainConfig], Pace] | None
) -> None:
    data, train = deciding.config.data, deciding.config.train
    step_images = data.batch_size * train.accumulate
    epoch_steps = math.ceil(profile.images * data.repeat // data.batch_size / train.accumulate)
    pixels = profile.val_images * math.prod(profile.size) * data.image_scale**2
    if train.hours is not None and pace is not None and deciding.is_open("train.steps"):
        decision = steps_within(train.hours, pace(deciding.config), epoch_steps, None)
        deciding.take(decision)
        deciding.config = with_value(deciding.config, "train.hours", None)
    elif deciding.is_open("train.epochs"):
        deciding.take(schedule.steps(profile.images, step_images, machine.device, data.image_scale))
    total = deciding.config.train.steps or train.epochs * epoch_steps
    deciding.take(schedule.val_every(total, epoch_steps, step_images * math.prod(data.crop_size), pixels))
    backbone = deciding.config.model.backbone
    if deciding.is_open("optim.lr"):  # a rate that is given is one of SGD, the default
        deciding.take(*schedule.optimizer(backbone))
    optim = deciding.config.optim
    deciding.take(*schedule.learning_rate(optim.name, backbone, step_images, total), schedule.norm_momentum(total))
    if train.strategy != "fsdp":  # which divides the weights
        deciding.take(*schedule.average(total))


def _notes(profile: DataProfile) -> list[str]:
    """Things that a person should know of the data."""
    looked = "the training split has" if profile.masks >= profile.images else "were looked at"
    few = [each for each in profile.classes if 0 < each.images <= FEW_MASKS < profile.masks]
    none = [each.name for each in profile.classes if not each.images]
    notes = [
        f"class {each.name} is in {each.images} of the {profile.masks} masks that {looked}: it can hardly be learned"
        for each in few
    ]
    if none:
        notes.append(f"no mask of the {profile.masks} that {looked} shows {', '.join(none[:8])}")
    if profile.ignored > 0.5:
        notes.append(f"{profile.ignored:.0%} of the pixels are ignored")
    if profile.images < 10:
        few_images = "there is one image" if profile.images == 1 else f"there are {profile.images} images"
        notes.append(f"{few_images} to train on: what is learned from so few may hold for them alone")
    return notes
