"""The number of operations that a step puts on its way to a GPU, counted without one, and the kernel of the last."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")  # conftest.py has told it to interpret where there is no GPU

from rmiseg import functional
from rmiseg.kernels import backends, labels, means, pixel, rmi, whole
from rmiseg.kernels import regions as plain_regions
from rmiseg.kernels.terms import Shares
from rmiseg.kernels.triton import labels as triton_labels
from rmiseg.kernels.triton import launch, regions, totals
from rmiseg.kernels.triton import loss as triton_loss
from rmiseg.losses import BCELoss, CELoss, RMILoss
from support.batches import DEVICE

VIEWS = {"alias", "as_strided", "detach", "expand", "select", "slice", "squeeze", "t", "transpose", "unbind"}
VIEWS |= {"unsqueeze", "view"}
EMPTY = {"empty", "empty_like", "new_empty"}


class Operations(TorchDispatchMode):
    """The names of operations that launch something, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in VIEWS | EMPTY:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def on_triton(monkeypatch):
    """Everything on the Triton kernels, as on CUDA, though a dispatch mode looks on."""
    monkeypatch.setitem(backends.DEVICES, "triton", DEVICE)
    monkeypatch.setattr(backends, "fastest", lambda device: "triton")
    for module in (labels, means, pixel, rmi, whole):
        monkeypatch.setattr(module, "is_plain_call", lambda *tensors: True)


def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 12, generator=generator)
    target = torch.randint(0, 3, (2, 8, 12), generator=generator)
    target[1] = 255
    return logits.to(DEVICE).requires_grad_(), target.to(DEVICE)


@pytest.mark.parametrize(
    ("loss", "small", "kernels"),
    [
        (RMILoss(3, region_size=2, implementation="triton", check_target=False), 1, 10),
        (RMILoss(3, region_size=2, pixel_loss="ce", implementation="triton", check_target=False), 1, 10),
        (RMILoss(3, region_size=2, class_weights=[1, 2, 3], implementation="triton", check_target=False), 10, 10),
        (CELoss(3, implementation="triton", check_target=False), 1, 6),
        (BCELoss(3, implementation="triton", check_target=False), 1, 6),
    ],
)
def test_launches_of_a_step(loss, small, kernels, on_triton, monkeypatch):
    launched = []
    for module in (triton_labels, launch, triton_loss, regions, totals):
        monkeypatch.setattr(module, "launch", lambda kernel, *_, **__: launched.append(kernel.__name__))
    logits, target = batch()
    loss = loss.to(DEVICE)
    with Operations() as operations:
        loss(logits, target).backward()
    assert len(operations.names) <= small, operations.names
    assert len(launched) <= kernels, launched


def test_a_step_is_that_of_the_plain_definition(on_triton, monkeypatch):
    logits, target = batch()
    value = RMILoss(3, region_size=1, implementation="triton", check_target=False)(logits, target)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    monkeypatch.undo()
    expected = RMILoss(3, region_size=1, implementation="plain")(logits, target)
    (expected_gradient,) = torch.autograd.grad(3 * expected, logits)
    assert torch.allclose(value, expected, rtol=1e-6)
    assert (gradient - expected_gradient).norm() <= 1e-5 * expected_gradient.norm()


SHARES = [Shares(0.3, 1, 0.7), Shares(1.0, 0, 2.0), Shares(1.0, 0)]


def sums_and_counts(shares, dtype):
    """Of a usual batch, of one whose loss is not finite, and of one without a valid pixel."""
    kinds = 1 if shares.regions is None else 2
    counts = torch.tensor([[5, 1], [0, 0], [7, 1]])[:, :kinds].to(DEVICE)
    sums = torch.randn(3, kinds, generator=torch.Generator().manual_seed(0), dtype=dtype).to(DEVICE)
    yield sums.requires_grad_(), counts
    yield torch.full_like(sums, math.inf).requires_grad_(), counts.double()
    yield sums, 0 * counts


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("way", ["numbers", "kernel"])
def test_the_loss_at_once_is_that_of_operations(shares, way, monkeypatch):
    if way == "numbers" and DEVICE != "cpu":
        pytest.skip("numbers are for the CPU")
    dtype = torch.float32 if way == "kernel" else torch.float64
    monkeypatch.setattr(backends, "fastest", lambda device: "triton" if way == "kernel" else "native")
    for sums, counts in sums_and_counts(shares, dtype):
        for unknown in (None, torch.zeros(5, dtype=torch.bool, device=DEVICE)):
            value = means.mean_loss(sums, counts, unknown, shares)
            (gradient,) = torch.autograd.grad(3 * value, sums)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(means, "is_fused", lambda sums: False)
                expected = means.loss_of_sums(sums.sum(dim=0), counts.sum(dim=0), shares)
            (expected_gradient,) = torch.autograd.grad(3 * expected, sums)
            assert torch.allclose(value, expected, equal_nan=True)
            assert torch.allclose(gradient, expected_gradient, equal_nan=True)
        value = means.mean_loss(sums, counts, torch.tensor([0, 3, 0], device=DEVICE), shares)
        assert value.isnan()
        assert torch.autograd.grad(value, sums)[0].isnan().all()


def test_sums_of_programs():
    rows = torch.randn(3, 2500, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(DEVICE)
    assert torch.allclose(totals.row_sums(rows, torch.float32), rows.sum(dim=1).float())
    weights = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64, device=DEVICE).unsqueeze(1).expand(3, 150)
    pixel, regional, perfect = rows[:, 0].float(), rows[:, :150].contiguous(), rows[:, 150:300].contiguous()
    for floor in (None, 0.0, functional.RMI_FLOOR):
        found = totals.join(pixel, regional, perfect, weights, floor)
        assert torch.allclose(found, plain_regions.joined_sums(pixel, regional, perfect, weights, floor), rtol=1e-5)
