"""The plan of a training on this machine: what `rmiseg.planning` decides, with what only a training can measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from rich.console import Console

from rmiseg.config import OpenConfig, TrainConfig
from rmiseg.config.effects import check_needed
from rmiseg.data import LabeledImages, Split
from rmiseg.inference.conversion import initial_network
from rmiseg.models.weights import source_of_weights
from rmiseg.planning import Machine, Plan, decide, planned_name, planned_val, profile_data, with_name
from rmiseg.planning.decisions import Decision, is_given, with_value
from rmiseg.planning.pace import Pace, steps_within
from rmiseg.planning.plan import Measures
from rmiseg.runtime.distributed import world_size
from rmiseg.training.assembly import complete
from rmiseg.training.cost import measured_pace, memory_need
from rmiseg.training.parts import REPLACED
from rmiseg.training.schedule import training_length


@dataclass(frozen=True)
class OpenTraining:
    """A training whose options are open.

    Attributes:
        config: Its options, complete but for those that are open.
        replaced: Parts that are given as objects, of data, transform, model and loss; their options are not decided.
        console: Where to say what is going on.
    """

    config: OpenConfig
    replaced: tuple[str, ...] = ()
    console: Console | None = None

    def on_data(self) -> tuple[Decision, ...]:
        """The decisions that come before the data are opened: on their kind, and on the images to score on."""
        data, given = self.config.data, partial(is_given, self.config)
        if "data" in self.replaced:
            return ()
        if (known := planned_name(self.config)) is not None:
            return (known,)
        if data.held_out is not None or any(map(given, ("data.options", "data.train_split", "data.val_split"))):
            return ()
        chosen = planned_val(data, self.console)
        return () if chosen is None else (chosen,)

    def with_decided(self, decisions: Sequence[Decision]) -> OpenConfig:
        """The options with what was decided of them."""
        config = self.config
        for each in decisions:
            named = each.option == "data.name"
            config = with_name(config, each.value) if named else with_value(config, each.option, each.value)
        return config

    def plan(
        self,
        train: LabeledImages,
        val: LabeledImages,
        machine: Machine,
        device: torch.device,
        before: Sequence[Decision],
    ) -> Plan:
        """Decide what is open.

        Args:
            train: The images to train on.
            val: The images to score on.
            machine: The machine to plan for.
            device: The device of this machine.
            before: What was decided before the data were opened.

        Raises:
            ValueError: Images that are no files, of which nothing can be known, or nothing to learn from; or an option
                that does nothing beside others.
        """
        if not isinstance(train, Split) or not isinstance(val, Split):
            raise ValueError("plan: options are decided from image files; data that are given in Python say nothing")
        classes = len(train.classes)
        measures = Measures(
            weights=source_of_weights,
            origin=cache(initial_network),  # which may be asked twice
            memory=None if self.replaced else lambda config: memory_need(complete(config), classes),
            pace=lambda config: pace(complete(config), train, val, device, self.console or Console(quiet=True)),
        )
        given = [option for part in self.replaced for option in (*REPLACED[part], f"{part}.weights")]
        plan = decide(self.config, profile_data(train, val, self.console), machine, measures, given)
        check_needed(plan.config, self.config.on_command_line)
        return replace(plan, config=complete(plan.config), decisions=(*before, *plan.decisions))


def pace(config: TrainConfig, train: LabeledImages, val: LabeledImages, device: torch.device, console: Console) -> Pace:
    """Time of a step and of an evaluation, see `measured_pace`.

    Raises:
        ValueError: Several processes would have to measure together.
    """
    if world_size() > 1:
        raise ValueError("train.hours measures a step in one process; with several of them give train.steps")
    return measured_pace(config, train, val, device, console)


def with_length(
    config: TrainConfig, train: LabeledImages, val: LabeledImages, device: torch.device, console: Console
) -> TrainConfig:
    """The options with steps in place of a budget of hours, where there is one.

    Raises:
        ValueError: The budget is not enough for a step, or steps are given, too.
    """
    hours = config.train.hours
    if hours is None:
        return config
    if config.train.steps is not None:
        raise ValueError(f"give train.steps ({config.train.steps}) or train.hours ({hours:g}), not both")
    batches = len(train) * config.data.repeat // config.data.batch_size
    _, epoch_steps, _ = training_length(replace(config, train=replace(config.train, steps=10**9)), max(batches, 1))
    measured = pace(config, train, val, device, console)
    decision = steps_within(hours, measured, epoch_steps, config.train.val_every)
    console.print(f"train.steps {decision.value}: {decision.because}", markup=False)
    return replace(config, train=replace(config.train, hours=None, steps=decision.value))
