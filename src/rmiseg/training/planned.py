"""The plan of a training on this machine: what `rmiseg.planning` decides, with what only a training can measure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from rich.console import Console

from rmiseg.config import OpenConfig, TrainConfig
from rmiseg.data import LabeledImages, Split
from rmiseg.models.weights import source_of_weights
from rmiseg.planning import Machine, Plan, decide, planned_val, profile_data
from rmiseg.planning.decisions import Decision, is_given
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

    def val_images(self) -> Decision | None:
        """The decision on the images to score on, which comes before the data are opened; see `planned_val`."""
        data = self.config.data
        named = any(is_given(self.config, f"data.{name}") for name in ("options", "train_split", "val_split"))
        if "data" in self.replaced or data.held_out is not None or named:
            return None
        return planned_val(data, self.console)

    def with_val(self, chosen: Decision | None) -> OpenConfig:
        """The options with the images to score on that were chosen, if any were."""
        data = self.config.data
        return self.config if chosen is None else replace(self.config, data=replace(data, options=chosen.value))

    def plan(
        self, train: LabeledImages, val: LabeledImages, machine: Machine, device: torch.device, before: Decision | None
    ) -> Plan:
        """Decide what is open.

        Args:
            train: The images to train on.
            val: The images to score on.
            machine: The machine to plan for.
            device: The device of this machine.
            before: The decision on the images to score on.

        Raises:
            ValueError: Images that are no files, of which nothing can be known, or nothing to learn from.
        """
        if not isinstance(train, Split) or not isinstance(val, Split):
            raise ValueError("plan: options are decided from image files; data that are given in Python say nothing")
        classes = len(train.classes)
        measures = Measures(
            weights=source_of_weights,
            memory=None if self.replaced else lambda config: memory_need(complete(config), classes),
            pace=lambda config: pace(complete(config), train, val, device, self.console or Console(quiet=True)),
        )
        given = [option for part in self.replaced for option in (*REPLACED[part], f"{part}.weights")]
        plan = decide(self.config, profile_data(train, val, self.console), machine, measures, given)
        decisions = plan.decisions if before is None else (before, *plan.decisions)
        return replace(plan, config=complete(plan.config), decisions=decisions)


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
