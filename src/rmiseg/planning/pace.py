"""Steps for a budget of time."""

from __future__ import annotations

from dataclasses import dataclass

from rmiseg.planning.decisions import Decision
from rmiseg.planning.schedule import VALIDATION_SHARE, VALIDATIONS
from rmiseg.runtime.words import rounded

SPARE = 0.05
"""Share of a budget that goes into starting and saving."""


@dataclass(frozen=True)
class Pace:
    """Times on this machine.

    Attributes:
        step: Seconds of an optimizer step, with the wait for its images.
        evaluation: Seconds of an evaluation of the whole validation split.
    """

    step: float
    evaluation: float

    def hours(self, steps: int, evaluations: int) -> float:
        """Hours that a training takes."""
        return (steps * self.step + evaluations * self.evaluation) / 3600


def steps_within(hours: float, pace: Pace, epoch_steps: int, val_every: int | None) -> Decision:
    """Steps of a training that is over within some hours, evaluations included.

    Args:
        hours: The budget.
        pace: What a step and an evaluation take.
        epoch_steps: Steps of an epoch.
        val_every: Epochs between evaluations; None for as many as a plan takes.

    Raises:
        ValueError: It is not enough for a step and an evaluation.
    """
    seconds = hours * 3600 * (1 - SPARE)
    if val_every is None:
        evaluations = max(1, min(VALIDATIONS, int(VALIDATION_SHARE * seconds / max(pace.evaluation, 1e-9))))
        count = int((seconds - evaluations * pace.evaluation) / pace.step)
    else:
        count = int(seconds / (pace.step + pace.evaluation / (epoch_steps * val_every)))
    if count < 1 or seconds < pace.step + pace.evaluation:
        raise ValueError(
            f"train.hours {hours:g} is not enough: on this machine a step takes {rounded(pace.step)} s, and an "
            f"evaluation {rounded(pace.evaluation)} s"
        )
    return Decision("train.steps", count, f"{hours:g} hours at {rounded(pace.step)} s a step, measured here")
