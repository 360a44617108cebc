"""The losses, as users call them, against the plain definition in float64: kinds of targets, dtypes, sizes, layouts."""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpu.batches import Case, Place, in_processes
from rmiseg import BCELoss, CELoss, RMILoss

TOLERANCES = {"float64": 1e-8, "float32": 1e-5, "float16": 1e-3, "bfloat16": 5e-3}
"""Of the gradient in relative norm."""


SCALE = 4096
"""Of the loss, as a gradient scaler does: in float16 the gradient of a mean over all pixels would lose digits."""


class Setting(NamedTuple):
    """A loss and a batch."""

    loss: str  # "rmi", "ce" or "bce"
    options: tuple[tuple[str, Any], ...]
    stride: int
    dtype: str
    layout: str = "contiguous"
    target: str = "ids"
    device: str = "cuda"
    size: tuple[int, int] = (129, 161)
    implementation: str = "triton"


def settings(place: Place) -> list[Setting]:
    """All that is checked; a few of everything rather than every combination, for each compiles kernels of its own."""
    pools = [(pool, size, r) for pool in ("avg", "max", "interp") for size, r in ((4, 3), (2, 2), (8, 1), (3, 4))]
    pools += [("avg", 1, 3), ("avg", 4, 5), ("avg", 4, 7), ("avg", 16, 2)]
    dtypes, strides = itertools.cycle(TOLERANCES), itertools.cycle((1, 4, 1, 8, 2, 16))
    layouts = itertools.cycle(("contiguous", "channels_last", "every second column"))
    found = []
    for (pool, pool_size, region_size), pixel_loss in itertools.product(pools, ("bce", "ce")):
        for corners in (False, True):
            options: dict[str, Any] = {"pool": pool, "pool_size": pool_size, "region_size": region_size}
            options |= {"pixel_loss": pixel_loss, "align_corners": corners}
            dtype = next(dtypes)
            if pool == "max" and dtype.endswith("16"):
                dtype = "float32"  # rounded logits tie, and which of equal values takes the gradient is not defined
            found.append(Setting("rmi", tuple(options.items()), next(strides), dtype, next(layouts)))
        next(dtypes)  # so that they do not go in step with the corners
    more: tuple[dict[str, Any], ...] = (
        {"class_weights": (0.2, 3.0, 1.0, 0.0, 2.0)},
        {"combine": "additive", "alpha": 1.0},
        {"covariance": "mean"},
        {"covariance": "batch"},
        {"subtract_floor": True},
        {"reduction": "none"},
        {"from_probabilities": True},
    )
    for options, stride in itertools.product(more, (1, 4)):
        found.append(Setting("rmi", tuple(options.items()), stride, "float32"))
    for target, stride in itertools.product(("binary", "multilabel", "soft", "soft binary"), (1, 4)):
        found.append(Setting("rmi", (), stride, next(dtypes), target=target))
    for loss, stride, dtype in itertools.product(("ce", "bce"), (1, 2, 4, 16), ("float32", "bfloat16", "float64")):
        found.append(Setting(loss, (), stride, dtype))
    if not place.tiny:
        return found
    small = found[0]._replace(device="cpu", size=(20, 21), options=(("region_size", 1),))
    return [small, small._replace(target="soft", implementation="auto")]


def measure(place: Place) -> Iterator[tuple[str, Any]]:
    """For each setting, its errors, relative; "ok" if they are within rounding."""
    for setting, result in in_processes(check, settings(place), place.workers):
        name = f"{setting.loss} {dict(setting.options)} stride {setting.stride} {setting.dtype} {setting.layout}"
        yield f"{name} {setting.target}", result


def check(setting: Setting) -> dict[str, Any]:
    """Errors of value and gradient, in a process of its own."""
    try:
        return _check(setting)
    except Exception:
        return {"ok": False, "error": traceback.format_exc()[-3000:]}


def _check(setting: Setting) -> dict[str, Any]:
    place = Place(setting.device, 1, False)
    implementation = setting.implementation if setting.implementation == "auto" else place.implementation
    classes = 1 if "binary" in setting.target else 5
    logits, target = Case((2, classes, *setting.size), setting.stride, setting.dtype).batch(setting.device)
    if setting.loss == "rmi" and dict(setting.options).get("from_probabilities"):
        logits = logits.detach().softmax(dim=1).requires_grad_()
    leaf = _in_layout(logits.detach(), setting.layout).requires_grad_()
    target, mode = _target(setting.target, target, classes)
    if setting.target != "ids":
        implementation = "auto"
    wide = logits.detach().double().requires_grad_()
    values = []
    for each, name in ((leaf, implementation), (wide, "plain")):
        options = {**dict(setting.options), "implementation": name, "mode": mode}
        loss = {"rmi": RMILoss, "ce": CELoss, "bce": BCELoss}[setting.loss](classes, **options)
        value = loss.to(setting.device)(each, target)
        (SCALE * value * torch.arange(1, value.numel() + 1, device=value.device).view_as(value)).sum().backward()
        values.append(value.detach().double())
    assert leaf.grad is not None
    assert wide.grad is not None
    gradient = ((leaf.grad.double() - wide.grad).norm() / wide.grad.norm()).item()
    value_error = ((values[0] - values[1]).abs() / (1 + values[1].abs())).max().item()
    ok = value_error < 2e-6 and gradient < TOLERANCES[setting.dtype]
    return {"ok": ok, "value": value_error, "gradient": gradient, "process": os.getpid()}


def _in_layout(logits: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return logits.contiguous(memory_format=torch.channels_last)
    return logits.repeat_interleave(2, dim=3)[..., ::2] if layout == "every second column" else logits


def _target(kind: str, ids: Tensor, classes: int) -> tuple[Tensor, str]:
    """The target of a kind, and the mode."""
    if kind == "ids":
        return ids, "multiclass"
    one_hot = torch.stack([ids == c for c in range(max(2, classes))], dim=1)[:, :classes]
    if kind == "binary":
        return one_hot[:, 0].long(), "binary"
    if kind == "soft binary":
        return one_hot[:, 0] * 0.8 + 0.1, "binary"
    if kind == "multilabel":
        return (one_hot | one_hot.roll(1, dims=1)).long(), "multilabel"
    soft = 0.9 * one_hot.float() + 0.1 / classes
    return soft / soft.sum(dim=1, keepdim=True), "multiclass"
