"""The loss of the package rmi-pytorch 0.1.1, with its arguments."""

from __future__ import annotations

from torch import Tensor, nn

from rmiseg.functional import RMI_ALPHA
from rmiseg.losses import RMILoss as _RMILoss


class RMILoss(nn.Module):
    """RMI of masks, beside a plain mean of binary cross entropy.

    The mean is over pixels and classes, where the paper's is over pixels and a sum over the classes: with C classes,
    binary cross entropy has 1 / C of the weight that it has in `rmiseg.RMILoss`. No pixel is ignored.

    Args:
        with_logits: Whether the input is logits; else it is probabilities.
        radius: Side R of the square regions.
        bce_weight: Weight of binary cross entropy; RMI has 1 - bce_weight.
        pool: "max" or "avg".
        stride: Downsampling factor.
        use_log_trace: Takes one of two ways to the same number, as far as 1e-7; here there is one, which does not fail.
        use_double_precision: Region covariances are always float64 here: float32 is not enough to factor them.
        epsilon: What is added to the diagonal of M.

    Shape: input (N, C, h, w), at the size of the target or below; target (N, C, H, W) masks, which may overlap, of any
    dtype, with values from 0 to 1; the output is a scalar.
    """

    def __init__(
        self,
        with_logits: bool,
        radius: int = 3,
        bce_weight: float = 0.5,
        pool: str = "max",
        stride: int = 3,
        use_log_trace: bool = True,
        use_double_precision: bool = True,
        epsilon: float = RMI_ALPHA,
    ) -> None:
        super().__init__()
        if pool not in ("max", "avg"):
            raise ValueError(f"pool must be max or avg, got {pool!r}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above 0, got {epsilon}")
        self.with_logits = with_logits
        self.radius = radius
        self.bce_weight = bce_weight
        self.pool = pool
        self.stride = stride
        self.use_log_trace = use_log_trace
        self.use_double_precision = use_double_precision
        self.epsilon = epsilon
        self._loss_of(1)  # refuses what cannot be

    def _loss_of(self, classes: int) -> _RMILoss:
        return _RMILoss(
            classes,
            region_size=self.radius,
            pool=self.pool,
            pool_size=self.stride,
            ignore_index=None,
            alpha=self.epsilon,
            mode="multilabel",
            from_probabilities=not self.with_logits,
        )

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if input.ndim < 4 or target.shape[:2] != input.shape[:2]:
            raise ValueError(
                "input must have shape (N, C, h, w) and target (N, C, H, W), "
                f"got {tuple(input.shape)} and {tuple(target.shape)}"
            )
        terms = self._loss_of(input.shape[1]).terms(input, target)
        bce, rmi = terms.sums[0] / target.numel(), terms.sums[1] / len(input)
        return self.bce_weight * bce + (1 - self.bce_weight) * rmi
