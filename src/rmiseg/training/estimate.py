"""The plan of a training, and what it would cost, without training."""

from __future__ import annotations

import math
from dataclasses import fields, replace

from rich.console import Console
from rich.table import Table

from rmiseg.config import OpenConfig, PlanConfig, TrainConfig
from rmiseg.data import LabeledImages
from rmiseg.planning import GIGABYTE, Machine, Plan, planned_folds, this_machine
from rmiseg.planning.machine import RESERVED
from rmiseg.planning.memory import MemoryNeed
from rmiseg.planning.pace import Pace
from rmiseg.runtime.device import tune
from rmiseg.runtime.distributed import processes
from rmiseg.runtime.words import counted, rounded
from rmiseg.training.assembly import complete, open_splits, with_precision
from rmiseg.training.cost import measured_pace, memory_through, step_cost
from rmiseg.training.planned import OpenTraining, with_length
from rmiseg.training.schedule import training_length

CARDS = (4, 6, 8, 10, 11, 12, 16, 24, 32, 40, 48, 64, 80, 96, 141, 192)
"""Gigabytes of memory that GPUs have."""
ACCUMULATED = (2, 4, 8)
BYTES = 4
"""Bytes of a weight."""


def show_plan(config: PlanConfig, console: Console) -> Plan:
    """Print the decisions of a training and its cost.

    Args:
        config: The options, of which those that nobody gave are open.
        console: Where to print.

    Raises:
        ValueError, OSError: As the training would: anything wrong with the options or the data; and hours together with
            another GPU, on which nothing can be measured.
    """
    if config.gpu is not None and config.train.hours is not None:
        raise ValueError("train.hours is measured on the machine itself: leave --gpu out, or give train.steps")
    with processes(config.device) as device:
        machine = this_machine(device, config.gpu)
        tune(device)
        asked = complete(OpenConfig(**{each.name: getattr(config, each.name) for each in fields(OpenConfig)}))
        assert isinstance(asked, OpenConfig)
        asked = with_precision(asked, machine.bf16)
        if asked.data.folds is not None:
            data, parts = planned_folds(asked, asked.data.folds, console)
            hours = asked.train.hours and asked.train.hours / len(parts)
            data = replace(data, folds=None, held_out=parts[0])
            asked = replace(asked, data=data, train=replace(asked.train, hours=hours))
            console.print(f"What follows is for one of the {len(parts)} folds", markup=False)
        opened = OpenTraining(asked, console=console)
        before = opened.on_data()
        asked = opened.with_decided(before)
        train, val = open_splits(asked.data, console)
        asked = replace(asked, data=replace(asked.data, **train.bands.options()))
        plan = OpenTraining(asked, console=console).plan(train, val, machine, device, before)
        settled = with_length(plan.config, train, val, device, console)
        console.print(f"Planned for {machine}: {len(train)} images, {len(train.classes)} classes", markup=False)
        plan.show(console)
        pace = None if config.gpu is not None else measured_pace(settled, train, val, device, console)
        console.print(cost_table(settled, train, pace, machine))
    return plan


def cost_table(config: TrainConfig, train: LabeledImages, pace: Pace | None, machine: Machine) -> Table:
    """Parameters, operations, time, disk, and memory on GPUs of a training.

    Args:
        config: The options, complete.
        train: The images to train on.
        pace: Times on this machine; None if it is not the one to plan for.
        machine: The machine to plan for.
    """
    classes = len(train.classes)
    batches = len(train) * config.data.repeat // config.data.batch_size
    if batches < 1:
        raise ValueError(
            f"the training split has {len(train)} images, fewer than one batch of {config.data.batch_size}: lower "
            "data.batch_size, or raise data.repeat"
        )
    epochs, _, total = training_length(config, batches)
    cost = step_cost(config, classes)
    table = Table("cost", "", title="Cost of the training")
    table.add_row("parameters", f"{cost.parameters / 1e6:.1f} million")
    images = config.data.batch_size * config.train.accumulate
    table.add_row("length", f"{counted(total, 'step')} of {counted(images, 'image')}, {counted(epochs, 'epoch')}")
    unforeseen = "not to be foreseen: the network looks at numbers as it goes"
    step = (cost.operations or 0) * config.train.accumulate
    operations = f"{step / 1e12:.2f} * 10^12 a step, {step * total / 1e15:.3g} * 10^15 in all"
    table.add_row("operations", operations if step else unforeseen)
    if pace is not None:
        evaluations = math.ceil(epochs / config.train.val_every)
        table.add_row("time of a step", f"{rounded(pace.step)} s, measured on {machine}")
        hours = pace.hours(total, evaluations)
        scoring = f"{counted(evaluations, 'evaluation')} of {rounded(pace.evaluation)} s"
        table.add_row("time", f"{rounded(hours)} hours, with {scoring}")
    table.add_row("disk", f"{disk_space(config, cost.parameters) / GIGABYTE:.1f} GB")
    batch = config.data.batch_size
    other = max(batch // 2, 2) if batch != 2 else 4
    foreseen = cost.memory is not None
    need = memory_through(cost, step_cost(config, classes, other, count_operations=False)) if foreseen else None
    table.add_row(
        "memory of a GPU", fitting_cards(need, batch, config.train.accumulate) if need is not None else unforeseen
    )
    return table


def disk_space(config: TrainConfig, parameters: int) -> int:
    """Bytes that the folder of a run takes at most: checkpoints last, best and kept, and two states to go on from."""
    moments = {"sgd": 1, "adamw": 2}[config.optim.name]
    return BYTES * parameters * (2 + config.train.keep + 2 * (1 + moments))


def fitting_cards(need: MemoryNeed, batch: int, accumulate: int) -> str:
    """The GPUs whose memory is enough, in words; and what they may be with smaller batches that add up.

    Args:
        need: Memory of a step.
        batch: Images in a batch.
        accumulate: Batches in a step.
    """
    peak = need.of(batch)
    fits = _card(peak)
    if fits is None:
        text = f"{peak / GIGABYTE:.1f} GB at the peak: fits no GPU"
    else:
        smaller = [card for card in CARDS if card < fits]
        text = f"{peak / GIGABYTE:.1f} GB at the peak: fits {fits} GB"
        text += f", does not fit {smaller[-1]}" if smaller else ""
    best = fits
    for times in ACCUMULATED:
        card = _card(need.of(batch // times)) if batch % times == 0 and batch // times >= 2 else None
        if card is not None and (best is None or card < best):
            text += f"; with batch_size {batch // times} and accumulate {accumulate * times} it fits {card}"
            best = card
    return text


def _card(size: float) -> int | None:
    return next((card for card in CARDS if card * GIGABYTE * (1 - RESERVED) >= size), None)
