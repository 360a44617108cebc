"""Losses by name with options, and batches for them."""

import numpy as np
import pytest
import torch

from rmiseg.losses import build_loss

LOSSES = {
    "rmi": {"pool_size": 2},
    "rmi-max": {"pool": "max", "pool_size": 2},
    "rmi-interp-ce": {"pool": "interp", "pool_size": 2, "pixel_loss": "ce"},
    "rmi-additive-floor": {"pool_size": 2, "combine": "additive", "subtract_floor": True, "region_size": 2},
    "rmi-batch": {"pool_size": 2, "covariance": "batch"},
    "ce": {},
    "bce": {},
    "pyramid": {"scales": (0.5, 1.0)},
    "affinity": {"max_steps": 10, "downsample": 2},
}

each_loss = pytest.mark.parametrize("case", LOSSES)
each_that_adds_up = pytest.mark.parametrize("case", [case for case in LOSSES if case != "rmi-batch"])
"""Losses of a batch that are those of its parts: not where all samples have one covariance."""


def build(case, num_classes, **options):
    return build_loss(case.split("-")[0], num_classes=num_classes, **LOSSES[case], **options)


def labelled_batch(seed, n, c, h, w, stride=1, ignored=0.1):
    """Blob-like labels with some ignored pixels, and logits that have something to do with them, as arrays."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, c, (n, -(-h // 4), -(-w // 4)))
    target = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :h, :w].copy()
    small = (n, c, -(-h // stride), -(-w // stride))
    logits = rng.normal(size=small) * 2
    logits += 2 * (target[:, None, ::stride, ::stride] == np.arange(c)[None, :, None, None])
    target[rng.random(target.shape) < ignored] = 255
    return logits, target


def loss_batch(seed=0, n=2, c=3, h=24, w=28, stride=1, ignored=0.1, dtype=torch.float32):
    """`labelled_batch` as tensors, the logits with a gradient."""
    logits, target = labelled_batch(seed, n, c, h, w, stride, ignored)
    return torch.tensor(logits, dtype=dtype, requires_grad=True), torch.tensor(target)


def gradient(value, logits):
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


def value_and_gradient(loss, logits, target):
    """The value of a loss, a scalar, and its gradient in the logits."""
    logits = logits.detach().requires_grad_()
    value = loss(logits, target)
    assert value.ndim == 0
    return value.detach(), torch.autograd.grad(value, logits)[0]
