"""Semantic segmentation with losses that see regions, not lone pixels.

The losses are at the top, and need only torch: `from rmiseg import RMILoss`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmiseg.losses import AffinityLoss, BCELoss, CELoss, PyramidLoss, RMILoss, build_loss, upsample_logits

__version__ = version("rmiseg")

__all__ = [
    "AffinityLoss",
    "BCELoss",
    "CELoss",
    "PyramidLoss",
    "RMILoss",
    "build_loss",
    "upsample_logits",
]


def __getattr__(name: str) -> Any:
    # Late, so that the command line can answer --help without importing torch.
    if name in __all__:
        import rmiseg.losses

        return getattr(rmiseg.losses, name)
    raise AttributeError(f"module 'rmiseg' has no attribute {name!r}")
