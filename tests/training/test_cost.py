"""Cost of a step without the device that it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rmiseg.config import DataConfig, LoopConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from rmiseg.models import SegmentationModel, adapt_model
from rmiseg.planning.machine import Machine
from rmiseg.planning.memory import MemoryNeed
from rmiseg.training.assembly import complete
from rmiseg.training.cost import StepCost, memory_need, step_cost
from rmiseg.training.criterion import Criterion
from rmiseg.training.estimate import cost_table, disk_space, fitting_cards


def small(crop: int = 64, **sections) -> TrainConfig:
    data = DataConfig(crop_size=(crop, crop), batch_size=2)
    model = ModelConfig(backbone="test_efficientnet", weights="none")
    return complete(TrainConfig(data=data, model=model, **sections))


@pytest.mark.slow
def test_no_number_is_computed_and_no_random_number_drawn():
    before = torch.random.get_rng_state()
    cost = step_cost(small(2048), 3)  # which would take gigabytes
    assert torch.equal(before, torch.random.get_rng_state())
    assert cost.memory > 2e9
    assert cost.operations > 1e10
    assert 1.5e6 < cost.parameters < 3e6


@pytest.mark.slow
def test_memory_grows_with_the_batch():
    need = memory_need(small(), 3)
    assert need.image > 0
    assert step_cost(small(), 3, 8, count_operations=False).memory == pytest.approx(need.of(8), rel=0.05)


@pytest.mark.slow
def test_memory_grows_with_crop_and_optimizer():
    assert step_cost(small(256), 3).memory > step_cost(small(128), 3).memory
    adamw = step_cost(small(optim=OptimConfig(name="adamw", lr=1e-3)), 3)
    sgd = step_cost(small(), 3)
    assert adamw.memory - sgd.memory == pytest.approx(4 * sgd.parameters, rel=0.1)
    averaged = step_cost(small(train=LoopConfig(ema=0.9)), 3)
    assert averaged.memory - sgd.memory == pytest.approx(4 * sgd.parameters, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ce", "bce", "pyramid", "affinity"])
def test_every_loss_has_a_cost(loss):
    assert step_cost(small(loss=LossConfig(name=loss)), 3).memory > 0


@pytest.mark.parametrize("loss", ["rmi", "dice", "lovasz", "focal", "ohem", "smp:Dice", "monai:DiceCE"])
def test_losses_beside_it_have_one(loss):
    """Also where how many pixels count would decide about shapes."""
    package = {"smp": "segmentation_models_pytorch", "monai": "monai"}.get(loss.partition(":")[0])
    if package:
        pytest.importorskip(package)
    logits, target = torch.randn(2, 3, 16, 16), torch.zeros(2, 64, 64, dtype=torch.uint8)
    criterion = Criterion(LossConfig(name="ce", plus={loss: 0.5}), 3, 10)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        logits, target = mode.from_tensor(logits).requires_grad_(), mode.from_tensor(target)
        value, _ = criterion(logits, None, target, criterion.counts(target), 0)
        value.backward()
        assert logits.grad.shape == logits.shape


def test_cards():
    need = MemoryNeed(0.5e9, 0.83e9)
    assert fitting_cards(need, 16, 1) == (
        "12.8 GB at the peak: fits 16 GB, does not fit 12; with batch_size 8 and accumulate 2 it fits 8; with "
        "batch_size 4 and accumulate 4 it fits 4"
    )
    assert "fits no GPU" in fitting_cards(MemoryNeed(1e12, 1), 2, 1)


def test_disk():
    assert disk_space(small(), 10**6) == 4 * 10**6 * (3 + 4)


def test_a_network_that_looks_at_numbers_cannot_be_foreseen(monkeypatch):
    class Looks(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images if images.abs().max() > 0 else -images)

    def make(*args: object) -> SegmentationModel:
        return adapt_model(Looks(3, 3, 1), 3)

    monkeypatch.setattr("rmiseg.training.cost.make_model", make)
    found = step_cost(small(), 3)
    assert (found.parameters, found.operations, found.memory) == (12, None, None)
    assert memory_need(small(), 3) is None


def test_what_cannot_be_foreseen_is_looked_at_once(monkeypatch):
    class Images(list):
        classes = ("a", "b")

    calls = []
    monkeypatch.setattr(
        "rmiseg.training.estimate.step_cost", lambda *_, **__: calls.append(1) or StepCost(2, 12, None, None)
    )
    cells = list(cost_table(small(), Images(range(4)), None, Machine("cpu", 0, 1, 1, False)).columns[1].cells)
    assert cells[-1].startswith("not to be foreseen")
    assert len(calls) == 1
