"""The network that is scored and saved: the one that is trained, or an average of its weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rmiseg.config import LoopConfig
from rmiseg.models.base import SegmentationModel
from rmiseg.runtime.distributed import full_weights


class ScoredModel:
    """A network as it is to be scored and saved, beside the one that is trained.

    With `train.ema` that is an exponential moving average of the weights (Polyak and Juditsky 1992; as in Tarvainen
    and Valpola, NeurIPS 2017, arXiv:1703.01780): after each step, decay * average + (1 - decay) * weights. The decay
    is (n - 1) / (n + 8) at step number n until it reaches the chosen one, so that the first step begins the average
    and initial weights have no part in it. Batch norm's statistics are averaged likewise. A step that was skipped
    counts as one that changed nothing, so that nobody need wait for a GPU to know.

    Args:
        trained: The network that is trained; not divided between processes yet.
        config: Options of the loop.
    """

    def __init__(self, trained: SegmentationModel, config: LoopConfig) -> None:
        self.trained = trained
        self.decay = config.ema
        # A divided model cannot be scored, since the processes need it for different numbers of images.
        self.divided = config.strategy == "fsdp"
        self.model = copy.deepcopy(trained) if self.divided or self.decay is not None else trained
        if self.model is not trained:
            self.model.requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take the weights after step number `step`, from 1, into the average."""
        if self.decay is None:
            return
        share = 1 - min(self.decay, (step - 1) / (step + 8))
        pairs = list(zip(self.model.state_dict().values(), self.trained.state_dict().values()))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in floats], [new for _, new in floats], share)
        for own, new in pairs:
            if not own.is_floating_point():  # counters
                own.copy_(new)

    def current(self) -> SegmentationModel:
        """The network, with its weights of now."""
        if self.divided:
            self.model.load_state_dict(full_weights(self.trained))
        return self.model

    def weights(self) -> dict[str, Tensor]:
        """The weights to save, whole, in every process."""
        return full_weights(self.trained if self.decay is None else self.model)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, for a training that goes on; empty without one."""
        return {} if self.decay is None else self.weights()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        if self.decay is not None:
            self.model.load_state_dict(state)
