"""Losses that are computed in one call are those that are computed step by step, to the last bit."""

from __future__ import annotations

import pytest
import torch

from rmiseg import RMILoss
from rmiseg.kernels import native, whole
from rmiseg.losses import BCELoss, CELoss
from rmiseg.losses.base import SegmentationLoss

pytestmark = pytest.mark.skipif(not native.is_available(), reason="installed without a C++ compiler")

LOSSES = {
    "rmi": RMILoss(3, pool_size=2),
    "rmi, ce, max": RMILoss(3, pixel_loss="ce", pool="max", pool_size=3, combine="additive"),
    "rmi, floor": RMILoss(3, region_size=2, pool_size=1, subtract_floor=True, align_corners=True),
    "rmi, mean": RMILoss(3, covariance="mean", ignore_index=(0, 255)),
    "rmi, batch": RMILoss(3, covariance="batch", pool_size=2),
    "rmi, batch, floor": RMILoss(3, covariance="batch", subtract_floor=True, region_size=2, ignore_index=(0, 255)),
    "ce": CELoss(3),
    "bce": BCELoss(3, ignore_index=(255, 2)),
}


def batch(dtype, whole_type, size=(20, 22)):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, *size, generator=generator).to(dtype)
    target = torch.randint(0, 3, (3, 20, 22), generator=generator, dtype=torch.int64).to(whole_type)
    target[2] = 255 if whole_type != torch.int8 else 0
    return logits, target


def step_by_step(patch):
    for each in (SegmentationLoss, RMILoss, CELoss, BCELoss):
        patch.setattr(each, "_at_once", lambda *_: None)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "whole_type"),
    [
        (torch.float32, torch.int64),
        (torch.float64, torch.uint8),
        (torch.bfloat16, torch.int32),
        (torch.float16, torch.int8),
    ],
)
@pytest.mark.parametrize("size", [(20, 22), (5, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_at_once(name, dtype, whole_type, size, layout, monkeypatch):
    logits, target = batch(dtype, whole_type, size)
    found = []
    for _ in range(2):
        leaf = logits.clone().to(memory_format=layout).requires_grad_()
        value = LOSSES[name](leaf, target.transpose(1, 2).contiguous().transpose(1, 2))
        found.append((value, *torch.autograd.grad(3 * value, leaf)))
        assert torch.equal(LOSSES[name](leaf.detach(), target), value)
        step_by_step(monkeypatch)
    assert type(found[0][0].grad_fn).__name__ != type(found[1][0].grad_fn).__name__
    assert all(torch.equal(*pair) for pair in zip(*found))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["rmi", "rmi, batch", "ce", "bce"])
def test_what_is_not_finite(name, value):
    logits, target = batch(torch.float32, torch.int64)
    target[2], target[1, 3, 4] = 0, 1
    logits[1, 1, 3, 4] = value
    leaf = logits.requires_grad_()
    loss = LOSSES[name](leaf, target)
    loss.backward()
    assert not loss.isfinite()
    assert not leaf.grad.isfinite().any()


def test_no_pixel_counts():
    leaf = batch(torch.float32, torch.int64)[0].requires_grad_()
    for loss in (RMILoss(3, pool_size=2), RMILoss(3, pool_size=2, covariance="batch"), CELoss(3), BCELoss(3)):
        value = loss(leaf, torch.full((3, 20, 22), 255))
        assert value == 0
        assert not torch.autograd.grad(value, leaf)[0].any()


def test_labels_that_are_no_classes():
    logits, target = batch(torch.float32, torch.int64)
    target[1, 2, 3] = 7
    with pytest.raises(ValueError, match="target holds 7 in 1 pixels, first at sample 1, row 2, column 3"):
        RMILoss(3, pool_size=2)(logits.requires_grad_(), target)
    assert RMILoss(3, pool_size=2, check_target=False)(logits, target).isnan()


def test_first_derivatives_can_be_kept_and_second_are_refused():
    logits, target = batch(torch.float32, torch.int64)
    leaf = logits.requires_grad_()
    (kept,) = torch.autograd.grad(LOSSES["rmi"](leaf, target), leaf, create_graph=True)
    (plain,) = torch.autograd.grad(LOSSES["rmi"](leaf, target), leaf)
    assert torch.equal(kept, plain)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        kept.sum().backward()


def test_a_loss_made_of_one_is_what_it_says(monkeypatch):
    """What a subclass changes counts, so it is computed step by step."""

    class Doubled(RMILoss):
        def sample_terms(self, batch):
            terms = super().sample_terms(batch)
            return terms._replace(sums=2 * terms.sums)

    logits, target = batch(torch.float32, torch.int64)
    assert Doubled(3, pool_size=2)(logits, target).item() == pytest.approx(2 * LOSSES["rmi"](logits, target).item())
    monkeypatch.setattr(whole, "is_plain_call", lambda *_: False)
    assert LOSSES["rmi"](logits.requires_grad_(), target).grad_fn is not None
