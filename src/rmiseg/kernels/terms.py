"""The terms of a loss: which means it is made of, and with what weights."""

from __future__ import annotations

from typing import NamedTuple

from rmiseg.functional import RMIOptions


class Shares(NamedTuple):
    """The weights of the means in a loss.

    Attributes:
        pixel: Weight of the mean of the pixel loss.
        extra: Pixels by which the divisor of its sum is above their number: 0 or 1.
        regions: Weight of the mean of RMI; None if there is no RMI.
    """

    pixel: float
    extra: int
    regions: float | None = None


class WholeLoss(NamedTuple):
    """A loss, and how it is made of its sums.

    Attributes:
        ignored: Labels that do not count.
        pixel_loss: "bce" or "ce".
        align_corners: Corner convention of the interpolation of small logits.
        shares: How its means are added up.
        regions: Options of RMI; None if there is none.
        floor: What RMI counts from; None for `rmiseg.functional.perfect_rmi`.
    """

    ignored: tuple[int, ...]
    pixel_loss: str
    align_corners: bool
    shares: Shares
    regions: RMIOptions | None = None
    floor: float | None = 0.0
