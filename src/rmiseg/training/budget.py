"""Watch over the hours that a training was given."""

from __future__ import annotations

import time
from collections.abc import Callable

from rmiseg.runtime.words import rounded

SURE = 0.1
"""Share of the steps after which the pace says when a training ends."""

LATE = 1.1
"""Multiple of the hours from which it is told."""

LATER = 1.25
"""Multiple of what was told last, from which it is told again."""


class Budget:
    """Tells when a training will be late, because the machine has become busier than when its pace was measured.

    The length of the schedule stays as it was laid out: the learning rates of the steps that were taken follow from it,
    and a training that was interrupted goes on exactly.

    Args:
        hours: Hours that the training was given, from now on.
        steps: Steps that it has.
        clock: Seconds that have passed since some moment.
    """

    def __init__(self, hours: float, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.hours, self.steps, self.clock = hours, steps, clock
        self.started = clock()
        self.told = LATE / LATER

    def follow(self, step: int) -> str | None:
        """Return what there is to tell after so many steps."""
        if step < max(SURE * self.steps, 1):
            return None
        foreseen = (self.clock() - self.started) / 3600 * self.steps / step
        if foreseen / self.hours < self.told * LATER:
            return None
        self.told = foreseen / self.hours
        return (
            f"warning: train.hours {self.hours:g}: at the pace so far the {self.steps} steps take {rounded(foreseen)} "
            "hours; the machine is slower than when a step was measured. The schedule stays as it is. To be over in "
            f"time, begin again with train.steps {max(int(self.steps / self.told), 1)}"
        )
