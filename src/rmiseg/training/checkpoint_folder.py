"""The checkpoints that a training keeps."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from rmiseg.inference.checkpoint import BEST, LAST, Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.runtime.files import replacing
from rmiseg.runtime.tensor_files import not_finite


class CheckpointFolder:
    """The checkpoints of a run: `last.pt`, `best.pt` by validation mIoU, and the newest `keep` as `step-N.pt`.

    Args:
        path: The folder; made if it does not exist.
        keep: How many of the newest checkpoints keep a name of their own.
        best: Scores of the best checkpoint so far; empty if there is none.
    """

    def __init__(self, path: Path, keep: int, best: dict[str, float] | None = None) -> None:
        if keep < 0:
            raise ValueError(f"train.keep must be 0 or more, not {keep}")
        self.path = path
        self.keep = keep
        self.best = best or {}
        path.mkdir(parents=True, exist_ok=True)

    def forget_lost(self) -> str:
        """See whether the best checkpoint can be read. If not, forget it, so that another takes its place.

        Returns:
            What is wrong with it, in words; "" if nothing is.
        """
        if not self.best:
            return ""
        try:
            load_checkpoint(self.path / BEST)
        except (ValueError, OSError) as error:
            score, self.best = self.best.get("mean_iou", math.nan), {}
            return f"{error}. It had a mIoU of {score:.2%}; the best one of what follows takes its place"
        return ""

    def save(self, checkpoint: Checkpoint) -> bool:
        """Save as the last and, if its mean IoU is the highest so far, as the best; returns whether it is.

        Raises:
            FloatingPointError: Its weights are not finite; nothing was written.
        """
        if (found := not_finite(checkpoint.weights)) is not None:
            raise FloatingPointError(f"the weights are not finite after step {checkpoint.step}: {found}")
        last = self.path / LAST
        save_checkpoint(last, checkpoint)
        if self.keep:
            _duplicate(last, self.path / f"step-{checkpoint.step:06d}.pt")
            for old in sorted(self.path.glob("step-*.pt"), key=lambda p: (len(p.name), p.name))[: -self.keep]:
                old.unlink()
        score = checkpoint.scores.get("mean_iou", math.nan)  # also nan if nothing could be scored
        is_best = score > self.best.get("mean_iou", -math.inf)
        if is_best:
            self.best = checkpoint.scores
            _duplicate(last, self.path / BEST)
        return is_best


def _duplicate(source: Path, target: Path) -> None:
    """Give a file a second name; a hard link where the file system has them, since checkpoints are never modified."""
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
