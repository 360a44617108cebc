"""The replacements against the golden values of the original, and against the package rmi-pytorch itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import rmi
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rmiseg
from rmiseg.compat import original, rmi_pytorch

GOLDEN = np.load(Path(__file__).parents[1] / "losses" / "golden_losses.npz")
CASES = [case for case in json.loads(str(GOLDEN["meta"])) if case["loss"] == "rmi"]


@pytest.mark.parametrize("case", CASES, ids=[str(case["index"]) for case in CASES])
def test_original(case):
    config = case["config"]
    loss = original.RMILoss(
        num_classes=case["num_classes"],
        rmi_radius=config["region_size"],
        rmi_pool_way={"max": 0, "avg": 1, "interp": 2}[config["pool"]],
        rmi_pool_size=config["pool_size"],
        rmi_pool_stride=config["pool_size"],
        loss_weight_lambda=config["weight_lambda"],
        lambda_way=int(config["combine"] == "convex"),
    )
    logits = torch.tensor(GOLDEN[f"{case['index']}_logits"], requires_grad=True)
    target = torch.tensor(GOLDEN[f"{case['index']}_labels"])
    forward = loss.forward_softmax_sigmoid if config["pixel_loss"] == "ce" else loss
    value = forward(logits, target)
    value.backward()
    expected_grad = torch.tensor(GOLDEN[f"{case['index']}_grad"])
    assert value.item() == pytest.approx(case["value"], rel=1e-5)
    assert (logits.grad - expected_grad).norm() <= 1e-4 * expected_grad.norm()
    # Whatever is no class is ignored.
    other = target.long().where(target < case["num_classes"], case["num_classes"])
    assert torch.equal(forward(logits, other), value)


def test_original_refuses_what_it_cannot():
    with pytest.raises(ValueError, match="rmi_pool_way must be 0"):
        original.RMILoss(rmi_pool_way=3)
    with pytest.raises(ValueError, match="rmi_pool_size must equal rmi_pool_stride, got 3 and 4"):
        original.RMILoss(rmi_pool_stride=4)


@given(
    seed=st.integers(0, 2**32 - 1),
    with_logits=st.booleans(),
    radius=st.integers(1, 4),
    bce_weight=st.floats(0, 1),
    pool=st.sampled_from(["max", "avg"]),
    stride=st.integers(1, 4),
    use_log_trace=st.booleans(),
    epsilon=st.sampled_from([0.0005, 0.0005, 0.01]),
    soft=st.booleans(),
)
@settings(max_examples=25)
def test_rmi_pytorch(seed, with_logits, radius, bce_weight, pool, stride, use_log_trace, epsilon, soft):
    options = {name: value for name, value in locals().items() if name not in ("seed", "soft")}
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(2, 3, 22, 26)) * 2)
    x = (x if with_logits else x.sigmoid()).requires_grad_()
    target = torch.tensor(rng.random((2, 3, 22, 26)) if soft else rng.integers(0, 2, (2, 3, 22, 26))).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "cholesky", torch.linalg.cholesky)  # which is gone
        expected = rmi.RMILoss(**options)(x, target)
    (expected_grad,) = torch.autograd.grad(expected, x)
    for masks in (target, target.long()) if not soft else (target,):
        value = rmi_pytorch.RMILoss(**options)(x, masks)
        (grad,) = torch.autograd.grad(value, x)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
        assert (grad - expected_grad).norm() <= 1e-4 * expected_grad.norm()


def test_rmi_pytorch_refuses_what_it_cannot():
    for options, message in (
        ({"pool": "interp"}, "pool must be max or avg"),
        ({"epsilon": 0}, "epsilon"),
        ({"radius": 0}, "region_size"),
    ):
        with pytest.raises(ValueError, match=message):
            rmi_pytorch.RMILoss(True, **options)
    with pytest.raises(ValueError, match=r"target \(N, C, H, W\), got \(1, 2, 8, 8\) and \(1, 8, 8\)"):
        rmi_pytorch.RMILoss(True)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8))


def test_migration_table_of_rmi_pytorch():
    """What the documentation says: the paper's loss with the weight C, but for one pixel more in its mean."""
    x = torch.randn(2, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks = (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) > 0).long()
    theirs = rmi_pytorch.RMILoss(True, bce_weight=0.5)(x, masks)
    ours = rmiseg.RMILoss(3, pool="max", pool_size=3, weight_lambda=3, combine="additive", mode="multilabel")
    assert theirs.item() == pytest.approx(0.5 / 3 * ours(x, masks).item(), rel=1e-3)
