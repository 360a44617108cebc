"""Random batches for the kernels, and how near their results must come to the plain definition."""

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

TOLERANCES = {  # of the value, and of the gradient in relative norm; half precision rounds the returned gradient
    torch.float64: (1e-10, 1e-8),
    torch.float32: (1e-6, 1e-5),
    torch.float16: (1e-6, 1e-3),
    torch.bfloat16: (1e-6, 5e-3),
}

LAYOUTS = st.sampled_from(["contiguous", "channels_last", "every second column"])

PERIOD = 10
"""Sides of windows in which `without_ties` gives no value twice."""


def examples(few, many):
    """So many examples, by the profile of Hypothesis."""
    return settings(max_examples=few if settings.get_current_profile_name() == "repeatable" else many)


def cases(**strategies):
    """A strategy for namespaces of values, one of each strategy."""
    return st.fixed_dictionaries(strategies).map(lambda drawn: SimpleNamespace(**drawn))


def random_batch(seed, n, c, h, w, stride, none=0.0, device="cpu"):
    """Logits (n, c, h / stride, w / stride) float64, labels, valid pixels, and the gradient in RMI (n, c)."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, c, (n, -(-h // 5), -(-w // 5))).repeat(5, axis=1).repeat(5, axis=2)[:, :h, :w]
    # Some are of no class, and count.
    target = torch.tensor(target.copy()).masked_fill_(torch.tensor(rng.random((n, h, w)) < none), c)
    valid = torch.tensor(rng.random((n, h, w)) < rng.choice([0.9, 1.0]))
    logits = torch.tensor(rng.normal(size=(n, c, -(-h // stride), -(-w // stride))) * 2)
    grad_rmi = torch.tensor(rng.normal(size=(n, c)))
    return [a.to(device) for a in (logits, target.masked_fill(~valid, 255), valid, grad_rmi)]


def without_ties(seed, logits):
    """Other logits of that shape, which half precision holds, and none of them twice in a window of a map.

    Of equal values, which takes the gradient of max pooling is not defined. The values of bfloat16 from 1/64 to 4, of
    either sign, are dealt to the places of a PERIOD x PERIOD x ... grid, and each pixel has one of its place's.
    """
    rng = np.random.default_rng(seed)
    sides = logits.shape[2:]
    exponents, fractions = np.meshgrid(2.0 ** np.arange(-6, 2), 1 + np.arange(128) / 128)
    positive = (exponents * fractions).flatten()
    values = rng.permutation(np.concatenate([positive, -positive]))
    period = PERIOD if len(sides) == 2 else 5
    own = values[: len(values) // period ** len(sides) * period ** len(sides)].reshape(period ** len(sides), -1)
    grids = np.meshgrid(*(np.arange(side) % period for side in sides), indexing="ij")
    place = sum(grid * period**axis for axis, grid in enumerate(grids))
    drawn = own[place, rng.integers(0, own.shape[1], logits.shape)]
    return torch.tensor(drawn, dtype=torch.float64, device=logits.device)


def gradient_tolerance(dtype, pool):
    """Of the gradient in relative norm, for logits `without_ties` if `pool` is "max"."""
    return max(5e-3, TOLERANCES[dtype][1]) if needs_no_ties(dtype, pool) else TOLERANCES[dtype][1]


def needs_no_ties(dtype, pool):
    """True where rounded logits would tie in max pooling."""
    return pool == "max" and dtype in (torch.float16, torch.bfloat16)


def some_weights(seed, classes, device="cpu"):
    """Class weights, one of them zero, or none."""
    rng = np.random.default_rng(seed)
    weights = torch.tensor(rng.random(classes) * 2).where(torch.arange(classes) != 1, 0)
    return weights.to(device) if rng.random() < 0.5 else None


def in_layout(logits, layout):
    """The same logits in other strides."""
    if layout == "channels_last":
        return logits.contiguous(memory_format=torch.channels_last)
    return logits.repeat_interleave(2, dim=3)[..., ::2] if layout == "every second column" else logits
