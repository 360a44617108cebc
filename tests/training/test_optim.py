import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rmiseg.config import OptimConfig, TrainConfig
from rmiseg.training.optim import build_optimizer
from rmiseg.training.schedule import learning_rate, set_learning_rate
from rmiseg.training.stored_options import stored_options, with_unsaid, write_config

GOLDEN = Path(__file__).parents[1] / "models" / "golden_networks.npz"


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def test_groups_are_those_of_the_paper():
    model = Tiny()
    config = OptimConfig(lr=0.01, head_lr_factor=10, weight_decay=1e-4)
    optimizer = build_optimizer(model, config)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    conv, norm = model.backbone
    assert len(found) == len(list(model.parameters()))
    assert found[id(conv.weight)] == (0.01, 1e-4)
    assert found[id(conv.bias)] == (0.01, 0)
    assert found[id(norm.weight)] == found[id(norm.bias)] == (0.01, 0)
    assert found[id(model.head.weight)] == (0.1, 1e-4)
    assert found[id(model.head.bias)] == (0.1, 0)
    set_learning_rate(optimizer, 0.002)
    assert sorted({round(g["lr"], 9) for g in optimizer.param_groups}) == [0.002, 0.02]


@pytest.mark.parametrize("name", ["sgd", "sgd, nesterov", "adamw"])
def test_step_is_that_of_the_optimizer(name):
    torch.manual_seed(0)
    model, options = Tiny(), {"lr": 0.1, "head_lr_factor": 1.0, "weight_decay": 0.01, "momentum": 0.8}
    nesterov = name == "sgd, nesterov"
    optimizer = build_optimizer(model, OptimConfig(name=name.partition(",")[0], nesterov=nesterov, **options))
    weight = model.head.weight.detach().clone().requires_grad_()
    if name != "adamw":
        expected = torch.optim.SGD([weight], lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    else:
        expected = torch.optim.AdamW([weight], lr=0.1, betas=(0.8, 0.999), weight_decay=0.01)
    for _ in range(3):
        model.head.weight.grad = torch.randn_like(weight)
        weight.grad = model.head.weight.grad.clone()
        optimizer.step()
        expected.step()
    torch.testing.assert_close(model.head.weight, weight)


@pytest.mark.parametrize("name", ["voc", "camvid", "cityscapes", "voc-cosine"])
def test_rates_of_the_original(name):
    golden = np.load(GOLDEN)
    (case,) = [case for case in json.loads(str(golden["meta"])) if case.get("schedule") == name]
    config = OptimConfig(
        lr=case["lr"],
        warmup_steps=case["slow_start_steps"],
        warmup_lr=case["slow_start_lr"],
        schedule={"poly": "poly", "cos": "cosine"}[case["name"]],
    )
    rates = [learning_rate(int(t), case["total_steps"], config) for t in golden[f"lr_{name}_steps"]]
    np.testing.assert_allclose(rates, golden[f"lr_{name}"], rtol=1e-9, atol=0)


def test_poly_with_warmup():
    config = OptimConfig(lr=0.007, warmup_steps=1500, warmup_lr=1e-4, schedule="poly")
    lr = [learning_rate(t, 30_000, config) for t in range(30_000)]
    assert lr[1499] == max(lr) == 0.007
    assert lr[749] == pytest.approx((1e-4 + 0.007) / 2)
    assert lr[1499 + 14_250] == pytest.approx(0.007 * 0.5**0.9)
    assert lr[-1] == 1e-6
    # without a warmup the first step has the whole rate
    assert learning_rate(0, 100, OptimConfig(lr=0.007)) == 0.007


def test_warmup_to_the_curve():
    config = OptimConfig(lr=0.007, warmup_steps=1500, warmup_lr=1e-4, schedule="poly", warmup_to="curve")
    lr = [learning_rate(t, 30_000, config) for t in range(30_001)]
    assert lr[0] == 1e-4
    assert lr[750] == pytest.approx((1e-4 + lr[1500]) / 2)
    assert lr[1500] == pytest.approx(0.007 * 0.95**0.9)
    assert lr[15_000] == pytest.approx(0.007 * 0.5**0.9)
    assert max(lr) == lr[1500]
    assert lr[30_000] == 1e-6


def test_an_older_run_goes_on_with_its_own_schedule(tmp_path):
    asked = TrainConfig(out=str(tmp_path), resume="auto", optim=OptimConfig(warmup_steps=10))
    assert with_unsaid(asked) == asked  # there is none
    write_config(tmp_path / "config.yaml", asked)
    assert with_unsaid(asked) == asked
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("  warmup_to: lr\n", ""))
    assert with_unsaid(asked).optim == replace(asked.optim, warmup_to="curve")
    assert with_unsaid(replace(asked, resume="never")).optim.warmup_to == "lr"
    assert stored_options(tmp_path)["optim.warmup_to"] == "curve"


def test_cosine():
    config = OptimConfig(lr=0.01, schedule="cosine", min_lr=1e-5)
    assert learning_rate(0, 100, config) == 0.01
    assert learning_rate(50, 100, config) == pytest.approx(0.005)
    assert learning_rate(25, 100, config) == pytest.approx(0.01 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(100, 100, config) == 1e-5


def test_step():
    config = OptimConfig(lr=0.1, schedule="step", step_milestones=(0.5, 0.9), step_factor=0.2)
    lr = [learning_rate(t, 10, config) for t in range(11)]
    assert lr == pytest.approx([0.1] * 5 + [0.02] * 4 + [0.004] * 2)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.0), ("weight_decay", -1.0), ("head_lr_factor", 0), ("step_milestones", (0.5, 30))]
)
def test_bad_values(name, value):
    with pytest.raises(ValueError, match=f"optim.{name}"):
        build_optimizer(Tiny(), OptimConfig(**{name: value}))


def test_step_uses_the_group_learning_rates():
    model = Tiny()
    before = [p.detach().clone() for p in (model.backbone[0].bias, model.head.bias)]
    optimizer = build_optimizer(model, OptimConfig(lr=0.5, head_lr_factor=4, momentum=0))
    (model.backbone[0].bias.sum() + model.head.bias.sum()).backward()
    optimizer.step()
    assert torch.allclose(model.backbone[0].bias, before[0] - 0.5)
    assert torch.allclose(model.head.bias, before[1] - 2.0)
