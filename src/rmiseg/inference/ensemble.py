"""Checkpoints of several trainings as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rmiseg.config import DataConfig
from rmiseg.inference.checkpoint import Checkpoint


def ensemble(checkpoints: Sequence[Checkpoint], data: DataConfig, scores: Mapping[str, float]) -> Checkpoint:
    """The checkpoint of an ensemble, `rmiseg.models.ensemble.Ensemble`.

    Args:
        checkpoints: Its members, alike but for their weights and the images that they were trained on.
        data: How images are prepared, and where those of all members are.
        scores: Scores on images that the member which segmented them had not seen, by name.
    """
    weights = {
        f"members.{number}.{name}": tensor
        for number, checkpoint in enumerate(checkpoints)
        for name, tensor in checkpoint.weights.items()
    }
    first = checkpoints[0]
    steps = max(checkpoint.step for checkpoint in checkpoints)
    return replace(first, weights=weights, data=data, step=steps, scores=dict(scores), members=len(checkpoints))
