"""Values and gradients of the original implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rmiseg.losses import build_loss

GOLDEN = np.load(Path(__file__).parent / "golden_losses.npz")
CASES = json.loads(str(GOLDEN["meta"]))


@pytest.mark.parametrize("case", CASES, ids=[f"{c['index']}-{c['loss']}" for c in CASES])
def test_golden(case):
    logits = torch.tensor(GOLDEN[f"{case['index']}_logits"], requires_grad=True)
    target = torch.tensor(GOLDEN[f"{case['index']}_labels"])
    expected_grad = torch.tensor(GOLDEN[f"{case['index']}_grad"])
    loss = build_loss(case["loss"], num_classes=case["num_classes"], **case["config"])
    value = loss(logits, target, **case["call"])
    value.backward()
    assert value.item() == pytest.approx(case["value"], rel=1e-5)
    assert (logits.grad - expected_grad).norm() <= 1e-4 * expected_grad.norm()
